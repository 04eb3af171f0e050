//! Sessions with endpoints of other clusters: mutual TLS from sidecar to sidecar, inside a stream through the gateways.
//!
//! Which session carries a request, and when another one is wanted, is decided by the [`SessionPool`]; here they are opened.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eastway_balance::{Endpoint, LocalityEndpoints, Pick, Tried};
use eastway_core::endpoint::MAX_EXCLUDED;
use eastway_core::reason::Attribution;
use eastway_core::trace::TraceParent;
use eastway_core::view::MeshView;
use eastway_core::{Authority, EndpointId, LoadReport, Reason, ServiceName, Timestamp, ZoneId};
use eastway_http::ClientOptions;
use eastway_identity::Expected;
use eastway_request::gateways::{Gateways, TunnelPath};
use eastway_request::sessions::{Acquired, PooledSession, SessionPool};
use eastway_request::{Call, ServiceEntry};
use eastway_resilience::AttemptError;
use eastway_runtime::clock;
use eastway_transport::Io;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::drain_notice;
use super::multiplexed::{Multiplexed, link_options};
use super::{ALPN_H1, ALPN_SESSION, Upstreams, accounts, connect, dial, handshake, handshake_within, sending};
use crate::node::SidecarNode;

/// Gateways tried for one session, the same one again if there is no other.
const GATEWAY_ATTEMPTS: usize = 2;

/// A worker's sessions, by service and locality.
pub(super) struct Sessions {
    services: RefCell<HashMap<ServiceName, HashMap<ZoneId, Rc<LocalitySessions>>>>,
    /// The tunnel paths whose drain notices are waited for.
    watched: RefCell<HashSet<TunnelPath>>,
    /// The own cluster's gateways, as this worker finds them.
    gateways: RefCell<Gateways>,
}

/// The sessions with one locality.
#[derive(Default)]
struct LocalitySessions {
    pool: RefCell<SessionPool<Handle>>,
    /// Fires when an opening ended.
    changed: Notify,
}

/// A session that is open.
struct OpenSession {
    connection: Multiplexed,
    path: TunnelPath,
    locality: Arc<LocalityEndpoints>,
    wanted: Wanted,
}

/// What a session is to the pool.
#[derive(Clone)]
struct Handle(Rc<OpenSession>);

impl PooledSession for Handle {
    fn is_closed(&self) -> bool {
        self.0.connection.is_closed()
    }

    fn has_room(&self) -> bool {
        self.0.connection.has_room()
    }

    fn fell_silent(&self) -> bool {
        self.0.connection.fell_silent()
    }

    fn path(&self) -> Option<&TunnelPath> {
        Some(&self.0.path)
    }
}

impl LocalitySessions {
    fn is_open(&self) -> bool {
        self.pool.borrow().sessions().any(|session| !session.is_closed())
    }
}

/// A session that is being opened, which the pool counts until this ends, however that happens. Then those who wait look
/// again.
struct SessionOpening {
    sessions: Rc<LocalitySessions>,
    ended: bool,
}

impl SessionOpening {
    /// One that the pool counts already.
    const fn counted(sessions: Rc<LocalitySessions>) -> Self {
        Self { sessions, ended: false }
    }

    fn end(mut self, upstreams: &Upstreams, opened: Result<(Arc<Endpoint>, Handle), AttemptError>) {
        self.ended = true;
        self.sessions.pool.borrow_mut().end(opened, clock::now(), &mut upstreams.rng.borrow_mut());
    }
}

impl Drop for SessionOpening {
    fn drop(&mut self) {
        if !self.ended {
            self.sessions.pool.borrow_mut().give_up();
        }
        self.sessions.changed.notify_waiters();
    }
}

impl Sessions {
    /// None yet, through so many gateways, of which that of number `turn` is asked first.
    pub(super) fn new(gateways: usize, turn: usize) -> Self {
        Self {
            services: RefCell::default(),
            watched: RefCell::default(),
            gateways: RefCell::new(Gateways::new(gateways, turn)),
        }
    }

