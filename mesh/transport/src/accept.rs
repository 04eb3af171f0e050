//! Accepting connections: the same loop, and the same handshake, for every TCP listener of a worker.
//!
//! A connection that has not shown an identity yet stands among the handshakes, where the newest takes the place of the
//! oldest; only afterwards it may take a place among the connections. So whoever connects and says nothing keeps nobody out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use eastway_core::{Chain, SpiffeId};
use eastway_identity::ServerTls;
use eastway_runtime::displacing::Displacing;
use eastway_runtime::{descriptors, throttled};
use rustls::server::ClientHello;
use tokio::net::TcpListener;

use crate::tls::TlsError;
use crate::{Io, tcp, tls};

/// The pause after the operating system refuses to accept, so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the host of a caller may acknowledge nothing of what it is sent.
const GONE: Duration = Duration::from_secs(30);

/// The bounds of a listener's handshakes.
#[derive(Clone, Debug)]
pub struct HandshakeLimits {
    /// Handshakes at once; a further one ends the oldest.
    pub places: u32,
    /// The same from one address (an IPv4 address, or a /64 of IPv6).
    pub per_address: u32,
    /// The longest time for one.
    pub timeout: Duration,
}

/// The handshakes of a listener.
#[derive(Debug)]
pub struct Handshakes {
    listener: &'static str,
    places: Arc<Displacing>,
    timeout: Duration,
}

/// Serves each accepted connection in a local task of its own, until `stop` completes.
///
/// `admit` is asked for each connection: what it answers lives as long as the connection, and on `None` the connection
/// is closed at once. Call it on a `LocalSet`.
pub async fn each<G, F>(
    listener: TcpListener,
    name: &'static str,
    stop: impl Future<Output = ()>,
    admit: impl Fn() -> Option<G>,
    serve: impl Fn(Io) -> F,
) where
    G: 'static,
    F: Future<Output = ()> + 'static,
{
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                throttled!(warn, listener = name, %error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if !descriptors::spare(&stream) {
            throttled!(warn, listener = name, "turned a connection away: hardly any descriptors are left");
            continue;
        }
        let Some(guard) = admit() else {
            throttled!(warn, listener = name, "turned a connection away: the limit of connections is reached");
            continue;
        };
        // A caller that reads slowly is bounded by whoever serves it.
        if let Err(error) = tcp::tune(&stream, &tcp::DialOptions { user_timeout: None, ..tcp::DialOptions::default() })
        {
            tracing::debug!(listener = name, %error, "a connection ended before it began");
            continue;
        }
        let connection = serve(Io::watched(stream, GONE));
        // Boxed: to begin a task, the runtime moves its future several times, and this one is large.
        tokio::task::spawn_local(Box::pin(async move {
            let _guard = guard;
            connection.await;
        }));
    }
}

impl Handshakes {
    /// None yet, on the listener named so in logs.
    pub fn new(listener: &'static str, limits: &HandshakeLimits) -> Arc<Self> {
        let places = Displacing::new(limits.places as usize, limits.per_address as usize);
        Arc::new(Self { listener, places, timeout: limits.timeout })
    }

    /// Mutual TLS on an accepted connection; a refusal is logged with its cause, because the other side learns little.
    pub async fn shake(&self, stream: Io, config: ServerTls) -> Option<(Io, Arc<SpiffeId>)> {
        self.bounded(stream.peer_addr(), tls::accept(stream, config)).await
    }

    /// The same, with the configuration that `choose` takes for the application protocols which the client offers.
    pub async fn shake_by(
        &self,
        stream: Io,
        choose: impl FnOnce(&ClientHello<'_>) -> ServerTls,
    ) -> Option<(Io, Arc<SpiffeId>)> {
        self.bounded(stream.peer_addr(), tls::accept_by(stream, choose)).await
    }

    async fn bounded(
        &self,
        peer: Option<SocketAddr>,
        handshake: impl Future<Output = Result<Io, TlsError>>,
    ) -> Option<(Io, Arc<SpiffeId>)> {
        let listener = self.listener;
        // One without an address is not from the network.
        let mut place = self.places.enter(peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip()));
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(self.timeout, handshake) => outcome,
            () = place.displaced() => {
                throttled!(info, listener, ?peer, "ended a handshake: a newer one needs its place");
                return None;
            }
        };
        match outcome {
            Ok(Ok(io)) => {
                let id = io.peer_id()?;
                Some((io, id))
            }
            Ok(Err(error)) => {
                let refusal = error.refusal().map(|refusal| refusal.as_str());
                throttled!(info, listener, ?peer, refusal, error = %Chain(&error), "refused a connection: no mutual TLS");
                None
            }
            Err(_) => {
                throttled!(info, listener, ?peer, "refused a connection: its TLS handshake took too long");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
