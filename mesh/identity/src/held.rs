//! Connections that outlive the handshake: whom they admitted is verified again when a certificate expires or a bundle
//! changes, and a connection whose peer would be refused now is told to end.
//!
//! Every TLS session and every QUIC connection between nodes is held here by its transport, so that no owner of connections
//! has to think of it. The thread that watches the identity's files reviews them ([`Identity::review`]).

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;

use crate::{Expected, Identity, IdentityError, calendar};

/// A rustls configuration, and what is needed to verify later whom it admitted.
pub struct Tls<C> {
    config: Arc<C>,
    identity: Arc<Identity>,
    /// None for those who are not verified by the handshake, nor later.
    expected: Option<Expected>,
}

/// For the side that calls.
pub type ClientTls = Tls<rustls::ClientConfig>;
/// For the side that answers.
pub type ServerTls = Tls<rustls::ServerConfig>;

impl<C> Tls<C> {
    pub(crate) const fn new(config: Arc<C>, identity: Arc<Identity>, expected: Expected) -> Self {
        Self { config, identity, expected: Some(expected) }
    }

    /// For connections whose other side is verified by whoever makes them, and that nobody reviews.
    pub(crate) const fn unverified(config: Arc<C>, identity: Arc<Identity>) -> Self {
        Self { config, identity, expected: None }
    }

    /// What rustls needs.
    pub const fn config(&self) -> &Arc<C> {
        &self.config
    }

    /// To be asked for before the handshake, and handed to [`Self::hold`] after it.
    pub fn generation(&self) -> u64 {
        self.identity.generation()
    }

    /// Keeps an eye on a connection whose handshake began in `generation` and verified `chain`.
    pub fn hold(&self, chain: &[CertificateDer<'_>], generation: u64) -> Held {
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let connection = Connection {
            not_after: expiry(&chain),
            chain,
            expected: self.expected.clone(),
            unverified: (generation != self.identity.generation()).into(),
            ended: Mutex::default(),
            over: AtomicBool::new(false),
            waker: Mutex::default(),
        };
        self.identity.held.add(&self.identity, connection)
    }
}

impl ClientTls {
    /// The same for other application protocols (ALPN).
    #[must_use]
    pub fn speaking(&self, alpn: &[&[u8]]) -> Self {
        let mut config = rustls::ClientConfig::clone(&self.config);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Self { config: Arc::new(config), ..self.clone() }
    }
}

impl<C> Clone for Tls<C> {
    fn clone(&self) -> Self {
        Self { config: Arc::clone(&self.config), identity: Arc::clone(&self.identity), expected: self.expected.clone() }
    }
}

impl<C> Deref for Tls<C> {
    type Target = Arc<C>;

    fn deref(&self) -> &Arc<C> {
        &self.config
    }
}

impl<C> fmt::Debug for Tls<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("expected", &self.expected).finish_non_exhaustive()
    }
}

/// Why a connection ended that was in order when it began.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the other side's identity is accepted no longer")]
pub struct Revoked(#[source] Arc<IdentityError>);

/// A connection under review, for as long as its transport keeps this.
#[derive(Debug)]
pub struct Held {
    identity: Arc<Identity>,
    id: u64,
    connection: Arc<Connection>,
}

impl Held {
    /// Ready once the connection must end; until then the task is woken when that comes.
    pub fn poll_revoked(&self, cx: &Context<'_>) -> Poll<Revoked> {
        if let Some(revoked) = self.revoked() {
            return Poll::Ready(revoked);
        }
        let mut waker = self.connection.waker.lock();
        match &mut *waker {
            Some(kept) => kept.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        drop(waker);
        // It may have come before the waker was there.
        self.revoked().map_or(Poll::Pending, Poll::Ready)
    }

    /// Why the connection must end, if it must.
    pub fn revoked(&self) -> Option<Revoked> {
        if self.connection.over.load(Ordering::Acquire) { self.connection.ended.lock().clone() } else { None }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.identity.held.connections.lock().remove(&self.id);
    }
}

#[derive(Debug)]
struct Connection {
    chain: Vec<CertificateDer<'static>>,
    expected: Option<Expected>,
    /// When the first certificate of the chain expires.
    not_after: SystemTime,
    /// The bundles changed while the handshake was under way.
    unverified: AtomicBool,
    over: AtomicBool,
    ended: Mutex<Option<Revoked>>,
    waker: Mutex<Option<Waker>>,
}

impl Connection {
    /// Whether it has to be verified again at `now`, after the identity or a bundle `changed` or not.
    fn is_due(&self, now: SystemTime, changed: bool) -> bool {
        let unverified = self.unverified.swap(false, Ordering::Relaxed);
        !self.over.load(Ordering::Relaxed) && (changed || unverified || self.not_after < now)
    }

    fn end(&self, error: IdentityError) {
        *self.ended.lock() = Some(Revoked(Arc::new(error)));
        self.over.store(true, Ordering::Release);
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }
}

/// All held connections of an identity.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    /// The generation of the last review.
    reviewed: AtomicU64,
}

impl Registry {
    fn add(&self, identity: &Arc<Identity>, connection: Connection) -> Held {
        let connection = Arc::new(connection);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.connections.lock().insert(id, Arc::clone(&connection));
        Held { identity: Arc::clone(identity), id, connection }
    }
}

impl Identity {
    /// Verifies held connections again: those whose certificates have expired, and all if the identity or a bundle changed
    /// since the last review. Answers how many must end. Called twice a second by the thread that watches the files.
    pub fn review(&self) -> usize {
        let generation = self.generation();
        let changed = self.held.reviewed.swap(generation, Ordering::AcqRel) != generation;
        let now = calendar::now();
        let due: Vec<Arc<Connection>> = {
            let connections = self.held.connections.lock();
            connections.values().filter(|connection| connection.is_due(now, changed)).cloned().collect()
        };
        let mut ended = 0;
        for connection in due {
            let Some(expected) = &connection.expected else { continue };
            if let Err(error) = self.verify(&connection.chain, expected) {
                tracing::debug!(%error, "a connection must end: its identity is accepted no longer");
                if ended == 0 {
                    tracing::info!(first = %error, "connections end whose identities are accepted no longer");
                }
                connection.end(error);
                ended += 1;
            }
        }
        ended
    }
}

/// When the first certificate of `chain` expires. One that cannot be read was accepted by the handshake; it is looked at
/// again only when a bundle changes.
fn expiry(chain: &[CertificateDer<'_>]) -> SystemTime {
    let not_after = |certificate: &CertificateDer<'_>| {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        Some(calendar::system_time(parsed.validity().not_after.timestamp()))
    };
    let never = calendar::system_time(i64::from(u32::MAX));
    chain.iter().filter_map(not_after).min().unwrap_or(never)
}

#[cfg(test)]
mod tests;
