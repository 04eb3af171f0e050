//! What all that have to do with a connection share: its tunnel, its streams, its driver and its carrier.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use eastway_core::{Reason, SpiffeId};
use eastway_link::LinkError;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use crate::link::Shared;
use crate::tunnel::TunnelPlace;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The peer has said nothing yet.
    Connecting,
    /// The peer has accepted this side's identity.
    Confirmed,
    /// It has ended.
    Ended(Reason),
}

/// How far a connection has come, as all that have to do with it see it.
pub(super) type Progress = Arc<watch::Sender<Phase>>;

/// What the streams of a connection share.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) link: Shared,
    pub(super) progress: Progress,
    pub(super) peer: Arc<SpiffeId>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) remote: SocketAddr,
    pub(super) _place: Option<TunnelPlace>,
    /// Streams that are open now.
    pub(super) streams: AtomicU64,
    /// Streams that this side ever opened.
    pub(super) opened: AtomicU64,
    /// Streams that the peer ever opened.
    pub(super) accepted: AtomicU64,
    /// Bytes of streams, sent.
    pub(super) sent: AtomicU64,
    /// Bytes of streams, received.
    pub(super) received: AtomicU64,
    /// Streams whose bytes wait for a reader that takes nothing.
    pub(super) stalled: AtomicU64,
    /// So many stalled streams may hold half of the connection's window.
    pub(super) stall_limit: u64,
}

impl Ends {
    /// Why the connection ended.
    pub(super) fn reason(&self) -> Reason {
        match (*self.progress.borrow(), self.link.lock().connection.ended()) {
            (Phase::Ended(reason), _) => reason,
            (_, Some(error)) => reason_of(error),
            _ => Reason::TunnelLost,
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        close(&self.link, &self.progress, Reason::Draining);
    }
}

/// Ends a connection, and tells the peer why.
pub(super) fn close(link: &Shared, progress: &Progress, reason: Reason) {
    end(progress, reason);
    let mut link = link.lock();
    link.connection.close_saying(reason.code());
    link.wake_driver();
}

/// The first reason for an end stays.
pub(super) fn end(progress: &Progress, reason: Reason) {
    progress.send_if_modified(|phase| {
        let first = !matches!(phase, Phase::Ended(_));
        if first {
            *phase = Phase::Ended(reason);
        }
        first
    });
}

/// What the end of a connection means for its streams.
pub(super) fn reason_of(error: &LinkError) -> Reason {
    match error {
        LinkError::Goodbye { code: 0, text } => Reason::from_code(text).unwrap_or(Reason::TunnelLost),
        _ => Reason::TunnelLost,
    }
}
