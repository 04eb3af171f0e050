//! A TCP connection as a tunnel.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use eastway_core::view::Transport;
use eastway_core::{Chain, Reason, SpiffeId};
use eastway_identity::Refusal;
use eastway_link::{OpenError as LinkOpenError, ResponseHead, Side};
use rustls_pki_types::CertificateDer;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::TcpOptions;
use super::ends::{Ends, Phase, Progress, close, end, reason_of};
use super::stream::TunnelStream;
use crate::io::Io;
use crate::link::{Driver, Opened, Shared, Stream};
use crate::tunnel::{
    self, ConnectError, IncomingStream, Kind, OpenError, StreamAccepted, StreamOpen, Tunnel, TunnelPlace, TunnelStats,
};

/// A connection between two gateways. It ends with the last that uses it: the tunnel itself, or one of its streams.
#[derive(Debug)]
pub struct TcpTunnel {
    ends: Arc<Ends>,
    /// Streams that the peer opened.
    incoming: Mutex<mpsc::UnboundedReceiver<Stream>>,
    kind: Kind,
    options: Arc<TcpOptions>,
    /// The count of received bytes after which the peer was silent while a stream waited for its answer.
    silent_since: AtomicU64,
}

/// A session with a gateway, of which a tunnel is made.
pub(super) struct Session {
    pub(super) io: Io,
    pub(super) peer: Arc<SpiffeId>,
    pub(super) remote: SocketAddr,
    pub(super) kind: Kind,
    pub(super) side: Side,
    pub(super) place: Option<TunnelPlace>,
}

impl TcpTunnel {
    /// Of a session that was established; the second answer drives it to its end.
    pub(super) fn new(
        session: Session,
        options: &Arc<TcpOptions>,
    ) -> (Arc<Self>, Progress, Shared, impl Future<Output = ()> + Send + use<>) {
        let Session { io, peer, remote, kind, side, place } = session;
        let chain = match &io {
            Io::Tls(tls) => tls.peer_chain().map(<[_]>::to_vec).unwrap_or_default(),
            _ => Vec::new(),
        };
        let link = Shared::new(side, &options.link());
        let progress = Arc::new(watch::Sender::new(Phase::Connecting));
        let (arrived, incoming) = mpsc::unbounded_channel();
        let driving = drive(Driver::new(io, link.clone()), Arc::clone(&progress), arrived, Arc::clone(options));
        let ends = Arc::new(Ends {
            link: link.clone(),
            progress: Arc::clone(&progress),
            peer,
            chain,
            remote,
            _place: place,
            streams: 0.into(),
            opened: 0.into(),
            accepted: 0.into(),
            sent: 0.into(),
            received: 0.into(),
            stalled: 0.into(),
            stall_limit: options.stall_limit(),
        });
        let tunnel = Self {
            ends,
            incoming: Mutex::new(incoming),
            kind,
            options: Arc::clone(options),
            silent_since: AtomicU64::new(NEVER),
        };
        (Arc::new(tunnel), progress, link, driving)
    }

    /// Bytes received so far.
    fn received(&self) -> u64 {
        self.ends.link.lock().connection.stats().bytes_received
    }

    fn stream(&self, stream: Stream, opener: bool) -> Io {
        Io::chunked(TunnelStream::new(stream, &self.ends, opener))
    }

    async fn open_stream(&self) -> Result<Io, OpenError> {
        let opened = poll_fn(|cx| self.ends.link.lock().poll_open_opaque(cx)).await;
        let id = opened.map_err(|error| match error {
            LinkOpenError::Closed => OpenError::Lost(self.ends.reason()),
            LinkOpenError::Draining => OpenError::Lost(Reason::Draining),
            _ => OpenError::Lost(Reason::TunnelLost),
        })?;
        Ok(self.stream(self.ends.link.stream(id, false), true))
    }
}

#[async_trait]
impl Tunnel for TcpTunnel {
    async fn open(&self, open: &StreamOpen, early: Bytes) -> Result<(StreamAccepted, Io), OpenError> {
        let received = self.received();
        let opening = async { tunnel::open_over(self.open_stream().await?, open, early).await };
        tokio::time::timeout(self.options.open_timeout, opening).await.map_err(|_| {
            if self.received() == received {
                self.silent_since.store(received, Ordering::Relaxed);
            }
            OpenError::Timeout
        })?
    }

    async fn accept(&self) -> Option<IncomingStream> {
        let stream = self.accept_raw().await?;
        Some(IncomingStream::new(stream, Arc::clone(&self.ends.peer), self.options.opening_timeout))
    }

    async fn open_raw(&self) -> Result<Io, OpenError> {
        let opening = tokio::time::timeout(self.options.open_timeout, self.open_stream());
        opening.await.map_err(|_| OpenError::Timeout)?
    }

