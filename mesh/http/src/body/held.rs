//! Holding a small response until it is complete.
//!
//! The endpoint of an idempotent request may then die halfway through its answer without the caller noticing: nothing
//! of it was sent on yet, and the request is made again.

use http::Response;
use http_body::Body as _;

use super::{Body, BodyError};

/// The largest response held, unless configured otherwise.
pub const LIMIT: u64 = 16 * 1024;

/// Whether [`hold`] would wait for this response: its length is stated, not zero, and at most `limit`.
pub fn is_small(response: &Response<Body>, limit: u64) -> bool {
    response.body().size_hint().exact().is_some_and(|length| (1..=limit).contains(&length))
}

/// Reads a small response to its end, trailers included; others pass as they are.
///
/// # Errors
/// What the body failed with before its end.
pub async fn hold(response: Response<Body>, limit: u64) -> Result<Response<Body>, BodyError> {
    if !is_small(&response, limit) {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let (bytes, trailers) = body.collect(limit as usize).await?;
    if trailers.is_some() {
        // HTTP/1 has room for them in chunks only.
        parts.headers.remove(http::header::CONTENT_LENGTH);
    }
    Ok(Response::from_parts(parts, Body::held(bytes, trailers)))
}
