//! The one mapping from a [`Reason`] to a response.
//!
//! A caller that speaks gRPC gets a trailers-only answer, every other one a status and one line of text. Both carry
//! `Proxy-Status` (RFC 9209). Nothing of the failure's inner details is told: those belong in the log.

use eastway_core::{Reason, Refusal};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode, Version};

use crate::body::Body;

/// RFC 9209's header.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The answer to a request that is refused so, spoken by the node `node`.
pub fn response(refusal: impl Into<Refusal>, node: &str, is_grpc: bool, version: Version) -> Response<Body> {
    let refusal = refusal.into();
    let mut response = if is_grpc { grpc(&refusal) } else { plain(&refusal) };
    let headers = response.headers_mut();
    if let Ok(status) = HeaderValue::try_from(refusal.reason.proxy_status(node)) {
        headers.insert(PROXY_STATUS, status);
    }
    if let Some(wait) = refusal.retry_after {
        // In whole seconds, of which there is at least one.
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_millis().div_ceil(1_000).max(1) as u64));
    }
    if closes(refusal.reason) && version <= Version::HTTP_11 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
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

fn plain(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(Body::full(line(refusal.reason)));
    *response.status_mut() = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn grpc(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(refusal.grpc_status)));
    if let Ok(message) = HeaderValue::try_from(line(refusal.reason).trim_end()) {
        headers.insert("grpc-message", message);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_safe_answer() {
        for &reason in Reason::ALL {
            let response = response(reason, "eastway-gw-x", false, Version::HTTP_11);
            assert_eq!(response.status().as_u16(), reason.status(), "{reason}");
            let status = response.headers()[&PROXY_STATUS].to_str().expect("text");
            assert_eq!(Reason::from_proxy_status(status), Some(reason));
            assert_eq!(response.headers().contains_key(CONNECTION), closes(reason));
            let line = line(reason);
            assert!(line.ends_with('\n') && line.lines().count() == 1 && line.contains(reason.code()), "{line}");
        }
    }

    #[test]
    fn grpc_callers_are_told_in_their_own_terms() {
        let response = response(Reason::NoReadyEndpoint, "n", true, Version::HTTP_2);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert!(response.headers().contains_key(PROXY_STATUS));
    }

    #[test]
    fn http2_never_gets_a_connection_header() {
        let response = response(Reason::BadHost, "n", false, Version::HTTP_2);
        assert!(!response.headers().contains_key(CONNECTION));
    }

    #[test]
    fn a_node_name_that_is_no_header_text_is_left_out() {
        let response = response(Reason::BadHost, "n\r\nx: y", false, Version::HTTP_11);
        assert!(!response.headers().contains_key(PROXY_STATUS));
    }
}
