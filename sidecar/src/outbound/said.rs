//! What the application is told when no attempt succeeded: the word of the one that says most.

use eastway_core::{Attribution, Reason};
use eastway_http::Body;
use http::Response;

/// What an attempt that failed would have the application told.
pub(super) struct Said {
    reason: Reason,
    response: Option<Response<Body>>,
}

impl Said {
    /// The attempt got no usable response.
    pub(super) const fn failed(reason: Reason) -> Self {
        Self { reason, response: None }
    }

    /// The application answered, with an error of its own.
    pub(super) const fn answered(response: Response<Body>) -> Self {
        Self { reason: Reason::UpstreamReset, response: Some(response) }
    }

    /// Of two attempts, the later one tells more, unless it found nobody where the earlier one had found somebody.
    pub(super) fn over(self, earlier: Option<Self>) -> Self {
        match earlier {
            Some(earlier) if earlier.found_somebody() && !self.found_somebody() => earlier,
            _ => self,
        }
    }

    /// The answer to the application, or the reason to refuse it.
    ///
    /// # Errors
    /// The reason, if there is no answer to fall back on.
    pub(super) fn into_answer(self) -> Result<Response<Body>, Reason> {
        self.response.ok_or(self.reason)
    }

    /// What happened, if there is no answer to fall back on.
    pub(super) const fn reason(&self) -> Reason {
        self.reason
    }

    fn found_somebody(&self) -> bool {
        let nobody = self.reason.attribution() == Attribution::NoEndpoint
            || matches!(self.reason, Reason::PendingLimit | Reason::RequestLimit);
        self.response.is_some() || !nobody
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(earlier: Reason, later: Reason) -> Reason {
        Said::failed(later).over(Some(Said::failed(earlier))).reason
    }

    #[test]
    fn a_retry_that_finds_nobody_does_not_hide_what_happened_before() {
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
        let earlier = Said::answered(Response::new(Body::empty()));
        assert!(Said::failed(Reason::NoReadyEndpoint).over(Some(earlier)).into_answer().is_ok());
        let earlier = Said::answered(Response::new(Body::empty()));
        let later = Said::failed(Reason::ResponseTimeout).over(Some(earlier)).into_answer();
        assert_eq!(later.err(), Some(Reason::ResponseTimeout));
    }
}
