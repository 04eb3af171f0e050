//! Connections to called sidecars: pooled HTTP/1.1 and HTTP/2 within the cluster, sessions through the gateway beyond it.
//!
//! One `Upstreams` per worker. It never decides where to send; it gets there, and says what failed on the way.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eastway_balance::{Endpoint, Pick};
use eastway_core::{EndpointId, Reason, ServiceName, SpiffeId};
use eastway_http::client::{Ping, PoolOptions, SendFailure, Unopened};
use eastway_http::{ClientOptions, H1, Pool, Request, Response, SendError, Sweeper, link};
use eastway_identity::{Expected, Refusal, client_config};
use eastway_request::Call;
use eastway_resilience::{AttemptError, Fault, Progress};
use eastway_transport::tls::TlsError;
use eastway_transport::{Io, tcp, tls};
use tokio::time::timeout;

use crate::h2;
use crate::node::SidecarNode;
use connector::{Connector, Spoken};
use multiplexed::Multiplexed;
pub(crate) use places::ConnectionPermit;
use places::Places;
use session::Sessions;

mod bundle;
pub(crate) mod connect;
mod connector;
mod drain_notice;
pub(crate) mod liveness;
pub(crate) mod multiplexed;
mod places;
mod session;

/// The protocols offered to a called sidecar of this cluster. It says which one it takes.
const ALPN: &[&[u8]] = &[link::ALPN, b"h2", b"http/1.1"];
/// The same for a session through the gateways, which carries many requests in any case.
const ALPN_SESSION: &[&[u8]] = &[link::ALPN, b"h2"];
/// For what needs a connection of its own.
const ALPN_H1: &[&[u8]] = &[b"http/1.1"];

/// An upstream of this worker: a service's endpoint, in one life.
type Key = (ServiceName, EndpointId, u64);

/// A worker's connections.
pub(crate) struct Upstreams {
    node: Arc<SidecarNode>,
    sweeper: Sweeper,
    /// Never borrowed across an await.
    rng: RefCell<fastrand::Rng>,
    h1: Pool<Key>,
    connector: Connector,
    sessions: Sessions,
    probes: liveness::Probes,
    places: Places,
    options: ClientOptions,
}

/// What a connection that broke says of the attempt that it carried.
fn sending(error: SendError) -> AttemptError {
    let failure = error.failure();
    let ended = matches!(failure, SendFailure::Closed | SendFailure::Refused | SendFailure::Reset);
    let silent = failure == SendFailure::Unresponsive || failure == SendFailure::Reset && timed_out(&error);
    let fault = match failure {
        _ if silent => Fault::Silent,
        // A reset shows that somebody is there. Whether it takes connections is for the next one to find out.
        SendFailure::Reset if !error.is_reused() => Fault::Stated,
        _ if ended => Fault::Nobody,
        _ => Fault::Stated,
    };
    let progress = if error.is_unprocessed() { Progress::Unsent } else { Progress::Sent };
    AttemptError { reason: error.reason(), progress, fault }
}

/// Whether the connection broke because the host answered nothing any more: unlike one that was closed, it says that
/// the host is gone.
fn timed_out(error: &SendError) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        cause = inner.source();
    }
    false
}

impl Upstreams {
    /// No connections yet. Call it on the worker's `LocalSet`.
    pub(crate) fn new(node: &Arc<SidecarNode>, sweeper: &Sweeper, mut rng: fastrand::Rng) -> Rc<Self> {
        let limits = &node.config.limits;
        let pool = PoolOptions { max_idle_per_key: limits.idle_connections, ..PoolOptions::default() };
        let mut options = ClientOptions { max_header_bytes: limits.header_bytes, ..ClientOptions::default() };
        let (interval, timeout) = (node.config.timeouts.ping_after, node.config.timeouts.ping_timeout);
        options.h2 = h2::options(limits, Some(Ping { interval, timeout }));
        options.continue_after = node.config.timeouts.continue_after;
        Rc::new(Self {
            node: Arc::clone(node),
            sweeper: sweeper.clone(),
            h1: Pool::new(pool),
            connector: Connector::default(),
            sessions: Sessions::new(node.config.gateways.len(), rng.usize(..)),
            rng: RefCell::new(rng),
            probes: liveness::Probes::default(),
            places: Places::default(),
            options,
        })
    }

    /// Closes what is idle, for the end of the worker.
    pub(crate) fn clear(&self) {
        self.h1.clear();
        self.connector.clear();
        self.sessions.clear();
    }
}

