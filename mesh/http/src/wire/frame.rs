//! Bodies for who keeps them longer than the bytes that they came in.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::conn::{BodyFault, Conn, Next};
use super::decode::MAX_TRAILER_FIELDS;
use eastway_transport::copies::copied;

use crate::body::BodyError;
use crate::names::is_dropped_trailer;

impl Conn {
    /// What comes next of the body; `None` after its end.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.poll_piece(cx) {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match ready!(self.poll_body(cx)) {
            Ok(Next::Data) => {
                let data = copied(self.data());
                self.taken(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Ok(Next::Trailers(len)) => {
                let trailers = trailers(self.input.data().get(..len).unwrap_or_default());
                self.taken(len);
                self.input.release();
                Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
            }
            Ok(Next::End) => Poll::Ready(None),
            Err(fault) => Poll::Ready(Some(Err(fault.into()))),
        }
    }
}

impl From<BodyFault> for BodyError {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::Malformed(malformed) => Self::Malformed(malformed.to_string()),
            BodyFault::Silent => Self::Idle,
            BodyFault::Truncated | BodyFault::Failed(_) => Self::Truncated,
        }
    }
}

/// Trailers that were judged as they were read, without those that go no further.
fn trailers(bytes: &[u8]) -> HeaderMap {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let parsed = match httparse::parse_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete((_, parsed))) => parsed,
        _ => &[],
    };
    let kept = parsed.iter().filter(|field| !is_dropped_trailer(field.name));
    kept.filter_map(|field| {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(field.value).ok()?))
    })
    .collect()
}
