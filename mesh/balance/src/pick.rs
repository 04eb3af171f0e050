//! The result of a pick: where the request goes, and the guards that make sure it is counted exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use eastway_core::Reason;

use crate::endpoint::{Endpoint, HALF_OPEN};
use crate::lane::Lane;

/// Where one attempt goes.
///
/// Dropping it takes the attempt out of the requests in flight, however it ended: finished, cancelled or unwound. A probe's
/// permit goes back too, if nobody reported how the probe ended.
#[derive(Debug)]
pub struct Pick {
    /// The lane.
    pub lane: Arc<Lane>,
    /// The endpoint, or what the caller has to choose itself.
    pub target: Target,
    /// The attempt tests something half-open: its failure costs no attempt.
    pub probe: bool,
    permits: Permits,
    finished: AtomicBool,
    /// What the probe was sent to find out is known, or will never be.
    settled: AtomicBool,
}

/// What a pick leads to.
#[derive(Clone, Debug)]
pub enum Target {
    /// An endpoint of the own cluster.
    Endpoint(Arc<Endpoint>),
    /// A remote lane: choose among its sessions ([`crate::Service::choose`]), then [`Pick::bind`] the endpoint.
    Remote,
}

/// Which permits a probe holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Permits {
    pub(crate) endpoint: bool,
    pub(crate) lane: bool,
    pub(crate) path: bool,
}

impl Permits {
    fn any(self) -> bool {
        self.endpoint || self.lane || self.path
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
    pub(crate) fn to_endpoint(lane: Arc<Lane>, endpoint: Arc<Endpoint>, permits: Permits) -> Self {
        endpoint.start_request();
        Self::new(lane, Target::Endpoint(endpoint), permits)
    }

    pub(crate) fn remote(lane: Arc<Lane>, permits: Permits) -> Self {
        Self::new(lane, Target::Remote, permits)
    }

    fn new(lane: Arc<Lane>, target: Target, permits: Permits) -> Self {
        Self {
            lane,
            target,
            probe: permits.any(),
            permits,
            finished: AtomicBool::new(false),
            settled: AtomicBool::new(false),
        }
    }

    /// The endpoint, once there is one.
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        match &self.target {
            Target::Endpoint(endpoint) => Some(endpoint),
            Target::Remote => None,
        }
    }

    /// Binds the endpoint that the caller chose in a remote lane, and counts the request there.
    ///
    /// False, and nothing is bound, if the endpoint is half-open and somebody else is trying it: choose another, or leave
    /// the lane. Binding again moves the request.
    pub fn bind(&mut self, endpoint: Arc<Endpoint>) -> bool {
        let half_open = endpoint.gate() & HALF_OPEN != 0;
        if half_open && !endpoint.permit.try_take() {
            return false;
        }
        self.unbind();
        self.permits.endpoint = half_open;
        self.probe = self.permits.any();
        endpoint.start_request();
        self.target = Target::Endpoint(endpoint);
        true
    }

    fn unbind(&mut self) {
        if let Target::Endpoint(bound) = &self.target {
            bound.end_request();
            if std::mem::take(&mut self.permits.endpoint) {
                bound.permit.release();
            }
            self.target = Target::Remote;
        }
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
        if let (true, Target::Endpoint(endpoint)) = (self.permits.endpoint, &self.target) {
            endpoint.permit.release();
        }
        if self.permits.lane {
            self.lane.state.circuit.permit.release();
        }
        if let (true, Some(path)) = (self.permits.path, &self.lane.path) {
            path.permit.release();
        }
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        if let Target::Endpoint(endpoint) = &self.target {
            endpoint.end_request();
        }
        if self.settle() {
            self.release_permits();
        }
    }
}