    fn locality(&self, service: &ServiceName, zone: &ZoneId) -> Rc<LocalitySessions> {
        let mut services = self.services.borrow_mut();
        if let Some(known) = services.get(service).and_then(|localities| localities.get(zone)) {
            return Rc::clone(known);
        }
        // Services come and go as long as the process lives: whoever adds a locality sees to those that nobody uses any
        // more.
        services.retain(|_, localities| {
            localities.retain(|_, locality| Rc::strong_count(locality) > 1 || locality.is_open());
            !localities.is_empty()
        });
        Rc::clone(services.entry(service.clone()).or_default().entry(zone.clone()).or_default())
    }

    /// Sessions with all localities of a service lead through the same few gateways: what fell silent on the way to one is in
    /// doubt for all.
    fn doubt_what_fell_silent(&self, service: &ServiceName, now: Timestamp) {
        let services = self.services.borrow();
        let localities = || services.get(service).into_iter().flat_map(HashMap::values);
        let silent = |locality: &Rc<LocalitySessions>| locality.pool.borrow_mut().part_with_ended(now);
        for path in localities().flat_map(silent).collect::<Vec<_>>() {
            localities().for_each(|locality| locality.pool.borrow_mut().doubt(&path, now));
        }
    }

    /// The gateways that a further session of `opener`'s should not lead through while there are others; if its own sessions
    /// do not matter, those of the service's other localities do, which are to take its place when it falls silent.
    fn paths_to_avoid(
        &self,
        opener: &LocalitySessions,
        service: &ServiceName,
        locality: &LocalityEndpoints,
    ) -> Vec<TunnelPath> {
        let own = opener.pool.borrow().paths_to_avoid(locality, clock::now());
        if !own.is_empty() {
            return own;
        }
        let services = self.services.borrow();
        let localities = services.get(service).into_iter().flatten();
        let others = localities.filter(|(zone, _)| **zone != locality.zone);
        let paths = |(_, other): (_, &Rc<LocalitySessions>)| -> Vec<TunnelPath> {
            other.pool.borrow().sessions().map(|session| session.0.path.clone()).collect()
        };
        others.flat_map(paths).collect()
    }

    pub(super) fn clear(&self) {
        self.services.borrow_mut().clear();
    }
}

/// What opening a session needs to know after the request that wanted it is gone.
#[derive(Clone)]
struct Wanted {
    entry: Arc<ServiceEntry>,
    port: u16,
    traceparent: TraceParent,
    attempt: u32,
}

/// A session of the picked locality, with `pick` bound to its endpoint. Waits only while the locality has none that should
/// be used.
pub(super) async fn acquire(
    upstreams: &Rc<Upstreams>,
    call: &Call<'_>,
    pick: &mut Pick,
) -> Result<Multiplexed, AttemptError> {
    let locality = Arc::clone(&pick.locality);
    let sessions = upstreams.sessions.locality(call.entry.service().name(), &locality.zone);
    let wanted =
        Wanted { entry: Arc::clone(call.entry), port: call.port, traceparent: call.traceparent, attempt: call.attempt };
    let mut round = 0;
    loop {
        let now = clock::now();
        upstreams.sessions.doubt_what_fell_silent(call.entry.service().name(), now);
        let acquired = sessions.pool.borrow_mut().acquire(call, pick, round, now, &mut upstreams.rng.borrow_mut());
        let exclude = match &acquired {
            Acquired::Use(_) => sessions.pool.borrow_mut().replenish(&locality, now),
            Acquired::Wait => sessions.pool.borrow_mut().wanted_by(call),
            Acquired::Fail(_) => None,
        };
        if let Some(exclude) = exclude {
            spawn_open(upstreams, wanted.clone(), Arc::clone(&locality), &sessions, exclude);
        }
        match acquired {
            Acquired::Use(session) => return Ok(session.0.connection.clone()),
            Acquired::Fail(error) => return Err(error),
            Acquired::Wait => {
                let _pending = call.entry.pending_permit().ok_or(AttemptError::full(Reason::PendingLimit))?;
                sessions.changed.notified().await;
                round += 1;
            }
        }
    }
}

