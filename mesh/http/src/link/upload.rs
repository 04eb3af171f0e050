//! The body of a message that goes over a link.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use eastway_core::Reason;
use eastway_link::SendError;
use eastway_transport::link::{Stream, StreamFault};
use http::HeaderMap;
use http_body::{Body as _, Frame};

use super::heads;
use crate::body::{Body, BodyError};

/// Sends `body` to its end, or until the other side takes nothing more. If the body fails, the stream does, for its `reason`.
pub(crate) async fn upload(stream: &Stream, mut body: Body, reason: fn(&BodyError) -> Reason) {
    loop {
        let Some(frame) = poll_fn(|cx| next(stream, &mut body, cx)).await else { return };
        match frame {
            None => return finish(stream),
            Some(Ok(frame)) => {
                let sent = match frame.into_data() {
                    Ok(data) => {
                        let end = body.is_end_stream();
                        let sent = send(stream, data, end).await;
                        if end && sent.is_ok() {
                            return;
                        }
                        sent
                    }
                    Err(frame) => match frame.into_trailers() {
                        Ok(trailers) => return send_trailers(stream, &trailers).await,
                        Err(_) => Ok(()),
                    },
                };
                if sent.is_err() {
                    return;
                }
            }
            Some(Err(error)) => {
                let reason = reason(&error);
                stream.lock().fail(stream.id(), StreamFault::Unsent(reason));
                // What came before it failed is the other side's: the driver, which was woken for it, writes it first.
                tokio::task::yield_now().await;
                return stream.reset(reason);
            }
        }
    }
}

type Next = Option<Result<Frame<Bytes>, BodyError>>;

/// What comes next of the body; `None` if the other side takes nothing more.
fn next(stream: &Stream, body: &mut Body, cx: &mut Context<'_>) -> Poll<Option<Next>> {
    if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
        return Poll::Ready(Some(frame));
    }
    let mut link = stream.lock();
    match link.state(stream.id()) {
        Some(state) if !state.takes_nothing() => state.wait_to_write(cx),
        _ => Poll::Ready(None),
    }
}

/// The stream is gone, or takes nothing more.
struct Ended;

async fn send(stream: &Stream, mut data: Bytes, end: bool) -> Result<(), Ended> {
    poll_fn(|cx| {
        let mut link = stream.lock();
        let now = link.now();
        let sent = link.connection.send_data(stream.id(), &mut data, end, now);
        link.wake_driver();
        match sent {
            Ok(_) if data.is_empty() => return Poll::Ready(Ok(())),
            Ok(_) | Err(SendError::Busy) => {}
            Err(SendError::Length) => {
                drop(link);
                // A body that is not as long as its head says must not look like a whole one.
                stream.reset(Reason::UpstreamProtocol);
                return Poll::Ready(Err(Ended));
            }
            Err(_) => return Poll::Ready(Err(Ended)),
        }
        match link.state(stream.id()) {
            Some(state) if !state.takes_nothing() => state.wait_to_write(cx),
            _ => Poll::Ready(Err(Ended)),
        }
    })
    .await
}

/// Ends what is sent on the stream.
pub(crate) fn finish(stream: &Stream) {
    let mut link = stream.lock();
    let finished = link.connection.finish(stream.id());
    link.wake_driver();
    if finished == Err(SendError::Length) {
        drop(link);
        stream.reset(Reason::UpstreamProtocol);
    }
}

async fn send_trailers(stream: &Stream, trailers: &HeaderMap) {
    poll_fn(|cx| {
        let mut link = stream.lock();
        let sent = link.connection.send_trailers(stream.id(), heads::trailers(trailers));
        link.wake_driver();
        match sent {
            Ok(()) => Poll::Ready(()),
            Err(SendError::Busy) => match link.state(stream.id()) {
                Some(state) if !state.takes_nothing() => state.wait_to_write(cx),
                _ => Poll::Ready(()),
            },
            // Trailers that cannot be said are left out, as HTTP/1 does with those that were not announced.
            Err(SendError::Head(_)) => {
                drop(link);
                finish(stream);
                Poll::Ready(())
            }
            Err(_) => Poll::Ready(()),
        }
    })
    .await
}
