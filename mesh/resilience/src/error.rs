//! An attempt that got no usable answer: how far it came, and whose fault that is.

use eastway_core::Reason;

use crate::attribution::Outcome;

/// How far an attempt came. Later members came further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// No connection could be made: such a failure draws nothing from a retry budget.
    Connecting,
    /// There was a connection, but no byte of the request can have reached the application.
    Unsent,
    /// The application may have seen the request.
    Sent,
    /// The application answered, with a server error.
    Answered,
}

/// Whose fault it is that an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody's: a kept connection had been closed meanwhile, or the caller's own limits or body failed.
    Nobody,
    /// Theirs whom the reason names ([`Reason::attribution`]).
    Stated,
    /// The endpoint's, which is gone: this caller saw it itself.
    Down,
    /// The endpoint's host's, which answers nothing any more. What took it may have taken others beside it.
    Silent,
}

/// An attempt that got no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptError {
    /// What happened.
    pub reason: Reason,
    /// How far it came.
    pub progress: Progress,
    /// Whose fault it is.
    pub fault: Fault,
}

impl AttemptError {
    /// A connection could not be made.
    pub const fn connecting(reason: Reason) -> Self {
        Self { reason, progress: Progress::Connecting, fault: Fault::Stated }
    }

    /// The endpoint is gone, as this caller saw itself.
    pub const fn gone(reason: Reason) -> Self {
        Self { fault: Fault::Down, ..Self::connecting(reason) }
    }

    /// The endpoint's host answers nothing any more, although the request may have reached it.
    pub const fn silent() -> Self {
        Self { reason: Reason::UpstreamReset, progress: Progress::Sent, fault: Fault::Silent }
    }

    /// A node on the way said so.
    pub const fn said(reason: Reason) -> Self {
        let progress = if reason.nothing_sent() { Progress::Unsent } else { Progress::Sent };
        let fault = if matches!(reason, Reason::StaleConnection) { Fault::Nobody } else { Fault::Stated };
        Self { reason, progress, fault }
    }

    /// A limit of this node's own keeps it from asking the endpoint; another one may have room.
    pub const fn full(reason: Reason) -> Self {
        Self { reason, progress: Progress::Unsent, fault: Fault::Nobody }
    }

    /// The same error, which is nobody's fault.
    #[must_use]
    pub const fn blameless(self) -> Self {
        Self { fault: Fault::Nobody, ..self }
    }

    /// What breakers are told.
    pub const fn outcome(&self) -> Outcome {
        match self.fault {
            Fault::Nobody => Outcome::cancelled(),
            Fault::Stated => Outcome::failed(self.reason),
            Fault::Down | Fault::Silent => Outcome::down(self.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use eastway_core::Attribution;

    use super::*;
    use crate::attribution::{ChargedFailure, Class};

    #[test]
    fn breakers_learn_who_is_to_blame() {
        let failure = |attribution, down| Class::Failure(ChargedFailure { attribution, down });
        for (error, expected) in [
            (AttemptError::full(Reason::RequestLimit), Class::Cancelled),
            (AttemptError::silent().blameless(), Class::Cancelled),
            (AttemptError::gone(Reason::ConnectFailed), failure(Attribution::UpstreamConnect, true)),
            (AttemptError::silent(), failure(Reason::UpstreamReset.attribution(), true)),
            (AttemptError::said(Reason::UpstreamReset), failure(Reason::UpstreamReset.attribution(), false)),
            (AttemptError::said(Reason::CallerGone), Class::Cancelled),
            (AttemptError::said(Reason::StaleConnection), Class::Cancelled),
        ] {
            assert_eq!(error.outcome().class, expected, "{error:?}");
        }
    }

    #[test]
    fn an_error_tells_how_far_the_attempt_came() {
        for (error, progress) in [
            (AttemptError::connecting(Reason::TlsFailed), Progress::Connecting),
            (AttemptError::gone(Reason::ConnectFailed), Progress::Connecting),
            (AttemptError::full(Reason::PendingLimit), Progress::Unsent),
            (AttemptError::said(Reason::PathDown), Progress::Unsent),
            (AttemptError::said(Reason::UpstreamReset), Progress::Sent),
            (AttemptError::silent(), Progress::Sent),
        ] {
            assert_eq!(error.progress, progress, "{error:?}");
        }
        assert!(Progress::Connecting < Progress::Unsent && Progress::Unsent < Progress::Sent);
    }
}