/// Sends a request to what was picked; for a remote locality this chooses the session, and binds `pick` to its endpoint. Sets
/// `needs_probe` if the connection cannot tell whether its host still lives: see [`liveness`].
///
/// # Errors
/// [`AttemptError`] if no response began.
pub(crate) async fn send(
    upstreams: &Rc<Upstreams>,
    call: &Call<'_>,
    pick: &mut Pick,
    mut request: Request,
    needs_probe: &Cell<bool>,
) -> Result<Response, AttemptError> {
    while let Some(connection) = shared(upstreams, call, pick).await?.filter(|shared| shared.carries(&request)) {
        match connection.send(request).await {
            Ok(response) => return Ok(response),
            // It has just ended, and nothing was sent: another one may serve.
            Err(mut error) => match error.take_request().filter(|_| connection.is_closed()) {
                Some(unsent) => request = unsent,
                None => return Err(sending(error)),
            },
        }
    }
    needs_probe.set(true);
    match nearby(pick) {
        Some(endpoint) if request.head.upgrade().is_none() => send_h1(upstreams, call, &endpoint, request).await,
        _ => send_alone(upstreams, call, pick, request).await,
    }
}

/// The endpoint that was picked, if it is one of this cluster. That of a session has no address here.
fn nearby(pick: &Pick) -> Option<Arc<Endpoint>> {
    pick.endpoint().filter(|endpoint| endpoint.address.is_some()).cloned()
}

/// Whether the endpoint may have the request that its pick counts there already.
fn has_room(call: &Call<'_>, endpoint: &Endpoint) -> Result<(), AttemptError> {
    if endpoint.active_requests() > call.entry.traffic_policy().endpoint_requests {
        Err(AttemptError::full(Reason::RequestLimit))
    } else {
        Ok(())
    }
}

/// The connection that everything which is sent to what was picked shares: there is none if its sidecar speaks HTTP/1.1 only.
async fn shared(
    upstreams: &Rc<Upstreams>,
    call: &Call<'_>,
    pick: &mut Pick,
) -> Result<Option<Multiplexed>, AttemptError> {
    let Some(endpoint) = nearby(pick) else { return session::acquire(upstreams, call, pick).await.map(Some) };
    has_room(call, &endpoint)?;
    match connector::connection(upstreams, call, &endpoint).await? {
        Spoken::Many(connection) => Ok(Some(connection)),
        Spoken::One => Ok(None),
    }
}

async fn send_h1(
    upstreams: &Upstreams,
    call: &Call<'_>,
    endpoint: &Arc<Endpoint>,
    mut request: Request,
) -> Result<Response, AttemptError> {
    let key = key(call, endpoint);
    let pool = &upstreams.h1;
    while let Some(connection) = if call.idempotent { pool.take(&key) } else { pool.take_for_once(&key) } {
        match connection.send(request).await {
            Ok(response) => return Ok(response),
            // Its peer had closed it while it was idle, and nothing was sent: the next one may serve.
            Err(mut error) => match error.take_request() {
                Some(unsent) => request = unsent,
                None => return Err(sending(error)),
            },
        }
    }
    let (io, place) = connect_local(upstreams, call, endpoint, ALPN_H1).await?;
    let connection = H1::new(io, &upstreams.options);
    upstreams.h1.lease(key, connection.holding(place)).send(request).await.map_err(sending)
}

fn key(call: &Call<'_>, endpoint: &Arc<Endpoint>) -> Key {
    (call.entry.service().name().clone(), endpoint.id.clone(), endpoint.incarnation)
}

/// A byte stream to the application behind what was picked, for opaque connections, and what to hold while it is open.
///
/// # Errors
/// [`AttemptError`] if there is no way.
pub(crate) async fn open(
    upstreams: &Rc<Upstreams>,
    call: &Call<'_>,
    pick: &mut Pick,
) -> Result<(Io, Option<ConnectionPermit>), AttemptError> {
    let authority = session::authority(&upstreams.node, call, None);
    let traceparent = call.traceparent.to_string();
    let headers = [("traceparent", traceparent.as_str())];
    let (options, limit) = (&upstreams.options, upstreams.node.config.timeouts.stream_open);
    let opened = match shared(upstreams, call, pick).await? {
        Some(Multiplexed::Link(link)) => {
            let opened = timeout(limit, link.open(&authority, &headers)).await;
            opened.map(|opened| opened.map(|io| (io, None)).map_err(unopened))
        }
        _ => {
            let (io, place) = reach(upstreams, call, pick).await?;
            let connecting = connect::connect(io, &authority, &headers, options, Reason::AppUnreachable);
            let connected = timeout(limit, connecting).await;
            connected.map(|connected| connected.map(|tunnel| (tunnel.io, place)).map_err(AttemptError::said))
        }
    };
    opened.unwrap_or(Err(AttemptError::connecting(Reason::ConnectTimeout)))
}

/// What it says of an attempt that a link opened no stream.
fn unopened(error: Unopened) -> AttemptError {
    match error {
        Unopened::Refused(reason) => AttemptError::said(reason),
        Unopened::Broken(error) => sending(error),
    }
}

