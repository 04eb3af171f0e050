//! An attempt that got no response: what the caller knows of how far it came and who is to blame.

use eastway_core::Reason;

use crate::attribution::Outcome;

/// An attempt that got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What happened.
    pub reason: Reason,
    /// No byte of the request can have reached the application.
    pub nothing_sent: bool,
    /// No connection could be made.
    pub connect: bool,
    /// This caller itself saw that the endpoint is gone.
    pub down: bool,
    /// Its host answers nothing any more, and what took it may have taken others beside it.
    pub silent: bool,
    /// Nobody is to blame: a kept connection had been closed meanwhile, or the caller's own limits or body failed.
    pub blameless: bool,
}

impl Failed {
    /// A connection that could not be made.
    pub const fn connecting(reason: Reason) -> Self {
        Self { reason, nothing_sent: true, connect: true, down: false, silent: false, blameless: false }
    }

    /// The endpoint is gone, as this caller saw itself.
    pub const fn gone(reason: Reason) -> Self {
        Self { down: true, ..Self::connecting(reason) }
    }

    /// The endpoint's host answers nothing any more, although the request may have reached it.
    pub const fn silent() -> Self {
        Self { down: true, silent: true, ..Self::said(Reason::UpstreamReset) }
    }

    /// What a node on the way said.
    pub const fn said(reason: Reason) -> Self {
        let blameless = matches!(reason, Reason::StaleConnection);
        Self { connect: false, nothing_sent: reason.nothing_sent(), blameless, ..Self::connecting(reason) }
    }

    /// A limit of this sidecar's own keeps it from asking the endpoint; another one may have room.
    pub const fn full() -> Self {
        Self { connect: false, blameless: true, ..Self::connecting(Reason::RequestLimit) }
    }

    /// The same, because too many requests wait for a connection already.
    pub const fn waiting() -> Self {
        Self { reason: Reason::PendingLimit, ..Self::full() }
    }

    /// What the breakers are told.
    pub const fn outcome(&self) -> Outcome {
        if self.blameless {
            Outcome::cancelled()
        } else if self.down {
            Outcome::down(self.reason)
        } else {
            Outcome::failed(self.reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use eastway_core::Attribution;

    use super::*;
    use crate::attribution::{Class, Failure};

    #[test]
    fn breakers_learn_who_is_to_blame() {
        let failure = |attribution, down| Class::Failure(Failure { attribution, down });
        for (failed, expected) in [
            (Failed::full(), Class::Cancelled),
            (Failed::waiting(), Class::Cancelled),
            (Failed { blameless: true, ..Failed::silent() }, Class::Cancelled),
            (Failed::gone(Reason::ConnectFailed), failure(Attribution::UpstreamConnect, true)),
            (Failed::silent(), failure(Reason::UpstreamReset.attribution(), true)),
            (Failed::said(Reason::UpstreamReset), failure(Reason::UpstreamReset.attribution(), false)),
            (Failed::said(Reason::CallerGone), Class::Cancelled),
            (Failed::said(Reason::StaleConnection), Class::Cancelled),
        ] {
            assert_eq!(failed.outcome().class, expected, "{failed:?}");
        }
    }

    #[test]
    fn what_failed_tells_whether_something_was_sent() {
        assert!(Failed::connecting(Reason::TlsFailed).nothing_sent && Failed::full().nothing_sent);
        assert!(!Failed::silent().nothing_sent && !Failed::said(Reason::UpstreamReset).nothing_sent);
        assert!(Failed::silent().silent && Failed::silent().down && !Failed::gone(Reason::ConnectFailed).silent);
        assert!(!Failed::full().connect && Failed::connecting(Reason::TlsFailed).connect);
        assert!(Failed::full().blameless && !Failed::connecting(Reason::TlsFailed).blameless);
        assert!(Failed::said(Reason::PathDown).nothing_sent && !Failed::said(Reason::PathDown).connect);
    }
}
