//! Phase 3: is there room for another request of this service?

use eastway_core::Reason;
use eastway_resilience::limits::Permit;

use super::Route;

/// Takes a place among the service's requests in flight.
///
/// # Errors
/// [`Reason::PendingLimit`] when there is none.
pub(super) fn admit(route: &Route) -> Result<Permit, Reason> {
    route.entry.requests.try_acquire().ok_or(Reason::PendingLimit)
}
