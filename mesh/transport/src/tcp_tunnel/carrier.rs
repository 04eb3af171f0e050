//! What makes tunnels over TCP, and takes those that arrive.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eastway_core::Reason;
use eastway_core::view::Transport;
use eastway_identity::{ClientTls, Refusal};
use eastway_link::Side;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};

use super::ends::{Progress, close};
use super::tunnel::Session;
use super::{TcpOptions, TcpTunnel, alpn_of, kind_of};
use crate::io::{Detached, Io};
use crate::link::Shared;
use crate::tcp::{self, DialOptions};
use crate::tls::{self, TlsError};
use crate::tunnel::{Carrier, ConnectError, IncomingTunnel, Kind, Tunnel, TunnelLimits};

/// Dials tunnels over TCP, and takes those that the listener hands over. Everything that it makes is driven by the runtime that calls
/// [`Carrier::connect`] or [`IncomingTunnel::establish`].
#[derive(Debug)]
pub struct TcpCarrier {
    options: Arc<TcpOptions>,
    limits: Arc<TunnelLimits>,
    live: Arc<Live>,
    handing: mpsc::Sender<Detached>,
    arrivals: AsyncMutex<mpsc::Receiver<Detached>>,
    closed: watch::Sender<Option<Reason>>,
}

/// Where a listener leaves the tunnels that arrive.
#[derive(Clone, Debug)]
pub struct TcpArrivals(mpsc::Sender<Detached>);

impl TcpCarrier {
    /// A carrier without tunnels.
    pub fn new(options: &TcpOptions) -> Self {
        let (handing, arrivals) = mpsc::channel(options.max_arrivals.max(1));
        Self {
            options: Arc::new(options.clone()),
            limits: Arc::new(TunnelLimits::new(options.max_connections, options.max_domain_connections)),
            live: Arc::default(),
            handing,
            arrivals: AsyncMutex::new(arrivals),
            closed: watch::Sender::new(None),
        }
    }

    /// For the listener.
    pub fn arrivals(&self) -> TcpArrivals {
        TcpArrivals(self.handing.clone())
    }
}

impl TcpArrivals {
    /// Leaves a session whose application protocol is one of [`super::ALPN`], to be driven by another runtime.
    ///
    /// # Errors
    /// If nobody takes it, or too many wait already: it is closed then.
    pub fn hand_over(&self, io: Io) -> io::Result<()> {
        self.0.try_send(io.detach()?).map_err(|error| io::Error::other(error.to_string()))
    }
}

#[async_trait]
impl Carrier for TcpCarrier {
    async fn connect(
        &self,
        address: SocketAddr,
        client: ClientTls,
        kind: Kind,
    ) -> Result<Arc<dyn Tunnel>, ConnectError> {
        let connecting = tokio::time::timeout(self.options.handshake_timeout, self.session(address, &client, kind));
        let io = connecting.await.map_err(|_| ConnectError::Timeout)??;
        Ok(self.live.start(session(io, kind, Side::Connecting)?, &self.options))
    }

    async fn accept(&self) -> Option<Box<dyn IncomingTunnel>> {
        let mut closed = self.closed.subscribe();
        let arrived = async { self.arrivals.lock().await.recv().await };
        tokio::select! {
            biased;
            _ = closed.wait_for(Option::is_some) => None,
            arrived = arrived => {
                let (options, limits, live) = (&self.options, &self.limits, &self.live);
                let (options, limits, live) = (Arc::clone(options), Arc::clone(limits), Arc::clone(live));
                Some(Box::new(Arrived { session: arrived?, options, limits, live }))
            }
        }
    }

    fn tunnels(&self) -> usize {
        self.live.tunnels.lock().len()
    }

    fn close(&self, reason: Reason) {
        self.closed.send_replace(Some(reason));
        let live: Vec<_> = self.live.tunnels.lock().values().cloned().collect();
        live.iter().for_each(|(link, progress)| close(link, progress, reason));
    }

