//! The way between two gateways, whatever carries it, and how streams are opened on it.
//!
//! A stream starts with one message that says what it shall be connected to, and one that answers; raw bytes follow both
//! ways. A stream is refused with a reason, and nothing was sent anywhere then.
//!
//! This module never decides where a stream goes: gateways do, between [`IncomingStream::opening`] and [`StreamOpening::accept`].

mod carrier;
mod codec;
mod limits;
mod malformed;
mod message;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use eastway_core::view::Transport;
use eastway_core::{Reason, SpiffeId};
use rustls_pki_types::CertificateDer;
use tokio::io::AsyncWriteExt;

pub use carrier::{Carrier, ConnectError, IncomingTunnel};
pub use codec::{FrameError, MAX_MESSAGE};
pub(crate) use limits::{TunnelLimits, TunnelPlace};
pub use malformed::Malformed;
pub use message::{StreamAccepted, StreamOpen};

use crate::error::StreamError;
use crate::io::Io;
use message::StreamReply;

/// What a tunnel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Federation, drain and pings; driven by the control runtime.
    Control,
    /// The streams of services; driven by a data worker.
    Data,
}

/// A connection between two gateways. Over QUIC both sides open streams; over TCP only the side that connected does, which is
/// all that gateways ask for: each makes tunnels of its own.
#[async_trait]
pub trait Tunnel: Send + Sync + fmt::Debug {
    /// Opens a stream to what `open` names. `early` are bytes that may follow at once, before the peer has answered; the
    /// caller keeps a handle of them if it wants to try elsewhere.
    async fn open(&self, open: &StreamOpen, early: Bytes) -> Result<(StreamAccepted, Io), OpenError>;

    /// The next stream that the peer opens; `None` once the tunnel is closed.
    async fn accept(&self) -> Option<IncomingStream>;

    /// Opens a stream without opening message, as control connections use it. The peer sees it with the first byte.
    async fn open_raw(&self) -> Result<Io, OpenError>;

    /// The next stream, to be used without opening message; `None` once the tunnel is closed.
    async fn accept_raw(&self) -> Option<Io>;

    /// Waits until the peer has accepted this side's identity too, which takes another round trip after the handshake.
    ///
    /// # Errors
    /// If the peer refuses, or the tunnel breaks first.
    async fn confirmed(&self) -> Result<(), ConnectError>;

    /// Waits for the end of the tunnel, and says why it ended.
    async fn closed(&self) -> Reason;

    /// Whether the tunnel has ended.
    fn is_closed(&self) -> bool;

    /// Whether new streams should go here: not if the tunnel has ended, nor while its peer is silent although something was
    /// sent that it must acknowledge. Streams that are open may outlive such a pause; new ones belong on a new tunnel.
    fn is_usable(&self) -> bool {
        !self.is_closed()
    }

    /// Ends the tunnel and all of its streams.
    fn close(&self, reason: Reason);

    /// What the tunnel did so far.
    fn stats(&self) -> TunnelStats;

    /// The gateway on the other side.
    fn peer(&self) -> &Arc<SpiffeId>;

    /// Its certificates, its own first: to be judged again when trust changes.
    fn peer_chain(&self) -> &[CertificateDer<'static>];

    /// Its network address.
    fn remote_address(&self) -> SocketAddr;

    /// What the tunnel is for.
    fn kind(&self) -> Kind;

    /// What carries it.
    fn transport(&self) -> Transport;
}

/// What a tunnel did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelStats {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Least round-trip time of the connection.
    pub min_rtt: Duration,
    /// Streams that are open now.
    pub streams: u64,
    /// Streams that this side opened.
    pub opened: u64,
    /// Streams that the peer opened.
    pub accepted: u64,
    /// Bytes sent on streams, opening messages included.
    pub bytes_sent: u64,
    /// Bytes received from streams, opening messages included.
    pub bytes_received: u64,
    /// UDP payload that the path carries; 0 over TCP, as are the counts of packets.
    pub mtu: u16,
    /// Packets sent.
    pub packets_sent: u64,
    /// Of them, lost.
    pub packets_lost: u64,
    /// How often large packets suddenly stopped to arrive.
    pub black_holes: u64,
}

/// Why a stream was not opened. Nothing that the caller wants to have said has reached an application then.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The peer refuses, and says why.
    #[error("the peer refuses the stream: {reason}")]
    Refused {
        /// Why.
        reason: Reason,
        /// For the log.
        message: String,
    },
    /// The tunnel is gone.
    #[error("the tunnel broke: {0}")]
    Lost(Reason),
    /// The peer did not answer in time.
    #[error("the peer did not answer in time")]
    Timeout,
    /// The opening message exceeds the limit.
    #[error("the opening message is too large")]
    TooLarge,
    /// The peer's answer cannot be read.
    #[error("the peer's answer cannot be read")]
    Malformed(#[source] FrameError),
}

impl OpenError {
    /// The reason to report further.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Refused { reason, .. } => *reason,
            Self::Lost(Reason::Draining) => Reason::Draining,
            Self::Lost(_) | Self::Malformed(_) => Reason::PathDown,
            Self::Timeout => Reason::StreamOpenTimeout,
            Self::TooLarge => Reason::MalformedOpen,
        }
    }
}

/// A stream that the peer has opened, of which nothing was read yet.
#[derive(Debug)]
pub struct IncomingStream {
    io: Io,
    peer: Arc<SpiffeId>,
    timeout: Duration,
}

