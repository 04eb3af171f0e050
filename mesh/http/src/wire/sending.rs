//! A body of any kind on its way out over a connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::Body as _;

use super::conn::{Conn, SendFault};
use crate::body::{Body, BodyError};

/// What is left of a body to be sent.
pub(crate) struct Sending {
    body: Body,
    /// Data that was taken from the body and not sent.
    data: Bytes,
}

/// Why a body was not sent to its end.
pub(crate) enum Unsent {
    /// It failed itself.
    Body(BodyError),
    /// It is not as long as its head says.
    WrongLength,
    /// The other side takes no more of it.
    Unwanted,
    /// The other side has read nothing for too long.
    Stalled,
}

/// Where a connection is to be found, if there still is one. While a body is polled nobody has it: the body may come over the
/// same connection.
pub(crate) trait Over {
    /// Does something with the connection.
    fn with_conn<T>(&self, what: impl FnOnce(&mut Conn) -> T) -> Option<T>;
}

impl Sending {
    pub(crate) const fn new(body: Body) -> Self {
        Self { body, data: Bytes::new() }
    }

    /// Sends what there is. What was gathered is sent before the body is waited for, and is not at the end of the body: more
    /// may be to send.
    pub(crate) fn poll(&mut self, over: &impl Over, cx: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        loop {
            while !self.data.is_empty() {
                let sent = ready!(poll(over, |conn| conn.poll_send(cx, &self.data)))?;
                self.data.advance(sent);
            }
            if self.body.is_end_stream() {
                return end(over, std::iter::empty());
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.data = data,
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        return end(
                            over,
                            trailers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
                        );
                    }
                },
                Poll::Ready(None) => return end(over, std::iter::empty()),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Unsent::Body(error))),
                Poll::Pending => {
                    ready!(poll(over, |conn| conn.poll_flush(cx)))?;
                    return Poll::Pending;
                }
            }
        }
    }
}

fn end<'a>(over: &impl Over, trailers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Poll<Result<(), Unsent>> {
    poll(over, |conn| Poll::Ready(conn.end_body(trailers)))
}

fn poll<T>(over: &impl Over, what: impl FnOnce(&mut Conn) -> Poll<Result<T, SendFault>>) -> Poll<Result<T, Unsent>> {
    let Some(polled) = over.with_conn(what) else { return Poll::Ready(Err(Unsent::Unwanted)) };
    polled.map_err(|fault| match fault {
        SendFault::Failed(_) => Unsent::Unwanted,
        SendFault::Stalled => Unsent::Stalled,
        SendFault::WrongLength(_) => Unsent::WrongLength,
    })
}
