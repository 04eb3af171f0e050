//! Faults that an operator puts on a route, to see what its callers do. They are the operator's: no endpoint is charged.

use std::time::Duration;

use eastway_core::head::RequestHead;
use eastway_core::{Reason, Refusal};

use super::FilterVerdict;
use crate::request_match::RequestMatch;

/// Which requests are harmed, and how.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    /// Only requests like any of these; empty for every request.
    pub matches: Vec<RequestMatch>,
    /// Some wait.
    pub delay: Option<FaultDelay>,
    /// Some are refused, after the wait if they have one.
    pub abort: Option<FaultAbort>,
}

/// A wait before a request goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultDelay {
    /// How many of the requests, in percent.
    pub percentage: f64,
    /// How long.
    pub delay: Duration,
}

/// An answer in place of the application's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultAbort {
    /// How many of the requests, in percent.
    pub percentage: f64,
    /// The HTTP status.
    pub status: u16,
    /// The status towards callers that speak gRPC.
    pub grpc_status: u8,
}

impl FaultAbort {
    /// The HTTP status `status`, and for callers that speak gRPC what that means to them (the table of
    /// <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
    pub const fn new(percentage: f64, status: u16) -> Self {
        let grpc_status = match status {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => 14,
            _ => 2,
        };
        Self { percentage, status, grpc_status }
    }
}

impl Fault {
    pub(super) fn request(&self, head: &RequestHead<'_>, rng: &mut fastrand::Rng) -> FilterVerdict {
        if !self.matches.is_empty() && !self.matches.iter().any(|wanted| wanted.holds(head)) {
            return FilterVerdict::Pass;
        }
        let delay = self.delay.filter(|delay| strikes(delay.percentage, rng)).map(|delay| delay.delay);
        match self.abort.filter(|abort| strikes(abort.percentage, rng)) {
            Some(abort) => {
                let refusal = Refusal::from(Reason::FaultInjected).with_status(abort.status, abort.grpc_status);
                FilterVerdict::Refuse(refusal, delay.unwrap_or_default())
            }
            None => delay.map_or(FilterVerdict::Pass, FilterVerdict::Delay),
        }
    }
}

fn strikes(percentage: f64, rng: &mut fastrand::Rng) -> bool {
    rng.f64() * 100.0 < percentage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::head;

    const DELAY: FaultDelay = FaultDelay { percentage: 100.0, delay: Duration::from_secs(1) };

    #[test]
    fn as_many_requests_are_harmed_as_was_said() {
        let mut rng = fastrand::Rng::with_seed(7);
        for (percentage, least, most) in [(0.0, 0, 0), (10.0, 900, 1_100), (100.0, 10_000, 10_000)] {
            let fault = Fault { abort: Some(FaultAbort::new(percentage, 503)), ..Fault::default() };
            let harmed = (0..10_000).filter(|_| fault.request(&head("GET", "/", &()), &mut rng) != FilterVerdict::Pass);
            let harmed = harmed.count();
            assert!((least..=most).contains(&harmed), "{percentage} %: {harmed}");
        }
    }

    #[test]
    fn only_what_matches_is_harmed_and_told_the_operators_status() {
        let cart = RequestMatch { path_prefix: Some("/cart".to_owned()), ..RequestMatch::default() };
        let fault = Fault { matches: vec![cart], delay: Some(DELAY), abort: Some(FaultAbort::new(100.0, 404)) };
        let mut rng = fastrand::Rng::with_seed(7);
        assert_eq!(fault.request(&head("GET", "/", &()), &mut rng), FilterVerdict::Pass);
        let refusal = Refusal::from(Reason::FaultInjected).with_status(404, 12);
        assert_eq!(fault.request(&head("GET", "/cart/1", &()), &mut rng), FilterVerdict::Refuse(refusal, DELAY.delay));
        let slow = Fault { delay: Some(DELAY), ..Fault::default() };
        assert_eq!(slow.request(&head("GET", "/", &()), &mut rng), FilterVerdict::Delay(DELAY.delay));
    }
}
