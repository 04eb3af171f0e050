//! How one attempt ended, in the terms that breakers understand.
//!
//! The proxy translates what it saw into an [`Outcome`] once; nothing downstream looks at statuses or errors again.
//! This module never decides what happens next: that is the breakers' and the retry policy's part.

use std::time::Duration;

use eastway_core::{Attribution, LoadReport, Reason};

/// The end of one attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub class: Class,
    /// From the start of the attempt to the first byte of the response; `None` if there was none.
    pub latency: Option<Duration>,
    /// What the called sidecar said of its load with the response.
    pub load: Option<LoadReport>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The application answered, and not with a server error.
    Success,
    /// It failed, and somebody is charged.
    Failure(ChargedFailure),
    /// The application asked for less traffic: nobody's health, but a latency penalty.
    RateLimited,
    /// The caller went away, or another attempt won: says nothing of the endpoint.
    Cancelled,
}

/// A failure, and whom it is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChargedFailure {
    /// Who is charged.
    pub attribution: Attribution,
    /// Hard evidence, gathered by this caller itself: the endpoint's sidecar refused the connection, or its host is
    /// silent. It makes the endpoint *down*, which no cap limits. An odd answer, or a reset, never does.
    pub down: bool,
}

impl Outcome {
    /// A response that is no server error, whose first byte came after `latency`.
    pub const fn success(latency: Duration) -> Self {
        Self { class: Class::Success, latency: Some(latency), load: None }
    }

    /// A failure with a reason of ours, either found here or reported by a node on the way.
    pub const fn failed(reason: Reason) -> Self {
        let class = match reason.attribution() {
            Attribution::Caller => Class::Cancelled,
            Attribution::RateLimited => Class::RateLimited,
            attribution => Class::Failure(ChargedFailure { attribution, down: false }),
        };
        Self { class, latency: None, load: None }
    }

    /// Hard evidence against the endpoint: see [`ChargedFailure::down`].
    pub const fn down(reason: Reason) -> Self {
        let class = Class::Failure(ChargedFailure { attribution: reason.attribution(), down: true });
        Self { class, latency: None, load: None }
    }

    /// An application's response by its HTTP status: 5xx fails, 429 asks for less, anything else succeeds.
    ///
    /// 501 and 505 succeed: they are statements about the request, and the same everywhere.
    pub const fn status(status: u16, latency: Duration) -> Self {
        let class = match status {
            429 => Class::RateLimited,
            501 | 505 => Class::Success,
            500..=599 => Class::Failure(ChargedFailure { attribution: Attribution::Upstream5xx, down: false }),
            _ => Class::Success,
        };
        Self { class, latency: Some(latency), load: None }
    }

    /// A gRPC response by its `grpc-status`: `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS` and `UNKNOWN` fail.
    pub const fn grpc_status(status: u8, latency: Duration) -> Self {
        let class = match status {
            8 => Class::RateLimited,
            2 | 13 | 14 | 15 => Class::Failure(ChargedFailure { attribution: Attribution::Upstream5xx, down: false }),
            _ => Class::Success,
        };
        Self { class, latency: Some(latency), load: None }
    }

    /// The caller went away, or another attempt won.
    pub const fn cancelled() -> Self {
        Self { class: Class::Cancelled, latency: None, load: None }
    }

    /// The same, with the load that came with the response.
    #[must_use]
    pub const fn with_load(mut self, load: Option<LoadReport>) -> Self {
        self.load = load;
        self
    }

    /// The same, with the time to the first byte.
    #[must_use]
    pub const fn with_latency(mut self, latency: Duration) -> Self {
        self.latency = Some(latency);
        self
    }

    /// The failure, if it is one.
    pub const fn failure(&self) -> Option<ChargedFailure> {
        match self.class {
            Class::Failure(failure) => Some(failure),
            _ => None,
        }
    }
}

/// What one failure charges, in units of one ordinary failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// To the path.
    pub path: u32,
    /// To the locality, for what only the locality can be blamed for.
    pub locality: u32,
    /// To the endpoint; the locality is charged one for it too, once enough endpoints contribute.
    pub endpoint: u32,
}

impl Charge {
    /// Who pays for a failure attributed so.
    pub const fn of(attribution: Attribution) -> Self {
        let (path, locality, endpoint) = match attribution {
            Attribution::Tunnel | Attribution::GatewayOverload => (1, 0, 0),
            Attribution::NoEndpoint => (0, 1, 0),
            Attribution::UpstreamConnect => (0, 0, 2),
            Attribution::Upstream5xx => (0, 0, 1),
            Attribution::RateLimited | Attribution::Caller => (0, 0, 0),
        };
        Self { path, locality, endpoint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(3);

    #[test]
    fn statuses_are_classed_by_what_they_say_of_the_endpoint() {
        assert_eq!(Outcome::status(200, LATENCY).class, Class::Success);
        assert_eq!(Outcome::status(404, LATENCY).class, Class::Success);
        assert_eq!(Outcome::status(429, LATENCY).class, Class::RateLimited);
        assert_eq!(Outcome::status(501, LATENCY).class, Class::Success);
        let failed = Outcome::status(503, LATENCY);
        assert_eq!(failed.failure(), Some(ChargedFailure { attribution: Attribution::Upstream5xx, down: false }));
        assert_eq!(failed.latency, Some(LATENCY));
        assert!(Outcome::grpc_status(14, LATENCY).failure().is_some());
        assert_eq!(Outcome::grpc_status(5, LATENCY).class, Class::Success);
        assert_eq!(Outcome::grpc_status(8, LATENCY).class, Class::RateLimited);
    }

    #[test]
    fn the_callers_own_failures_charge_nobody() {
        for &reason in Reason::ALL {
            let outcome = Outcome::failed(reason);
            let charged = Charge::of(reason.attribution()) != Charge::default();
            assert_eq!(outcome.failure().is_some(), charged, "{reason}");
        }
        assert_eq!(Outcome::cancelled().failure(), None);
    }

    #[test]
    fn a_dead_gateway_never_charges_an_endpoint_nor_an_application_a_path() {
        for attribution in [Attribution::Tunnel, Attribution::GatewayOverload] {
            assert_eq!(Charge::of(attribution), Charge { path: 1, locality: 0, endpoint: 0 });
        }
        assert_eq!(Charge::of(Attribution::UpstreamConnect), Charge { path: 0, locality: 0, endpoint: 2 });
        assert_eq!(Charge::of(Attribution::Upstream5xx), Charge { path: 0, locality: 0, endpoint: 1 });
        assert_eq!(Charge::of(Attribution::NoEndpoint), Charge { path: 0, locality: 1, endpoint: 0 });
    }

    #[test]
    fn hard_evidence_keeps_its_attribution() {
        let outcome = Outcome::down(Reason::ConnectFailed).with_latency(LATENCY).with_load(None);
        assert_eq!(outcome.failure(), Some(ChargedFailure { attribution: Attribution::UpstreamConnect, down: true }));
    }
}
