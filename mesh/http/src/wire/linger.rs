//! Closing a connection whose peer still sends.
//!
//! A socket that is closed with bytes unread resets the connection, and the reset may overtake the answer: whoever is
//! refused in the middle of an upload would not learn why. So the own direction is ended first, and what still comes is read
//! and thrown away until the peer has ended, too, or has had its time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use eastway_transport::Io;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Sleep;

/// Reads in a row before others get their turn.
const ROUNDS: usize = 16;

/// The end of a connection.
#[derive(Debug)]
pub(crate) struct Lingering {
    limit: Duration,
    /// Whether the own direction has ended.
    finished: bool,
    until: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    /// The peer gets `limit` to stop sending.
    pub(crate) const fn new(limit: Duration) -> Self {
        Self { limit, finished: false, until: None }
    }

    /// Ends the own direction, once.
    pub(crate) fn poll_finish(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            ready!(Pin::new(io).poll_shutdown(cx))?;
            self.finished = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the peer has ended, or its time is over.
    pub(crate) fn poll(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut thrown_away = [0; 8 * 1024];
        for _ in 0..ROUNDS {
            let mut buf = ReadBuf::new(&mut thrown_away);
            let read = ready!(Pin::new(&mut *io).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use crate::body::Body;
    use crate::message::Request;
    use crate::testing::{answered, listen, local};

    #[test]
    fn a_refusal_in_the_middle_of_an_upload_reaches_who_reads_only_when_it_has_sent_all() {
        local(async {
            let server = listen(|_: Request| async { answered(413, Body::full("too much")) }).await;
            let mut caller = TcpStream::connect(server).await.expect("it listens");
            let body = vec![7; 32 << 20];
            let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
            caller.write_all(head.as_bytes()).await.expect("it reads");
            caller.write_all(&body).await.expect("it reads on");
            let mut answer = String::new();
            caller.read_to_string(&mut answer).await.expect("an orderly end");
            assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("too much"), "{answer}");
        });
    }

    #[test]
    fn what_is_no_http_is_refused_without_a_reset() {
        local(async {
            let server = listen(crate::testing::mirror).await;
            let mut caller = TcpStream::connect(server).await.expect("it listens");
            let garbage = b"NO HTTP\r\n\r\n".repeat(1 << 20);
            caller.write_all(&garbage).await.expect("it reads on");
            caller.shutdown().await.expect("open");
            let mut answer = String::new();
            caller.read_to_string(&mut answer).await.expect("an orderly end");
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        });
    }
}
