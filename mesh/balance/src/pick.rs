//! The result of a pick: where the request goes, and the guards that make sure it is counted exactly once.

use std::sync::Arc;

use eastway_core::Reason;

use crate::endpoint::{Endpoint, HALF_OPEN};
use crate::locality::{EndpointSlot, LocalityEndpoints};
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Where one attempt goes.
///
/// Dropping it takes the attempt out of the requests in flight, however it ended: finished, cancelled or unwound. A probe's
/// permit goes back too, if nobody reported how the probe ended.
#[derive(Debug)]
pub struct Pick {
    /// The locality; it is never exchanged, because a member is known by its place there.
    pub locality: Arc<LocalityEndpoints>,
    target: Target,
    /// The attempt tests something half-open: its failure costs no attempt.
    pub probe: bool,
    permits: Permits,
    finished: AtomicBool,
    /// What the probe was sent to find out is known, or will never be.
    settled: AtomicBool,
}

/// What a pick leads to.
#[derive(Debug)]
enum Target {
    /// An endpoint of the locality. The locality keeps it alive, so that the pick need not: counting references would touch
    /// a second cache line of an endpoint that was chosen at random, and so is in no cache.
    Member(EndpointSlot),
    /// An endpoint that was tried because it is half-open, or that a session leads to.
    Endpoint(Arc<Endpoint>),
    /// A remote locality, before an endpoint is bound.
    Remote,
}

/// Which permits a probe holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Permits {
    pub(crate) endpoint: bool,
    pub(crate) locality: bool,
    pub(crate) path: bool,
}

impl Permits {
    fn any(self) -> bool {
        self.endpoint || self.locality || self.path
    }
}

/// Nothing can be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no endpoint can be picked: {reason}")]
pub struct NoPick {
    /// Why.
    pub reason: Reason,
}

impl Pick {
    #[inline]
    pub(crate) fn to_member(locality: &Arc<LocalityEndpoints>, slot: EndpointSlot, permits: Permits) -> Self {
        locality.member(slot).start_request();
        Self::new(Arc::clone(locality), Target::Member(slot), permits)
    }

    pub(crate) fn to_endpoint(locality: Arc<LocalityEndpoints>, endpoint: Arc<Endpoint>, permits: Permits) -> Self {
        endpoint.start_request();
        Self::new(locality, Target::Endpoint(endpoint), permits)
    }

    pub(crate) fn remote(locality: Arc<LocalityEndpoints>, permits: Permits) -> Self {
        Self::new(locality, Target::Remote, permits)
    }

    fn new(locality: Arc<LocalityEndpoints>, target: Target, permits: Permits) -> Self {
        Self {
            locality,
            target,
            probe: permits.any(),
            permits,
            finished: AtomicBool::new(false),
            settled: AtomicBool::new(false),
        }
    }

    /// The endpoint. `None` in a remote locality: choose among its sessions ([`crate::Service::choose`]), then
    /// [`Pick::bind`] one.
    #[inline]
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        match &self.target {
            Target::Member(slot) => Some(self.locality.member(*slot)),
            Target::Endpoint(endpoint) => Some(endpoint),
            Target::Remote => None,
        }
    }

    /// Binds the endpoint that the caller chose in a remote locality, and counts the request there.
    ///
    /// False, and nothing is bound, if the endpoint is half-open and somebody else is trying it: choose another, or leave
    /// the locality. Binding again moves the request.
    pub fn bind(&mut self, endpoint: Arc<Endpoint>) -> bool {
        let half_open = endpoint.gate() & HALF_OPEN != 0;
        if half_open && !endpoint.permit.try_take() {
            return false;
        }
        self.bind_holding(endpoint, half_open);
        true
    }

    /// Binds the endpoint that [`crate::Service::choose_any`] gave: as its probe if it waits for one, else as one more
    /// request to what should have none.
    pub fn bind_anyway(&mut self, endpoint: Arc<Endpoint>) {
        let probe = endpoint.gate() & HALF_OPEN != 0 && endpoint.permit.try_take();
        self.bind_holding(endpoint, probe);
    }

    fn bind_holding(&mut self, endpoint: Arc<Endpoint>, permit: bool) {
        self.unbind();
        self.permits.endpoint = permit;
        self.probe = self.permits.any();
        endpoint.start_request();
        self.target = Target::Endpoint(endpoint);
    }

    fn unbind(&mut self) {
        if let Some(bound) = self.endpoint() {
            bound.end_request();
            if self.permits.endpoint {
                bound.permit.release();
            }
        }
        self.permits.endpoint = false;
        self.target = Target::Remote;
    }

    /// Marks it finished; true for the first who does.
    pub(crate) fn finish(&self) -> bool {
        !self.finished.swap(true, Relaxed)
    }

    /// Marks its probe settled; true for the first who does, if it is one.
    pub(crate) fn settle(&self) -> bool {
        self.permits.any() && !self.settled.swap(true, Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Relaxed)
    }

    pub(crate) fn permits(&self) -> Permits {
        self.permits
    }

    /// Gives back the permits of the probe.
    pub(crate) fn release_permits(&self) {
        if let (true, Some(endpoint)) = (self.permits.endpoint, self.endpoint()) {
            endpoint.permit.release();
        }
        if self.permits.locality {
            self.locality.state.circuit.permit.release();
        }
        if let (true, Some(path)) = (self.permits.path, &self.locality.path) {
            path.permit.release();
        }
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoint() {
            endpoint.end_request();
        }
        if self.settle() {
            self.release_permits();
        }
    }
}