/// Sends a request that asks for another protocol, over a connection of its own.
async fn send_alone(
    upstreams: &Upstreams,
    call: &Call<'_>,
    pick: &mut Pick,
    request: Request,
) -> Result<Response, AttemptError> {
    let (io, place) = reach(upstreams, call, pick).await?;
    let mut connection = H1::new(io, &upstreams.options);
    let response = connection.send(request).await.map_err(sending)?;
    Ok(response.map(|body| body.hold(place)))
}

/// A verified HTTP/1.1 connection to what was picked, that nobody else uses.
async fn reach(
    upstreams: &Upstreams,
    call: &Call<'_>,
    pick: &mut Pick,
) -> Result<(Io, Option<ConnectionPermit>), AttemptError> {
    match nearby(pick) {
        Some(endpoint) => {
            has_room(call, &endpoint)?;
            connect_local(upstreams, call, &endpoint, ALPN_H1).await.map(|(io, place)| (io, Some(place)))
        }
        None => {
            let (io, endpoint, _) = session::connect_remote(upstreams, call, &pick.locality, &[], ALPN_H1).await?;
            pick.bind(Arc::clone(&endpoint));
            has_room(call, &endpoint)?;
            Ok((io, None))
        }
    }
}

/// A verified connection to a sidecar of this cluster.
async fn connect_local(
    upstreams: &Upstreams,
    call: &Call<'_>,
    endpoint: &Arc<Endpoint>,
    alpn: &[&[u8]],
) -> Result<(Io, ConnectionPermit), AttemptError> {
    let node = &upstreams.node;
    let Some(address) = endpoint.address else { return Err(AttemptError::connecting(Reason::Internal)) };
    let most = call.entry.traffic_policy().endpoint_connections;
    let place = upstreams.places.take(&key(call, endpoint), most).ok_or(AttemptError::full(Reason::RequestLimit))?;
    let _pending = call.entry.pending_permit().ok_or(AttemptError::full(Reason::PendingLimit))?;
    let stream = dial(node, address).await.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => AttemptError::gone(Reason::ConnectTimeout),
        // This sidecar has no descriptors left: that says nothing about the endpoint.
        _ if tcp::is_exhaustion(&error) => AttemptError::full(Reason::RequestLimit),
        _ => AttemptError::gone(Reason::ConnectFailed),
    })?;
    let io = handshake(node, stream, expected(node, call), alpn).await?;
    call.entry.service().revive(endpoint, eastway_runtime::clock::now());
    Ok((io, place))
}

/// A TCP connection with this sidecar's time limits.
pub(crate) async fn dial(node: &SidecarNode, address: SocketAddr) -> io::Result<Io> {
    let timeouts = &node.config.timeouts;
    let options = tcp::DialOptions::data(timeouts.connect, timeouts.tcp_keepalive, timeouts.tcp_user);
    tcp::dial(address, &options).await.map(|stream| Io::watched(stream, timeouts.tcp_user))
}

/// Mutual TLS over `io`, with whoever `expected` admits, within the region.
pub(crate) async fn handshake(
    node: &SidecarNode,
    io: Io,
    expected: Expected,
    alpn: &[&[u8]],
) -> Result<Io, AttemptError> {
    handshake_within(node.config.timeouts.stream_open, node, io, expected, alpn).await
}

async fn handshake_within(
    limit: Duration,
    node: &SidecarNode,
    io: Io,
    expected: Expected,
    alpn: &[&[u8]],
) -> Result<Io, AttemptError> {
    let config = client_config(&node.identity, expected, alpn);
    match timeout(limit, tls::connect(io, config)).await {
        Ok(Ok(io)) => Ok(io),
        // Who answers with another identity is not the endpoint, and is never asked again but by a probe.
        Ok(Err(error)) => match tls_reason(&error) {
            Reason::WrongIdentity => Err(AttemptError::gone(Reason::WrongIdentity)),
            reason => Err(AttemptError::connecting(reason)),
        },
        Err(_) => Err(AttemptError::connecting(Reason::ConnectTimeout)),
    }
}

fn tls_reason(error: &TlsError) -> Reason {
    match error.refusal() {
        Some(Refusal::ByPeer) => Reason::IdentityRefused,
        Some(_) => Reason::WrongIdentity,
        None => Reason::TlsFailed,
    }
}

/// Who may answer a call within this cluster.
fn expected(node: &SidecarNode, call: &Call<'_>) -> Expected {
    accounts(&node.identity.id().trust_domain, call.entry.service().name(), &call.entry.accounts())
}

/// Who may answer for `service` in a trust domain.
pub(crate) fn accounts(trust_domain: &str, service: &ServiceName, accounts: &[String]) -> Expected {
    let id = |account: &String| SpiffeId::workload(trust_domain, &service.namespace, account);
    Expected::Workloads(accounts.iter().map(id).collect())
}
