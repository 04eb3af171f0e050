//! What a connection tells its shell.

use bytes::Bytes;
use eastway_core::Reason;

use crate::error::LinkError;
use crate::head::{OpaqueBuf, RequestBuf, ResponseBuf, TrailersBuf};
use crate::stream::StreamId;

/// Something that happened. Poll all of them after each call that hands something in.
///
/// The last event of a stream is one of [`Refused`](Self::Refused), [`Reset`](Self::Reset) and [`Lost`](Self::Lost), or, in
/// order, the ends of both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer sent a request.
    Request {
        /// Its stream.
        stream: StreamId,
        /// Its head.
        head: RequestBuf,
        /// Whether it has no body: no [`Finished`](Self::Finished) follows then.
        end: bool,
    },
    /// The peer opened a stream of opaque bytes. It is accepted by [`Connection::send_response`](crate::Connection::send_response)
    /// with status 200, and refused by [`Connection::refuse`](crate::Connection::refuse).
    Opaque {
        /// The stream.
        stream: StreamId,
        /// Whom it is for.
        head: OpaqueBuf,
        /// Whether the peer sends no bytes on it.
        end: bool,
    },
    /// An interim response; the final one follows.
    Interim {
        /// The stream of the request.
        stream: StreamId,
        /// The head.
        head: ResponseBuf,
    },
    /// The response to a request, or the acceptance of an opaque stream.
    Response {
        /// The stream of the request.
        stream: StreamId,
        /// The head.
        head: ResponseBuf,
        /// Whether it has no body: no [`Finished`](Self::Finished) follows then.
        end: bool,
    },
    /// Data can be read. It is told once until [`Connection::read`](crate::Connection::read) is called.
    Readable(StreamId),
    /// The peer sends no more on this stream. What was not read yet can still be read.
    Finished {
        /// The stream.
        stream: StreamId,
        /// Fields behind the body.
        trailers: Option<TrailersBuf>,
    },
    /// A call that took less than it was given, or answered [`SendError::Busy`](crate::SendError::Busy), may be repeated.
    Writable(StreamId),
    /// A stream that could not be opened, for [`OpenError::StreamLimit`](crate::OpenError::StreamLimit) or
    /// [`OpenError::Busy`](crate::OpenError::Busy), may be opened now.
    Openable,
    /// The stream is closed, and the peer's application has surely seen nothing of it: it may be repeated elsewhere.
    Refused {
        /// The stream.
        stream: StreamId,
        /// Why, in the peer's words; [`Reason::NoReadyEndpoint`] stands for a reason of a newer version.
        reason: Reason,
    },
    /// What had come of a response and was not read, when the called side gave the stream up: [`Reset`](Self::Reset) follows. It
    /// counts as consumed.
    Rest {
        /// The stream.
        stream: StreamId,
        /// The data.
        data: Bytes,
    },
    /// The peer gave the stream up before it was complete. What was not read of a request is gone.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Why, in the peer's words; [`Reason::UpstreamReset`] stands for a reason of a newer version, and what this side finds
        /// wrong with the stream has a reason of its own.
        reason: Reason,
    },
    /// The called side has answered completely, and does not take the rest of the request, because it does not want it or because
    /// the connection ended. What was not read of the response can still be read.
    Stopped {
        /// The stream.
        stream: StreamId,
        /// Why, in the peer's words.
        reason: Reason,
    },
    /// The stream went down with the connection, and the peer may have seen it.
    Lost(StreamId),
    /// The peer drains: the connecting side opens no more streams then. Those that are open go on.
    Draining,
    /// The connection has ended. It is the last event; responses that were complete before can still be read. What is left to [`transmit`](crate::Connection::transmit) may hold a
    /// last word to the peer.
    Closed(LinkError),
}
