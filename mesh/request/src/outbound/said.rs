//! What the application is told when no attempt succeeded: the word of the one that says most.

use eastway_core::{Attribution, Reason};

/// What an attempt that failed would have the application told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FailedAttempt {
    /// What happened.
    pub(super) reason: Reason,
    /// The application answered, with an error of its own, which is kept to fall back on.
    pub(super) answered: bool,
}

impl FailedAttempt {
    /// The attempt got no usable answer.
    pub(super) const fn unanswered(reason: Reason) -> Self {
        Self { reason, answered: false }
    }

    /// The application answered, with an error of its own.
    pub(super) const fn answered() -> Self {
        Self { reason: Reason::UpstreamReset, answered: true }
    }

    /// Of two attempts, the later one tells more, unless it found nobody where the earlier one had found somebody.
    pub(super) fn over(self, earlier: Option<Self>) -> Self {
        match earlier {
            Some(earlier) if earlier.found_somebody() && !self.found_somebody() => earlier,
            _ => self,
        }
    }

    fn found_somebody(self) -> bool {
        let nobody = self.reason.attribution() == Attribution::NoEndpoint
            || matches!(self.reason, Reason::PendingLimit | Reason::RequestLimit);
        self.answered || !nobody
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_that_finds_nobody_does_not_hide_what_happened_before() {
        let told =
            |earlier, later| FailedAttempt::unanswered(later).over(Some(FailedAttempt::unanswered(earlier))).reason;
        for nobody in [Reason::NoReadyEndpoint, Reason::PendingLimit, Reason::RequestLimit] {
            for happened in [Reason::UpstreamProtocol, Reason::UpstreamReset, Reason::AppUnreachable] {
                assert_eq!(told(happened, nobody), happened);
                assert_eq!(told(nobody, happened), happened);
            }
        }
        assert_eq!(told(Reason::UpstreamReset, Reason::ConnectFailed), Reason::ConnectFailed);
        assert_eq!(told(Reason::NoReadyEndpoint, Reason::PendingLimit), Reason::PendingLimit);
    }

    #[test]
    fn an_applications_own_error_is_better_than_nobody() {
        assert!(FailedAttempt::unanswered(Reason::NoReadyEndpoint).over(Some(FailedAttempt::answered())).answered);
        let later = FailedAttempt::unanswered(Reason::ResponseTimeout).over(Some(FailedAttempt::answered()));
        assert_eq!(later, FailedAttempt::unanswered(Reason::ResponseTimeout));
    }
}