impl IncomingStream {
    /// A stream `io` from the gateway `peer`, which has `timeout` for its opening message.
    pub const fn new(io: Io, peer: Arc<SpiffeId>, timeout: Duration) -> Self {
        Self { io, peer, timeout }
    }

    /// Reads the opening message. What cannot be served is refused here already: a message that is malformed, too large or
    /// late, or that speaks for a caller outside the peer's trust domain.
    ///
    /// # Errors
    /// Why the stream was refused or ended.
    pub async fn opening(mut self) -> Result<StreamOpening, OpeningError> {
        let read = tokio::time::timeout(self.timeout, codec::read(&mut self.io));
        let error = match read.await {
            Ok(Ok(message)) => match StreamOpen::decode(&message) {
                Ok(open) if open.source.trust_domain == self.peer.trust_domain => {
                    return Ok(StreamOpening { stream: self, open });
                }
                Ok(open) => OpeningError::ForeignSource(open.source),
                Err(error) => OpeningError::Malformed(error),
            },
            Ok(Err(error)) => OpeningError::Frame(error),
            Err(_) => OpeningError::Timeout,
        };
        self.refuse(error.reason(), &error.to_string()).await;
        Err(error)
    }

    async fn refuse(mut self, reason: Reason, message: &str) {
        let reply = StreamReply::Refused { reason, message: message.to_owned() }.encode().unwrap_or_default();
        let sent = tokio::time::timeout(self.timeout, async {
            self.io.write_all(&reply).await?;
            self.io.shutdown().await
        });
        if !matches!(sent.await, Ok(Ok(()))) {
            tracing::debug!(peer = %self.peer, %reason, "the peer was gone before it was told that its stream is refused");
        }
        // The refusal is on its way and not taken back; what the peer still sends is not wanted.
        self.io.abort(reason);
    }
}

/// Why an incoming stream came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// The message came too late.
    #[error("the opening message did not arrive in time")]
    Timeout,
    /// There was no whole message.
    #[error("the opening message cannot be read")]
    Frame(#[source] FrameError),
    /// The message breaks the contract.
    #[error("the opening message breaks the contract")]
    Malformed(#[source] Malformed),
    /// The peer speaks for a caller that is not of its trust domain.
    #[error("the peer may not speak for {0}")]
    ForeignSource(SpiffeId),
}

impl OpeningError {
    /// The reason that the peer was told.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Timeout => Reason::StreamOpenTimeout,
            Self::Frame(_) | Self::Malformed(_) => Reason::MalformedOpen,
            Self::ForeignSource(_) => Reason::IdentityRefused,
        }
    }
}

/// A stream whose opening message was read, and which waits for an answer. Dropped, it is reset.
#[derive(Debug)]
pub struct StreamOpening {
    stream: IncomingStream,
    open: StreamOpen,
}

impl StreamOpening {
    /// What the peer wants.
    pub const fn open(&self) -> &StreamOpen {
        &self.open
    }

    /// The gateway that opened the stream.
    pub const fn peer(&self) -> &Arc<SpiffeId> {
        &self.stream.peer
    }

    /// Says that the stream is connected, and gives it out.
    ///
    /// # Errors
    /// If the peer has gone, or the answer is too large.
    pub async fn accept(mut self, accepted: StreamAccepted) -> io::Result<Io> {
        let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "the answer is too large");
        let reply = StreamReply::Accepted(accepted).encode().ok_or_else(too_large)?;
        let sent = tokio::time::timeout(self.stream.timeout, self.stream.io.write_all(&reply));
        sent.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(self.stream.io)
    }

    /// Says why the stream is not connected.
    pub async fn refuse(self, reason: Reason, message: &str) {
        self.stream.refuse(reason, message).await;
    }
}

/// The opening of a stream from the side that wants it, over any kind of tunnel.
pub(crate) async fn open_over(mut io: Io, open: &StreamOpen, early: Bytes) -> Result<(StreamAccepted, Io), OpenError> {
    let message = open.encode().ok_or(OpenError::TooLarge)?;
    let first = if early.is_empty() { message } else { [message, early].concat().into() };
    // A peer that refuses stops reading; its answer says more than the failed write.
    let written = io.write_all(&first).await;
    let reply = match codec::read(&mut io).await {
        Ok(reply) => StreamReply::decode(&reply).map_err(|error| OpenError::Malformed(FrameError::Message(error)))?,
        Err(FrameError::Io(error)) => return Err(broken(&error)),
        Err(error) => return Err(OpenError::Malformed(error)),
    };
    match reply {
        StreamReply::Refused { reason, message } => Err(OpenError::Refused { reason, message }),
        StreamReply::Accepted(accepted) => match written {
            Ok(()) => Ok((accepted, io)),
            Err(error) => Err(broken(&error)),
        },
    }
}

/// A stream that ended instead of being answered.
fn broken(error: &io::Error) -> OpenError {
    match StreamError::of(error) {
        Some(StreamError::Reset(reason) | StreamError::Stopped(reason)) => {
            OpenError::Refused { reason: *reason, message: "the stream was reset instead of answered".to_owned() }
        }
        Some(lost) => OpenError::Lost(lost.reason()),
        None => OpenError::Lost(Reason::TunnelLost),
    }
}

#[cfg(test)]
mod tests;