fn spawn_open(
    upstreams: &Rc<Upstreams>,
    wanted: Wanted,
    locality: Arc<LocalityEndpoints>,
    sessions: &Rc<LocalitySessions>,
    exclude: Vec<EndpointId>,
) {
    let (upstreams, opening) = (Rc::clone(upstreams), SessionOpening::counted(Rc::clone(sessions)));
    tokio::task::spawn_local(async move {
        let service = wanted.entry.service().name();
        let avoid = upstreams.sessions.paths_to_avoid(&opening.sessions, service, &locality);
        open_another(&upstreams, wanted, locality, opening, &exclude, &avoid).await;
    });
}

/// Opens a further session of the locality, and tells those who wait for it how that went.
async fn open_another(
    upstreams: &Rc<Upstreams>,
    wanted: Wanted,
    locality: Arc<LocalityEndpoints>,
    opening: SessionOpening,
    exclude: &[EndpointId],
    avoid: &[TunnelPath],
) {
    let opened = open_session(upstreams, wanted, locality, exclude, avoid).await;
    match &opened {
        Ok((_, session)) => watch(upstreams, &session.0.path),
        Err(error) => tracing::debug!(reason = %error.reason, "no session with a remote endpoint"),
    }
    opening.end(upstreams, opened);
}

/// Sees to it that the sessions through `path` move when a gateway on it drains or is gone.
fn watch(upstreams: &Rc<Upstreams>, path: &TunnelPath) {
    if !upstreams.sessions.watched.borrow_mut().insert(path.clone()) {
        return;
    }
    let (upstreams, path) = (Rc::clone(upstreams), path.clone());
    tokio::task::spawn_local(async move {
        let ends = drain_notice::wait(&upstreams, &path).await.unwrap_or(false);
        upstreams.sessions.watched.borrow_mut().remove(&path);
        if ends {
            tracing::info!(gateway = %path.gateway, via = path.via, "a gateway drains or is gone: its sessions move");
            move_away(&upstreams, &path);
        }
    });
}

/// Replaces every session that leads through `path`. Requests that are under way on one finish, because they hold it; it
/// ends with the last of them, also where there is no other path for the next.
fn move_away(upstreams: &Rc<Upstreams>, path: &TunnelPath) {
    let services = upstreams.sessions.services.borrow();
    let localities: Vec<Rc<LocalitySessions>> = services.values().flat_map(HashMap::values).cloned().collect();
    drop(services);
    for sessions in localities {
        let pool = sessions.pool.borrow();
        let Some(session) = pool.sessions().find(|session| session.0.path == *path).cloned() else { continue };
        let others = pool.sessions().any(|other| other.0.path != *path && !other.is_closed());
        drop(pool);
        let (upstreams, path) = (Rc::clone(upstreams), path.clone());
        tokio::task::spawn_local(async move {
            if !others {
                sessions.pool.borrow_mut().begin();
                let opening = SessionOpening::counted(Rc::clone(&sessions));
                let (wanted, locality) = (session.0.wanted.clone(), Arc::clone(&session.0.locality));
                open_another(&upstreams, wanted, locality, opening, &[], std::slice::from_ref(&path)).await;
            }
            sessions.pool.borrow_mut().retain(|session| session.0.path != path);
        });
    }
}

async fn open_session(
    upstreams: &Upstreams,
    wanted: Wanted,
    locality: Arc<LocalityEndpoints>,
    exclude: &[EndpointId],
    avoid: &[TunnelPath],
) -> Result<(Arc<Endpoint>, Handle), AttemptError> {
    let mut tried = Tried::new();
    exclude.iter().for_each(|endpoint| tried.push_endpoint_id(locality.zone.clone(), endpoint.clone()));
    let call = Call {
        entry: &wanted.entry,
        port: wanted.port,
        tried: &tried,
        idempotent: false,
        attempt: wanted.attempt,
        traceparent: wanted.traceparent,
    };
    let (io, endpoint, path) = connect_remote(upstreams, &call, &locality, avoid, ALPN_SESSION).await?;
    let cluster = &locality.zone.cluster;
    let link = link_options(&upstreams.node, way_there(&upstreams.node.services.mesh(), cluster));
    let connection = Multiplexed::new(io, &options(upstreams, cluster), &link).await.map_err(sending)?;
    Ok((endpoint, Handle(Rc::new(OpenSession { connection, path, locality, wanted }))))
}

