//! The one mapping from a [`Reason`] to a response.
//!
//! A caller that speaks gRPC gets a trailers-only answer, every other one a status and one line of text. Both carry
//! `Proxy-Status` (RFC 9209). Nothing of the failure's inner details is told: those belong in the log.

use eastway_core::{Reason, Refusal};

use crate::body::Body;
use crate::message::{Response, ResponseHead};

/// RFC 9209's header.
pub const PROXY_STATUS: &str = "proxy-status";

/// The answer to a request that is refused so, spoken by the node `node`.
pub fn response(refusal: impl Into<Refusal>, node: &str, is_grpc: bool) -> Response {
    let refusal = refusal.into();
    let mut response = if is_grpc { grpc(&refusal) } else { plain(&refusal) };
    response.head.closes = closes(refusal.reason);
    let fields = &mut response.head.fields;
    fields.append(PROXY_STATUS, refusal.reason.proxy_status(node).as_bytes());
    if let Some(wait) = refusal.retry_after {
        // In whole seconds, of which there is at least one.
        fields.append("retry-after", wait.as_millis().div_ceil(1_000).max(1).to_string().as_bytes());
    }
    response
}

/// Whether an HTTP/1 connection must not carry another request after this refusal: where the next one starts is in doubt.
pub const fn closes(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::MalformedRequest
            | Reason::ConflictingLength
            | Reason::BadHost
            | Reason::HeaderTooLarge
            | Reason::BodyTimeout
            | Reason::CallerGone
    )
}

/// The line of text that goes with a reason.
pub fn line(reason: Reason) -> String {
    format!("{} ({})\n", reason.meaning(), reason.code())
}

fn plain(refusal: &Refusal) -> Response {
    let status = if matches!(refusal.status, 100..=999) { refusal.status } else { 500 };
    let mut response = Response::new(ResponseHead::new(status), Body::full(line(refusal.reason)));
    response.head.fields.append("content-type", b"text/plain; charset=utf-8");
    response
}

fn grpc(refusal: &Refusal) -> Response {
    let mut response = Response::empty(200);
    let fields = &mut response.head.fields;
    fields.append("content-type", b"application/grpc");
    fields.append("grpc-status", refusal.grpc_status.to_string().as_bytes());
    fields.append("grpc-message", line(refusal.reason).trim_end().as_bytes());
    response
}

#[cfg(test)]
mod tests {
    use eastway_core::head::Fields as _;

    use super::*;

    #[test]
    fn every_reason_has_a_safe_answer() {
        for &reason in Reason::ALL {
            let head = response(reason, "eastway-gw-x", false).head;
            assert_eq!((head.status, head.closes), (reason.status(), closes(reason)), "{reason}");
            let status = head.fields.text(PROXY_STATUS).expect("text");
            assert_eq!(Reason::from_proxy_status(status), Some(reason));
            let line = line(reason);
            assert!(line.ends_with('\n') && line.lines().count() == 1 && line.contains(reason.code()), "{line}");
        }
    }

    #[test]
    fn grpc_callers_are_told_in_their_own_terms() {
        let head = response(Reason::NoReadyEndpoint, "n", true).head;
        assert_eq!(head.status, 200);
        assert_eq!(head.fields.text("grpc-status"), Some("14"));
        assert_eq!(head.fields.text("content-type"), Some("application/grpc"));
        assert!(head.fields.get(PROXY_STATUS).is_some());
    }

    #[test]
    fn a_node_name_that_is_no_header_text_is_left_out() {
        let head = response(Reason::BadHost, "n\r\nx: y", false).head;
        assert!(head.fields.get(PROXY_STATUS).is_none());
    }
}