    async fn accept_raw(&self) -> Option<Io> {
        let stream = self.incoming.lock().await.recv().await?;
        (!self.is_closed()).then(|| self.stream(stream, false))
    }

    async fn confirmed(&self) -> Result<(), ConnectError> {
        let mut progress = self.ends.progress.subscribe();
        let phase = progress.wait_for(|phase| *phase != Phase::Connecting).await.map(|phase| *phase);
        match phase {
            Ok(Phase::Ended(reason)) => Err(ConnectError::ByPeer { reason, message: reason.meaning().to_owned() }),
            // The sender is this tunnel's own.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn closed(&self) -> Reason {
        let mut progress = self.ends.progress.subscribe();
        let ended = progress.wait_for(|phase| matches!(phase, Phase::Ended(_))).await.map(|phase| *phase);
        match ended {
            Ok(Phase::Ended(reason)) => reason,
            _ => Reason::TunnelLost,
        }
    }

    fn is_closed(&self) -> bool {
        matches!(*self.ends.progress.borrow(), Phase::Ended(_)) || self.ends.link.lock().connection.ended().is_some()
    }

    fn is_usable(&self) -> bool {
        let silent_since = self.silent_since.load(Ordering::Relaxed);
        !self.is_closed() && (silent_since == NEVER || silent_since != self.received())
    }

    fn close(&self, reason: Reason) {
        close(&self.ends.link, &self.ends.progress, reason);
    }

    fn stats(&self) -> TunnelStats {
        let link = self.ends.link.lock().connection.stats();
        let Ends { streams, opened, accepted, sent, received, .. } = &*self.ends;
        TunnelStats {
            rtt: link.rtt.unwrap_or_default(),
            min_rtt: link.min_rtt.unwrap_or_default(),
            streams: streams.load(Ordering::Relaxed),
            opened: opened.load(Ordering::Relaxed),
            accepted: accepted.load(Ordering::Relaxed),
            bytes_sent: sent.load(Ordering::Relaxed),
            bytes_received: received.load(Ordering::Relaxed),
            ..TunnelStats::default()
        }
    }

    fn peer(&self) -> &Arc<SpiffeId> {
        &self.ends.peer
    }

    fn peer_chain(&self) -> &[CertificateDer<'static>] {
        &self.ends.chain
    }

    fn remote_address(&self) -> SocketAddr {
        self.ends.remote
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn transport(&self) -> Transport {
        Transport::Tcp
    }
}

/// Reads and writes the connection until it has ended and the peer was told.
async fn drive(
    mut driver: Driver,
    progress: Progress,
    arrived: mpsc::UnboundedSender<Stream>,
    options: Arc<TcpOptions>,
) {
    let link = driver.shared.clone();
    let mut pings = interval(options.keepalive);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = poll_fn(|cx| {
        if !matches!(*progress.borrow(), Phase::Ended(_))
            && let Poll::Ready(revoked) = driver.poll_revoked(cx)
        {
            tracing::info!(error = %Chain(&revoked), "a tunnel connection ends");
            close(&link, &progress, Reason::IdentityRefused);
        }
        while pings.poll_tick(cx).is_ready() {
            let mut link = link.lock();
            let now = link.now();
            link.connection.ping(now);
        }
        let ended = driver.poll(cx, |opened| take_in(&link, opened, &arrived));
        if *progress.borrow() == Phase::Connecting && link.lock().connection.is_greeted() {
            progress.send_replace(Phase::Confirmed);
        }
        ended
    });
    let error = ended.await;
    let refused = driver.cause().and_then(|cause| Refusal::of(cause));
    if !error.is_orderly() {
        tracing::debug!(error = %Chain(&error), ?refused, "a tunnel over TCP failed");
    }
    end(&progress, if refused.is_some() { Reason::IdentityRefused } else { reason_of(&error) });
    drop(arrived);
    driver.finish().await;
}

/// Takes a stream in that the peer opened.
fn take_in(link: &Shared, opened: Opened, arrived: &mpsc::UnboundedSender<Stream>) {
    let id = match opened {
        Opened::Opaque { stream, .. } => stream,
        Opened::Request { stream, .. } => {
            link.lock().connection.refuse(stream, Reason::MalformedOpen);
            return;
        }
    };
    let stream = link.stream(id, false);
    let accepted = ResponseHead { status: 200, length: None, upgrade: None, fields: [("", ""); 0] };
    // What cannot be answered now, because the peer reads nothing, is given up.
    if stream.lock().connection.send_response(id, accepted, false).is_err() {
        stream.reset(Reason::Overloaded);
        return;
    }
    // As many may wait as a peer may have open. Nobody takes them once the tunnel is gone, and with it this connection.
    drop(arrived.send(stream));
}

/// No count of bytes is that high.
const NEVER: u64 = u64::MAX;