/// The options of a session: an answer to a ping may take longer than within the region.
fn options(upstreams: &Upstreams, cluster: &str) -> ClientOptions {
    let mut options = upstreams.options.clone();
    if let Some(ping) = &mut options.h2.ping {
        ping.timeout += way_there(&upstreams.node.services.mesh(), cluster);
        // Nobody can ask for a body over HTTP/2: who does not answer as soon as a ping would be takes it.
        options.continue_after = options.continue_after.min(ping.timeout);
    }
    options
}

/// By how much what is done with `cluster` may take longer than within the region: three round trips, which is nothing as
/// long as they are not known.
fn way_there(mesh: &MeshView, cluster: &str) -> Duration {
    let rtt = mesh.peers.iter().find(|peer| peer.cluster.name == cluster).and_then(|peer| peer.min_rtt);
    3 * rtt.unwrap_or_default()
}

/// A verified connection to a sidecar of another cluster, through the gateways, the endpoint that it is, and the path there:
/// through none of the gateways to `avoid`, as long as there are others.
pub(super) async fn connect_remote(
    upstreams: &Upstreams,
    call: &Call<'_>,
    locality: &Arc<LocalityEndpoints>,
    avoid: &[TunnelPath],
    alpn: &[&[u8]],
) -> Result<(Io, Arc<Endpoint>, TunnelPath), AttemptError> {
    let node = &upstreams.node;
    let service = call.entry.service();
    let (connected, gateway) = tunnel(upstreams, call, locality, avoid).await?;
    let id = EndpointId::new(connected.endpoint.clone().unwrap_or_default());
    let endpoint = service.session(locality, &id);
    if let Some(load) = connected.load.as_deref().and_then(LoadReport::from_header) {
        service.report(&endpoint, load, clock::now());
    }
    let trust_domain = trust_domain(node, &locality.zone.cluster);
    let expected = accounts(&trust_domain, service.name(), &locality.accounts);
    let limit = node.config.timeouts.stream_open + way_there(&node.services.mesh(), &locality.zone.cluster);
    let io = handshake_within(limit, node, connected.io, expected, alpn).await?;
    service.revive(&endpoint, clock::now());
    Ok((io, endpoint, TunnelPath { gateway, via: connected.via }))
}

/// A stream through the first gateway that opens one, and that gateway.
async fn tunnel(
    upstreams: &Upstreams,
    call: &Call<'_>,
    locality: &Arc<LocalityEndpoints>,
    avoid: &[TunnelPath],
) -> Result<(connect::OpenTunnel, SocketAddr), AttemptError> {
    let (gateways, known) = (&upstreams.node.config.gateways, &upstreams.sessions.gateways);
    let in_use = |place: usize| avoid.iter().any(|path| path.gateway == gateways[place].tunnel);
    let places = known.borrow_mut().order(in_use, clock::now());
    let mut failed = AttemptError::connecting(Reason::GatewayUnreachable);
    for (turn, place) in places.iter().cycle().take(gateways.len().max(GATEWAY_ATTEMPTS)).enumerate() {
        let gateway = gateways[*place].tunnel;
        match by_gateway(upstreams, call, locality, gateway, avoid).await {
            Ok(connected) => {
                known.borrow_mut().answered(*place);
                return Ok((connected, gateway));
            }
            Err(refusal) => {
                // It may be that only its way to this cluster fails. Where all ways do, all gateways are equals again.
                if matches!(refusal.reason.attribution(), Attribution::Tunnel | Attribution::GatewayOverload) {
                    known.borrow_mut().failed(*place, clock::now());
                }
                if !goes_on(refusal.reason, turn + 1 < gateways.len()) {
                    return Err(refusal);
                }
                failed = refusal;
            }
        }
    }
    Err(failed)
}

