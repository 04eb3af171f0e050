//! How long a response is waited for: its limit begins when the request has been sent.
//!
//! An upload takes as long as it takes. While it goes on, a caller that stalls is the fault of the caller (its body has a
//! limit of silence), and an endpoint that takes nothing is given the same patience. What the caller states counts from the
//! start.

use std::time::Duration;

/// How far the body of a caller's request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// It was complete so long ago; `None` if there is none, and never was anything to wait for.
    Complete(Option<Duration>),
    /// More is wanted of the caller.
    Waiting,
    /// The endpoint has taken nothing for so long.
    Untaken(Duration),
}

impl Upload {
    /// How long ago the request was complete, if it is: never longer ago than `in_all`, which is how long it is here.
    pub fn complete_for(self, in_all: Duration) -> Option<Duration> {
        match self {
            Self::Complete(since) => Some(since.unwrap_or(Duration::MAX).min(in_all)),
            Self::Waiting | Self::Untaken(_) => None,
        }
    }
}

/// The limits of one attempt.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the first byte of the response, over all attempts, after the request is complete.
    pub request: Duration,
    /// The same, for this attempt.
    pub per_try: Option<Duration>,
    /// How long the endpoint may take nothing of the request.
    pub idle: Duration,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug)]
pub struct Waited {
    /// Since the request came.
    pub in_all: Duration,
    /// Since the attempt began.
    pub this_try: Duration,
    /// What is left of the time that the caller stated.
    pub stated: Option<Duration>,
    /// The request's body.
    pub upload: Upload,
}

impl Patience {
    /// How long to wait until it is asked again; zero if the time is over.
    pub fn left(&self, waited: &Waited) -> Duration {
        let own = match waited.upload {
            Upload::Complete(since) => {
                let since = since.unwrap_or(Duration::MAX);
                let in_all = self.request.saturating_sub(since.min(waited.in_all));
                let per_try = self.per_try.map(|limit| limit.saturating_sub(since.min(waited.this_try)));
                per_try.map_or(in_all, |per_try| per_try.min(in_all))
            }
            // It may be complete at any time, and the limit is not shorter than this from then on.
            Upload::Waiting => self.shortest(),
            Upload::Untaken(since) => self.idle.saturating_sub(since.min(waited.this_try)).min(self.shortest()),
        };
        waited.stated.map_or(own, |stated| stated.min(own))
    }

    fn shortest(&self) -> Duration {
        self.per_try.map_or(self.request, |per_try| per_try.min(self.request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const PATIENCE: Patience = Patience { request: seconds(15), per_try: None, idle: seconds(300) };

    fn left(patience: Patience, waited: u64, upload: Upload) -> Duration {
        let waited = seconds(waited);
        patience.left(&Waited { in_all: waited, this_try: waited, stated: None, upload })
    }

    #[test]
    fn the_limit_begins_when_the_request_has_been_sent() {
        assert_eq!(left(PATIENCE, 0, Upload::Complete(None)), seconds(15));
        assert_eq!(left(PATIENCE, 15, Upload::Complete(None)), Duration::ZERO);
        for upload in [Upload::Waiting, Upload::Untaken(seconds(2))] {
            assert_eq!(left(PATIENCE, 200, upload), seconds(15), "an upload may take longer");
        }
        assert_eq!(left(PATIENCE, 200, Upload::Complete(Some(seconds(5)))), seconds(10));
        assert_eq!(left(PATIENCE, 200, Upload::Complete(Some(seconds(15)))), Duration::ZERO);
    }

    #[test]
    fn an_endpoint_that_takes_nothing_is_not_waited_for_without_end() {
        assert_eq!(left(PATIENCE, 400, Upload::Untaken(seconds(290))), seconds(10));
        assert_eq!(left(PATIENCE, 400, Upload::Untaken(seconds(300))), Duration::ZERO);
    }

    #[test]
    fn what_the_caller_states_counts_from_the_start() {
        let stated = |upload| {
            let (in_all, this_try) = (seconds(7), seconds(7));
            PATIENCE.left(&Waited { in_all, this_try, stated: Some(seconds(1)), upload })
        };
        assert_eq!(stated(Upload::Waiting), seconds(1));
        assert_eq!(stated(Upload::Complete(None)), seconds(1));
    }

    #[test]
    fn a_later_attempt_has_its_own_limit_within_that_of_all() {
        let patience = Patience { per_try: Some(seconds(4)), ..PATIENCE };
        let second = |in_all| {
            let upload = Upload::Complete(Some(in_all));
            patience.left(&Waited { in_all, this_try: seconds(1), stated: None, upload })
        };
        assert_eq!(second(seconds(5)), seconds(3));
        assert_eq!(second(seconds(14)), seconds(1));
    }
}
