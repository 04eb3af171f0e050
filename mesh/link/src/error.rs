//! What goes wrong: with a connection as a whole, or with one call on it.

use std::time::Duration;

use crate::head::HeadError;

/// Why a connection has ended.
///
/// Those that this side finds are told to the peer in a GOODBYE, with [`LinkError::code`] and the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// This side has closed it in order.
    #[error("the connection was closed in order")]
    Closed,
    /// The peer sent a frame that has no such form.
    #[error("the peer sent a malformed frame")]
    Malformed(#[from] Malformed),
    /// The peer sent something else before its HELLO, or a second one.
    #[error("the peer did not begin with one HELLO")]
    Hello,
    /// The peer speaks a version that this side does not.
    #[error("the peer speaks version {0} of the protocol")]
    Version(u16),
    /// The peer states a limit that no implementation may state.
    #[error("the peer states {value} as limit {item:#04x}")]
    Limit {
        /// The number of the limit.
        item: u64,
        /// What the peer states.
        value: u64,
    },
    /// The peer sent more data than it had credit for.
    #[error("the peer sent more than it had credit for")]
    Credit,
    /// The peer granted more credit than there can be.
    #[error("the peer granted more credit than there can be")]
    CreditOverflow,
    /// The peer sent a frame on a stream, or from a side, that is not allowed to have it now.
    #[error("the peer sent a frame that stream {0} cannot have now")]
    State(u32),
    /// The peer opened a stream whose number is not the next.
    #[error("the peer opened stream {found}, and the next is {expected}")]
    StreamOrder {
        /// The number that was to come.
        expected: u32,
        /// The number that came.
        found: u32,
    },
    /// The peer exceeds what it may do at this rate.
    #[error("the peer sends too many {0}")]
    Flood(Flood),
    /// The peer does not read what it causes.
    #[error("the peer does not read the answers to its frames")]
    Backlog,
    /// A ping was not answered, and nothing else came.
    #[error("the peer was silent for {0:?} after a ping")]
    Unresponsive(Duration),
    /// The peer said goodbye.
    #[error("the peer closed the connection with code {code}: {text}")]
    Goodbye {
        /// Its [`LinkError::code`].
        code: u32,
        /// Its explanation.
        text: String,
    },
    /// The transport below has ended.
    #[error("the transport was lost")]
    Lost,
}

impl LinkError {
    /// The number in a GOODBYE. Released numbers keep their meaning. What is not this side's own finding has the number of
    /// [`LinkError::Closed`].
    pub const fn code(&self) -> u32 {
        match self {
            Self::Closed | Self::Goodbye { .. } | Self::Lost => 0,
            Self::Malformed(_) => 1,
            Self::Hello => 2,
            Self::Version(_) => 3,
            Self::Limit { .. } => 4,
            Self::Credit => 5,
            Self::CreditOverflow => 6,
            Self::State(_) => 7,
            Self::StreamOrder { .. } => 8,
            Self::Flood(_) => 9,
            Self::Backlog => 10,
            Self::Unresponsive(_) => 11,
        }
    }

    /// Whether the connection ended in order: closed by this side, or by the peer without complaint.
    pub const fn is_orderly(&self) -> bool {
        matches!(self, Self::Closed | Self::Goodbye { code: 0, .. })
    }
}

/// How a frame is wrong by itself, whatever came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A kind that is unknown, and that may not be skipped.
    #[error("kind {0:#04x} is unknown")]
    Kind(u8),
    /// Flags that its kind does not have.
    #[error("its kind has no flags {0:#04x}")]
    Flags(u8),
    /// A stream id where none may be, or none where one must be.
    #[error("its kind cannot have stream id {0}")]
    StreamId(u32),
    /// A length that its kind cannot have, or that exceeds the limit of heads.
    #[error("its kind cannot have {0} bytes")]
    Length(u16),
    /// A grant of no credit.
    #[error("it grants no credit")]
    NoCredit,
    /// A HELLO whose items cannot be read.
    #[error("the items of its HELLO cannot be read")]
    Items,
    /// A PONG that answers no ping.
    #[error("it answers no ping")]
    Pong,
}

/// What a peer sends too much of. Each has a budget in [`FloodLimits`](crate::FloodLimits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flood {
    /// Streams that it opened and that came to nothing: reset by itself, refused, or malformed.
    #[error("streams that come to nothing")]
    Resets,
    /// Pings.
    #[error("pings")]
    Pings,
    /// Grants of credit.
    #[error("grants of little credit")]
    Windows,
    /// Frames without effect: for streams that are closed, or of kinds that are skipped.
    #[error("frames without effect")]
    Strays,
    /// Interim heads of one response.
    #[error("interim responses")]
    Interim,
}

/// Why no stream was opened. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// As many streams are open as the peer allows. An [`Event::Openable`](crate::Event::Openable) says when to try again.
    #[error("as many streams are open as the peer allows")]
    StreamLimit,
    /// Too much is waiting to be written. An [`Event::Openable`](crate::Event::Openable) says when to try again.
    #[error("too much is waiting to be written")]
    Busy,
    /// One of the sides drains: use another connection.
    #[error("the connection drains")]
    Draining,
    /// The numbers of streams are used up: use another connection, and drain this one.
    #[error("the numbers of streams are used up")]
    Exhausted,
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
    /// This is the side that streams are opened to.
    #[error("only the connecting side opens streams")]
    Side,
    /// The head cannot be sent.
    #[error("the head cannot be sent")]
    Head(#[from] HeadError),
}

/// Why something could not be sent on a stream. The stream is as it was before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The stream is closed, or never was.
    #[error("the stream is closed")]
    Gone,
    /// Its turn is over or has not come: data before the head, a second head, anything after the end.
    #[error("the stream cannot send this now")]
    State,
    /// The body is longer or shorter than its head states.
    #[error("the body does not have the length that its head states")]
    Length,
    /// Too much is waiting to be written. An [`Event::Writable`](crate::Event::Writable) says when to try again.
    #[error("too much is waiting to be written")]
    Busy,
    /// More interim heads than one response may have.
    #[error("a response has at most {} interim heads", crate::MAX_INTERIM)]
    Interim,
    /// The head cannot be sent.
    #[error("the head cannot be sent")]
    Head(#[from] HeadError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart() {
        let found = [
            LinkError::Closed,
            Malformed::NoCredit.into(),
            LinkError::Hello,
            LinkError::Version(2),
            LinkError::Limit { item: 1, value: 0 },
            LinkError::Credit,
            LinkError::CreditOverflow,
            LinkError::State(1),
            LinkError::StreamOrder { expected: 1, found: 3 },
            LinkError::Flood(Flood::Pings),
            LinkError::Backlog,
            LinkError::Unresponsive(Duration::ZERO),
        ];
        let codes: Vec<u32> = found.iter().map(LinkError::code).collect();
        assert_eq!(codes, (0..12).collect::<Vec<u32>>());
        assert!(LinkError::Closed.is_orderly() && !LinkError::Lost.is_orderly());
        assert!(LinkError::Goodbye { code: 0, text: String::new() }.is_orderly());
    }
}
