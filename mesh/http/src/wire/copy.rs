//! A body on its way from one connection to the other.

use std::task::{Context, Poll, ready};

use super::conn::{BodyFault, Conn, Next, SendFault};
use super::decode::MAX_TRAILER_FIELDS;
use crate::head::{Lines, Place};

/// Why a body did not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyFault {
    /// It could not be read.
    #[error("the body could not be read")]
    Source(#[source] BodyFault),
    /// It could not be written.
    #[error("the body could not be written")]
    Sink(#[source] SendFault),
}

/// Copies until the body has ended or one side has to be waited for. What was gathered is sent before waiting, and is not
/// when the body ends: more may be to send. Ready again and again once the body has ended.
pub(super) fn poll_copy(from: &mut Conn, to: &mut Conn, cx: &mut Context<'_>) -> Poll<Result<(), CopyFault>> {
    loop {
        match from.poll_body(cx) {
            Poll::Ready(Ok(Next::Data)) => {
                let Poll::Ready(sent) = to.poll_send(cx, from.data()) else { break };
                let sent = sent.map_err(CopyFault::Sink)?;
                from.taken(sent);
            }
            Poll::Ready(Ok(Next::Trailers(len))) => {
                end_with(from.input.data().get(..len).unwrap_or_default(), to)?;
                from.taken(len);
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Ok(Next::End)) => {
                to.end_body(Lines::default()).map_err(CopyFault::Sink)?;
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(fault)) => return Poll::Ready(Err(CopyFault::Source(fault))),
            Poll::Pending => {
                ready!(to.poll_flush(cx)).map_err(CopyFault::Sink)?;
                break;
            }
        }
    }
    Poll::Pending
}

/// Ends a body with trailers that were judged as they were read.
fn end_with(trailers: &[u8], to: &mut Conn) -> Result<(), CopyFault> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let mut places = [Place::default(); MAX_TRAILER_FIELDS];
    let parsed = match httparse::parse_headers(trailers, &mut fields) {
        Ok(httparse::Status::Complete((_, parsed))) => parsed,
        _ => &[],
    };
    for (place, field) in places.iter_mut().zip(parsed) {
        *place = Place::of(trailers, field);
    }
    let places = places.get(..parsed.len()).unwrap_or_default();
    to.end_body(Lines::new(trailers, places)).map_err(CopyFault::Sink)
}
