//! What the application speaks, where the configuration leaves it open: found out once, before the first request that came
//! by HTTP/2, and remembered.
//!
//! A server that knows HTTP/2 begins by saying so, in its SETTINGS. One that does not takes the preface for a request, and
//! answers in HTTP/1.1 or hangs up: then callers that speak HTTP/2 are served by HTTP/1.1.

use std::cell::Cell;
use std::time::Duration;

use eastway_core::Reason;
use eastway_transport::Io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connect;
use crate::node::SidecarNode;

/// The preface of HTTP/2, and empty SETTINGS.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A GOAWAY without an error.
const GOODBYE: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// The length of a frame's head, and the place of its type.
const FRAME_HEAD: usize = 9;
const FRAME_TYPE: usize = 3;
const SETTINGS: u8 = 4;

/// What is known of the application.
#[derive(Default)]
pub(super) struct Spoken {
    h2: Cell<Option<bool>>,
    /// Requests that come meanwhile wait for one answer.
    asking: Mutex<()>,
}

impl Spoken {
    /// Whether it speaks HTTP/2 without TLS.
    ///
    /// # Errors
    /// [`Reason::AppUnreachable`].
    pub(super) async fn is_h2(&self, node: &SidecarNode) -> Result<bool, Reason> {
        if let Some(known) = self.h2.get() {
            return Ok(known);
        }
        let _asking = self.asking.lock().await;
        if let Some(known) = self.h2.get() {
            return Ok(known);
        }
        let io = connect(node).await?;
        let answers = answers(io, node.config.timeouts.stream_open).await;
        tracing::info!(http2 = answers, "found out what the application speaks");
        self.h2.set(answers);
        // One that says nothing in time is slow, and is believed to speak what its callers do.
        Ok(answers.unwrap_or(true))
    }

    /// It is gone, or its answer was none: another application may take its place, which is asked anew.
    pub(super) fn forget(&self) {
        self.h2.set(None);
    }
}

/// Whether the other side answers in HTTP/2; `None` if it does not answer in time.
async fn answers(mut io: Io, limit: Duration) -> Option<bool> {
    let mut head = [0; FRAME_HEAD];
    let asked = async {
        io.write_all(HELLO).await?;
        io.read_exact(&mut head).await
    };
    let is_h2 = timeout(limit, asked).await.ok()?.is_ok() && head[FRAME_TYPE] == SETTINGS;
    if is_h2 {
        // It may be gone already, which is as good.
        let _ = timeout(limit, io.write_all(GOODBYE)).await;
    }
    Some(is_h2)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(answer: &'static [u8]) -> Option<bool> {
        let (near, mut far) = Io::pair(1024);
        tokio::spawn(async move {
            let mut hello = [0; HELLO.len()];
            let _ = far.read_exact(&mut hello).await;
            let _ = far.write_all(answer).await;
        });
        answers(near, Duration::from_secs(20)).await
    }

    #[tokio::test]
    async fn a_server_that_begins_with_settings_speaks_http2_and_every_other_does_not() {
        assert_eq!(told(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64").await, Some(true));
        for other in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"HTTP/1.1 505", b"", b"-ERR"] {
            assert_eq!(told(other).await, Some(false), "{other:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_tells_nothing() {
        let (near, _far) = Io::pair(1024);
        assert_eq!(answers(near, Duration::from_secs(1)).await, None);
    }
}
