//! Filters: what a route does to the requests that take it. Each is a function over heads with a small state.

pub mod fault;
pub mod headers;
pub mod rate_limit;

use std::time::Duration;

use eastway_core::head::{Edits, RequestHead};
use eastway_core::{Refusal, Timestamp};

pub use fault::{Fault, FaultAbort, FaultDelay};
pub use headers::HeaderEdits;
pub use rate_limit::RateLimit;

/// A step of a route.
#[derive(Debug)]
pub enum Filter {
    /// Changes header fields of requests and answers.
    Headers(HeaderEdits),
    /// Delays or refuses some requests, to see what their callers do. No endpoint is charged for it.
    Fault(Fault),
    /// Refuses what exceeds a rate.
    RateLimit(RateLimit),
}

/// What a filter has to say about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterVerdict {
    /// It goes on at once.
    Pass,
    /// It goes on after this wait.
    Delay(Duration),
    /// It goes no further, and its caller is told so after this wait.
    Refuse(Refusal, Duration),
}

impl Filter {
    /// Looks at a request on its way in, and adds to its edits.
    pub fn request(
        &self,
        head: &RequestHead<'_>,
        edits: &mut Edits,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> FilterVerdict {
        match self {
            Self::Headers(headers) => headers.request(edits),
            Self::Fault(fault) => fault.request(head, rng),
            Self::RateLimit(limit) => limit.request(now),
        }
    }

    /// Adds to the edits of an answer on its way out.
    pub fn response(&self, edits: &mut Edits) {
        match self {
            Self::Headers(headers) => headers.response(edits),
            Self::Fault(_) | Self::RateLimit(_) => {}
        }
    }
}

/// What a list of filters has to say: the waits add up, and the first refusal is the last word.
pub(crate) fn run(
    filters: &[Filter],
    head: &RequestHead<'_>,
    edits: &mut Edits,
    now: Timestamp,
    rng: &mut fastrand::Rng,
) -> FilterVerdict {
    let mut wait = Duration::ZERO;
    for filter in filters {
        match filter.request(head, edits, now, rng) {
            FilterVerdict::Pass => {}
            FilterVerdict::Delay(longer) => wait += longer,
            FilterVerdict::Refuse(refusal, longer) => return FilterVerdict::Refuse(refusal, wait + longer),
        }
    }
    if wait.is_zero() { FilterVerdict::Pass } else { FilterVerdict::Delay(wait) }
}

#[cfg(test)]
mod tests {
    use eastway_core::Reason;

    use super::*;
    use crate::testing::head;

    #[test]
    fn waits_add_up_and_the_first_refusal_is_the_last_word() {
        let delay = |ms| {
            let delay = FaultDelay { percentage: 100.0, delay: Duration::from_millis(ms) };
            Filter::Fault(Fault { delay: Some(delay), ..Fault::default() })
        };
        let refuse = Filter::Fault(Fault { abort: Some(FaultAbort::new(100.0, 418)), ..Fault::default() });
        let mut rng = fastrand::Rng::with_seed(1);
        let mut verdict =
            |filters: &[Filter]| run(filters, &head("GET", "/", &()), &mut Edits::new(), Timestamp::ZERO, &mut rng);
        assert_eq!(verdict(&[]), FilterVerdict::Pass);
        assert_eq!(verdict(&[delay(20), delay(30)]), FilterVerdict::Delay(Duration::from_millis(50)));
        let refusal = Refusal::from(Reason::FaultInjected).with_status(418, 2);
        assert_eq!(verdict(&[delay(20), refuse, delay(30)]), FilterVerdict::Refuse(refusal, Duration::from_millis(20)));
    }
}