    async fn shutdown(&self, reason: Reason, limit: Duration) {
        self.close(reason);
        let mut count = self.live.count.subscribe();
        if tokio::time::timeout(limit, count.wait_for(|count| *count == 0)).await.is_err() {
            tracing::debug!(tunnels = self.tunnels(), "not every peer was told that this carrier closes");
        }
    }

    fn transport(&self) -> Transport {
        Transport::Tcp
    }
}

impl TcpCarrier {
    async fn session(&self, address: SocketAddr, client: &ClientTls, kind: Kind) -> Result<Io, ConnectError> {
        let options = DialOptions {
            connect_timeout: self.options.handshake_timeout,
            user_timeout: None,
            keepalive: None,
            uses_reserve: kind == Kind::Control,
        };
        let dialled = tcp::dial(address, &options).await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => ConnectError::Timeout,
            _ => ConnectError::Lost(error.into()),
        })?;
        let io = Io::watched(dialled, self.options.idle_timeout);
        tls::connect(io, client.speaking(&[alpn_of(kind)])).await.map_err(refused)
    }
}

/// A session as that of a gateway.
fn session(io: Io, kind: Kind, side: Side) -> Result<Session, ConnectError> {
    let missing = |what: &str| ConnectError::Invalid(format!("the session has no {what}"));
    let peer = io.peer_id().ok_or_else(|| missing("identity"))?;
    let remote = io.peer_addr().ok_or_else(|| missing("address"))?;
    Ok(Session { io, peer, remote, kind, side, place: None })
}

fn refused(error: TlsError) -> ConnectError {
    match error.refusal() {
        Some(Refusal::ByPeer) => ConnectError::ByPeer {
            reason: Reason::IdentityRefused,
            message: Reason::IdentityRefused.meaning().to_owned(),
        },
        Some(refusal) => ConnectError::Identity(refusal),
        None => ConnectError::Lost(error.into()),
    }
}

/// A tunnel that was handed over.
#[derive(Debug)]
struct Arrived {
    session: Detached,
    options: Arc<TcpOptions>,
    limits: Arc<TunnelLimits>,
    live: Arc<Live>,
}

#[async_trait]
impl IncomingTunnel for Arrived {
    fn remote_address(&self) -> SocketAddr {
        self.session.remote()
    }

    async fn establish(self: Box<Self>) -> Result<Arc<dyn Tunnel>, ConnectError> {
        let io = self.session.attach().map_err(|error| ConnectError::Lost(error.into()))?;
        let kind = io.alpn().and_then(kind_of).ok_or_else(|| {
            ConnectError::Invalid("the session's application protocol is not that of a tunnel".to_owned())
        })?;
        let session = session(io, kind, Side::Accepting)?;
        match self.limits.enter(&session.peer.trust_domain) {
            Some(place) => Ok(self.live.start(Session { place: Some(place), ..session }, &self.options)),
            None => {
                // It is told why, which takes a moment, and ends with the handle.
                self.live.start(session, &self.options).close(Reason::Overloaded);
                Err(ConnectError::Overloaded)
            }
        }
    }
}

/// The tunnels of a carrier that have not ended.
#[derive(Debug, Default)]
struct Live {
    tunnels: Mutex<HashMap<u64, (Shared, Progress)>>,
    next: std::sync::atomic::AtomicU64,
    count: watch::Sender<usize>,
}

impl Live {
    /// Makes a tunnel of a session, and has the calling runtime drive it.
    fn start(self: &Arc<Self>, session: Session, options: &Arc<TcpOptions>) -> Arc<dyn Tunnel> {
        let (tunnel, progress, link, driving) = TcpTunnel::new(session, options);
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.tunnels.lock().insert(number, (link, progress));
        self.count.send_modify(|count| *count += 1);
        let listed = Listed { live: Arc::clone(self), number };
        tokio::spawn(async move {
            let _listed = listed;
            driving.await;
        });
        tunnel
    }
}

/// Takes a tunnel off the list when it has ended, or its runtime has.
struct Listed {
    live: Arc<Live>,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.live.tunnels.lock().remove(&self.number);
        self.live.count.send_modify(|count| *count -= 1);
    }
}
