//! Holding a small response until it is complete.
//!
//! The endpoint of an idempotent request may then die halfway through its answer without the caller noticing: nothing
//! of it was sent on yet, and the request is made again.

use http_body::Body as _;

use super::{Body, BodyError};

/// The largest response held, unless configured otherwise.
pub const LIMIT: u64 = 16 * 1024;

/// Whether [`hold`] would wait for this body: its length is known, not zero, and at most `limit`.
pub fn is_small(body: &Body, limit: u64) -> bool {
    body.size_hint().exact().is_some_and(|length| (1..=limit).contains(&length))
}

/// Reads a small body to its end, trailers included; others pass as they are. Whether there are trailers: HTTP/1 has room for
/// them in chunks only, so that the head must not state the length then.
///
/// # Errors
/// What the body failed with before its end.
pub async fn hold(body: Body, limit: u64) -> Result<(Body, bool), BodyError> {
    // All of it is here already.
    if !is_small(&body, limit) || body.is_at_hand() {
        return Ok((body, false));
    }
    let (bytes, trailers) = body.collect(limit as usize).await?;
    let with_trailers = trailers.is_some();
    Ok((Body::held(bytes, trailers), with_trailers))
}
