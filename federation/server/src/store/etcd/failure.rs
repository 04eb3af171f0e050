//! What a failed call to etcd means for the one who called.

use tonic::Code;

use super::super::{StoreError, chain};

/// A page was asked for at a revision that the server has forgotten meanwhile.
pub(super) const COMPACTED: &str = "the revision was compacted";

/// An answer was larger than we accept.
pub(super) const TOO_LARGE: &str = "the answer is too large";

/// A failed call.
#[derive(Debug)]
pub(super) enum EtcdFailure {
    /// The server did not get the request, for sure: another member may be asked.
    NotSent(String),
    /// Nobody knows whether the server did what it was asked.
    Unsure(String),
    /// The server answered, and the answer is no. Another member would say the same.
    Final(StoreError),
    /// This member will not do, and nothing was sent; another may.
    Rejected(StoreError),
}

impl EtcdFailure {
    /// Understands an error of the client.
    pub(super) fn of(error: &etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Self::of_status(status),
            etcd_client::Error::InvalidArgs(_)
            | etcd_client::Error::InvalidUri(_)
            | etcd_client::Error::InvalidMetadataValue(_) => Self::Final(StoreError::Options(describe(error))),
            // A certificate that cannot be used; connections fail as a status.
            etcd_client::Error::TransportError(cause) => Self::Final(StoreError::Options(chain(cause))),
            etcd_client::Error::LeaseKeepAliveError(reason) if reason.contains("not found") => {
                Self::Final(StoreError::LeaseLost)
            }
            _ => Self::Unsure(describe(error)),
        }
    }

    /// The reason in words.
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::NotSent(why) | Self::Unsure(why) | Self::Final(StoreError::Refused(why)) => why,
            Self::Final(error) | Self::Rejected(error) => chain(&error),
        }
    }

    fn of_status(status: &tonic::Status) -> Self {
        let message = status.message();
        let has = |text: &str| message.contains(text);
        match status.code() {
            _ if is_stale_token(status) => Self::NotSent(describe_status(status)),
            Code::NotFound if has("lease not found") => Self::Final(StoreError::LeaseLost),
            Code::OutOfRange if has("compacted") => {
                Self::Final(StoreError::Unavailable { attempts: 1, reason: COMPACTED.to_owned() })
            }
            Code::OutOfRange if has("message length too large") => {
                Self::Final(StoreError::Refused(TOO_LARGE.to_owned()))
            }
            Code::ResourceExhausted if has("too many requests") => Self::NotSent(describe_status(status)),
            Code::ResourceExhausted
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::OutOfRange
            | Code::NotFound
            | Code::AlreadyExists => Self::Final(StoreError::Refused(describe_status(status))),
            _ if is_connect_error(status) => Self::NotSent(describe_status(status)),
            _ => Self::Unsure(describe_status(status)),
        }
    }
}

/// Whether the lease that was to be made exists already.
pub(super) fn is_existing_lease(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains("lease already exists"))
}

/// Whether the server no longer knows our token, as after its restart, or the users changed since we got it. A new
/// connection gets a new token.
fn is_stale_token(status: &tonic::Status) -> bool {
    status.code() == Code::Unauthenticated
        || status.message().contains("invalid auth token")
        || status.message().contains("auth store is old")
        || status.message().contains("revision in header is old")
}

/// Whether there was no connection to send anything on.
fn is_connect_error(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn describe(error: &etcd_client::Error) -> String {
    match error {
        etcd_client::Error::GRpcStatus(status) => describe_status(status),
        _ => error.to_string(),
    }
}

/// The status without tonic's decoration, with its causes.
fn describe_status(status: &tonic::Status) -> String {
    let text = match std::error::Error::source(status) {
        Some(cause) => format!("{}: {}", status.message(), chain(cause)),
        None => status.message().to_owned(),
    };
    if text.is_empty() { status.code().description().to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, message: &str) -> EtcdFailure {
        EtcdFailure::of(&etcd_client::Error::GRpcStatus(tonic::Status::new(code, message)))
    }

    #[test]
    fn only_what_was_surely_not_sent_is_called_so() {
        assert!(matches!(of(Code::Unavailable, "etcdserver: request timed out"), EtcdFailure::Unsure(_)));
        assert!(matches!(of(Code::Unknown, "h2 protocol error"), EtcdFailure::Unsure(_)));
        assert!(matches!(of(Code::DeadlineExceeded, ""), EtcdFailure::Unsure(_)));
        assert!(matches!(of(Code::Unauthenticated, "etcdserver: invalid auth token"), EtcdFailure::NotSent(_)));
        assert!(matches!(
            of(Code::InvalidArgument, "etcdserver: revision of auth store is old"),
            EtcdFailure::NotSent(_)
        ));
        let mut refused = tonic::Status::unavailable("tcp connect error");
        refused.set_source(std::sync::Arc::new(tonic::ConnectError("refused".into())));
        assert!(matches!(EtcdFailure::of(&etcd_client::Error::GRpcStatus(refused)), EtcdFailure::NotSent(_)));
    }

    #[test]
    fn answers_that_mean_no_are_final() {
        for (code, message) in [
            (Code::PermissionDenied, "etcdserver: permission denied"),
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        ] {
            assert!(matches!(of(code, message), EtcdFailure::Final(StoreError::Refused(_))), "{message}");
        }
        let lost = of(Code::NotFound, "etcdserver: requested lease not found");
        assert!(matches!(lost, EtcdFailure::Final(StoreError::LeaseLost)));
    }
}