/// A stream through the own cluster's gateway at `gateway`.
async fn by_gateway(
    upstreams: &Upstreams,
    call: &Call<'_>,
    locality: &Arc<LocalityEndpoints>,
    gateway: SocketAddr,
    avoid: &[TunnelPath],
) -> Result<connect::OpenTunnel, AttemptError> {
    let node = &upstreams.node;
    let unreachable = AttemptError::connecting(Reason::GatewayUnreachable);
    let stream = dial(node, gateway).await.map_err(|_| unreachable)?;
    let expected = Expected::Gateway { trust_domain: node.identity.id().trust_domain.clone() };
    let outer = handshake(node, stream, expected, ALPN_H1).await.map_err(|_| unreachable)?;
    through_gateway(upstreams, call, locality, outer, avoid).await
}

/// Whether to ask a gateway after one that refused for `reason`: one that was not asked yet (`other`) may have a path that
/// works, whatever is wrong with that of this one. The same one is asked again only if it said so at once, or could not be
/// asked.
fn goes_on(reason: Reason, other: bool) -> bool {
    let again = matches!(reason, Reason::Draining | Reason::PathDown | Reason::Overloaded | Reason::GatewayUnreachable);
    again || other && reason.attribution() == Attribution::Tunnel
}

async fn through_gateway(
    upstreams: &Upstreams,
    call: &Call<'_>,
    locality: &Arc<LocalityEndpoints>,
    outer: Io,
    avoid: &[TunnelPath],
) -> Result<connect::OpenTunnel, AttemptError> {
    let node = &upstreams.node;
    let authority = authority(node, call, Some(&locality.zone.cluster));
    let exclude: Vec<&str> = call.tried.endpoint_ids().take(MAX_EXCLUDED).map(EndpointId::as_str).collect();
    let exclude = exclude.join(",");
    let avoid: Vec<&str> = avoid.iter().filter_map(|path| path.via.as_deref()).collect();
    let avoid = avoid.join(",");
    let (attempt, traceparent) = (call.attempt.to_string(), call.traceparent.to_string());
    let headers = [
        ("traceparent", traceparent.as_str()),
        ("eastway-zone", &locality.zone.zone),
        ("eastway-exclude", &exclude),
        ("eastway-avoid", &avoid),
        ("eastway-attempt", &attempt),
    ];
    let headers: Vec<(&str, &str)> = headers.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    // The gateway needs its own limit for the stream, and a little for the way to it.
    let timeouts = &node.config.timeouts;
    let limit = timeouts.stream_open + timeouts.connect + way_there(&node.services.mesh(), &locality.zone.cluster);
    let options = &upstreams.options;
    match timeout(limit, connect::connect(outer, &authority, &headers, options, Reason::GatewayUnreachable)).await {
        Ok(Ok(tunnel)) => Ok(tunnel),
        // Whatever the gateways say, there was no connection yet: such failures cost no retry.
        Ok(Err(reason)) => Err(AttemptError::connecting(reason)),
        Err(_) => Err(AttemptError::connecting(Reason::StreamOpenTimeout)),
    }
}

/// The authority of a CONNECT for the call's service, of one cluster if named.
pub(super) fn authority(node: &SidecarNode, call: &Call<'_>, cluster: Option<&Arc<str>>) -> String {
    let authority =
        Authority { service: call.entry.service().name().clone(), cluster: cluster.cloned(), port: Some(call.port) };
    authority.to_text(&node.config.suffix)
}

/// The trust domain of a peer cluster, as discovery says, or by convention before it did.
fn trust_domain(node: &SidecarNode, cluster: &str) -> String {
    let mesh = node.services.mesh();
    let peer = mesh.peers.iter().find(|peer| peer.cluster.name == cluster);
    peer.map_or_else(|| format!("{cluster}.mesh.internal"), |peer| peer.cluster.trust_domain.clone())
}

#[cfg(test)]
mod tests;
