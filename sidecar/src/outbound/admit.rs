//! Phase 3: is there room for another request of this service?

use eastway_core::Reason;
use eastway_http::Body;
use eastway_http::framing::UpgradeTo;
use eastway_resilience::limits::Permit;
use http::{Method, Request};

use super::Route;

/// Takes a place among the service's requests in flight; for a CONNECT, and for a request that asks for another protocol,
/// among its streams.
///
/// # Errors
/// [`Reason::RequestLimit`] or [`Reason::StreamLimit`] when there is none.
pub(super) fn admit(route: &Route, request: &Request<Body>) -> Result<Permit, Reason> {
    if request.method() == Method::CONNECT || request.extensions().get::<UpgradeTo>().is_some() {
        return route.entry.streams.try_acquire().ok_or(Reason::StreamLimit);
    }
    route.entry.requests.try_acquire().ok_or(Reason::RequestLimit)
}
