//! Sessions with endpoints of other clusters: mutual TLS from sidecar to sidecar, inside a stream through the gateways.
//!
//! A session carries many requests at once (HTTP/2). At least two to distinct endpoints are kept for each locality in use,
//! so that the caller can balance per request, and each is renewed before the remote gateway's choice grows old.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eastway_balance::{Endpoint, LocalityEndpoints, Pick, Tried};
use eastway_core::endpoint::MAX_EXCLUDED;
use eastway_core::reason::Attribution;
use eastway_core::view::MeshView;
use eastway_core::{Authority, EndpointId, LoadReport, Reason, ServiceName, ZoneId};
use eastway_http::{ClientOptions, H2};
use eastway_identity::Expected;
use eastway_resilience::Failed;
use eastway_runtime::clock;
use eastway_transport::Io;
use http::uri::Scheme;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::leaving::{self, Way};
use super::{ALPN_H1, ALPN_H2, Call, Upstreams, accounts, connect, dial, handshake, handshake_within, sending};
use crate::node::Node;
use crate::services::Entry;

/// Sessions kept for each locality in use, to distinct endpoints.
const KEPT: usize = 2;
/// When a session is replaced: 60 s and up to as much again.
const RENEW_AFTER: Duration = Duration::from_secs(60);
/// How often a request waits for a further session before it is sent elsewhere.
const OPEN_ROUNDS: usize = 2;
/// Sessions of a locality at most, those that are being replaced included.
const MAX_OPEN: usize = 8;
/// Gateways tried for one session, the same one again if there is no other.
const GATEWAY_ATTEMPTS: usize = 2;

/// A worker's sessions, by service and locality.
#[derive(Default)]
pub(super) struct Sessions {
    localities: RefCell<HashMap<(ServiceName, ZoneId), Rc<LocalitySessions>>>,
    /// The ways for which a question waits.
    watched: RefCell<HashSet<Way>>,
    /// The gateway that opened a stream last, by its place in the configuration: the next stream begins there.
    gateway: Cell<usize>,
}

#[derive(Default)]
struct LocalitySessions {
    open: RefCell<Vec<Session>>,
    /// Sessions being opened right now.
    opening: Cell<usize>,
    /// Fires when an opening ended.
    changed: Notify,
    /// How the last opening failed.
    failed: Cell<Option<Failed>>,
}

impl LocalitySessions {
    fn is_open(&self) -> bool {
        self.open.borrow().iter().any(|session| !session.h2.is_closed())
    }

    /// The endpoints of open sessions that have `most` requests of this caller, and may have no more.
    fn full(&self, most: u32) -> BTreeSet<EndpointId> {
        let open = self.open.borrow();
        open.iter()
            .filter(|session| session.endpoint.active_requests() >= most)
            .map(|session| session.endpoint.id.clone())
            .collect()
    }

    /// The endpoints of open sessions.
    fn endpoints(&self) -> BTreeSet<EndpointId> {
        self.open.borrow().iter().map(|session| session.endpoint.id.clone()).collect()
    }

    /// Whether one more may be opened.
    fn has_room(&self) -> bool {
        self.open.borrow().len() < MAX_OPEN
    }

    /// The sessions that can take a request more, where an endpoint has at most `most`. Those that closed are forgotten.
    fn usable(&self, most: u32) -> Vec<(Arc<Endpoint>, H2)> {
        let mut open = self.open.borrow_mut();
        open.retain(|session| !session.h2.is_closed());
        open.iter()
            .filter(|session| session.h2.available() > 0 && session.endpoint.active_requests() < most)
            .map(|session| (Arc::clone(&session.endpoint), session.h2.clone()))
            .collect()
    }
}

/// A session that is being opened, counted until this is dropped, however that ends. Then those who wait look again.
struct Opening(Rc<LocalitySessions>);

impl Opening {
    fn begin(sessions: &Rc<LocalitySessions>) -> Self {
        sessions.opening.set(sessions.opening.get() + 1);
        Self(Rc::clone(sessions))
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.set(self.0.opening.get() - 1);
        self.0.changed.notify_waiters();
    }
}

struct Session {
    endpoint: Arc<Endpoint>,
    h2: H2,
    renew_at: Instant,
    way: Way,
    locality: Arc<LocalityEndpoints>,
    wanted: Wanted,
}

impl Sessions {
    fn locality(&self, service: &ServiceName, zone: &ZoneId) -> Rc<LocalitySessions> {
        let (key, mut localities) = ((service.clone(), zone.clone()), self.localities.borrow_mut());
        if let Some(known) = localities.get(&key) {
            return Rc::clone(known);
        }
        // Services come and go as long as the process lives: whoever adds a locality sees to those that nobody uses any
        // more.
        localities.retain(|_, locality| Rc::strong_count(locality) > 1 || locality.is_open());
        Rc::clone(localities.entry(key).or_default())
    }

    pub(super) fn clear(&self) {
        self.localities.borrow_mut().clear();
    }
}

/// What opening a session needs to know after the request that wanted it is gone.
#[derive(Clone)]
struct Wanted {
    entry: Arc<Entry>,
    port: u16,
    traceparent: String,
    attempt: u32,
}

/// A session of the picked locality, with `pick` bound to its endpoint. Waits only while the locality has none that should
/// be used.
pub(super) async fn acquire(upstreams: &Rc<Upstreams>, call: &Call<'_>, pick: &mut Pick) -> Result<H2, Failed> {
    let locality = Arc::clone(&pick.locality);
    let most = call.entry.traffic_policy().endpoint_requests;
    let sessions = upstreams.sessions.locality(call.entry.service.name(), &locality.zone);
    let wanted = Wanted {
        entry: Arc::clone(call.entry),
        port: call.port,
        traceparent: call.traceparent.clone(),
        attempt: call.attempt,
    };
    for round in 0..=OPEN_ROUNDS {
        if let Some(h2) = choose(upstreams, call, pick, &sessions, most) {
            replenish(upstreams, &wanted, &locality, &sessions);
            return Ok(h2);
        }
        let full = sessions.full(most);
        if full.len() >= locality.total().max(1) {
            // There is no endpoint to which a further session could lead.
            return Err(Failed::full());
        }
        // A further session might lead to an endpoint that is better than those that are known.
        let known = sessions.endpoints();
        let elsewhere = round < OPEN_ROUNDS && known.len() < locality.total().max(1) && sessions.has_room();
        let in_vain = round > 0 && sessions.failed.get().is_some();
        if (in_vain || !elsewhere)
            && let Some(h2) = choose_any(call, pick, &sessions, most)
        {
            replenish(upstreams, &wanted, &locality, &sessions);
            return Ok(h2);
        }
        if in_vain && let Some(failed) = sessions.failed.get() {
            return Err(failed);
        }
        if round == OPEN_ROUNDS || !sessions.has_room() {
            break;
        }
        if sessions.opening.get() == 0 {
            let exclude: BTreeSet<EndpointId> = call.tried.endpoint_ids().cloned().chain(known).collect();
            spawn_open(upstreams, wanted.clone(), Arc::clone(&locality), &sessions, exclude.into_iter().collect());
        }
        let _pending = call.entry.pending.try_acquire().ok_or_else(Failed::waiting)?;
        sessions.changed.notified().await;
    }
    // Sessions open, but every one leads to an endpoint that this request must not use.
    if sessions.full(most).is_empty() { Err(Failed::connecting(Reason::NoReadyEndpoint)) } else { Err(Failed::full()) }
}

/// The best of the open sessions, or none that should be used.
fn choose(
    upstreams: &Upstreams,
    call: &Call<'_>,
    pick: &mut Pick,
    sessions: &LocalitySessions,
    most: u32,
) -> Option<H2> {
    let mut usable = sessions.usable(most);
    while !usable.is_empty() {
        let endpoints: Vec<Arc<Endpoint>> = usable.iter().map(|(endpoint, _)| Arc::clone(endpoint)).collect();
        let now = clock::now();
        let chosen =
            call.entry.service.choose(&mut upstreams.rng.borrow_mut(), now, &endpoints, call.tried, call.idempotent)?;
        let (endpoint, h2) = usable.swap_remove(chosen);
        if pick.bind(endpoint) {
            return Some(h2);
        }
    }
    None
}

/// Any of the open sessions, where there is nothing better.
fn choose_any(call: &Call<'_>, pick: &mut Pick, sessions: &LocalitySessions, most: u32) -> Option<H2> {
    let mut usable = sessions.usable(most);
    let endpoints: Vec<Arc<Endpoint>> = usable.iter().map(|(endpoint, _)| Arc::clone(endpoint)).collect();
    let (endpoint, h2) = usable.swap_remove(call.entry.service.choose_any(&pick.locality, &endpoints, call.tried)?);
    pick.bind_anyway(endpoint);
    Some(h2)
}

/// Opens a further session in the background when there are too few, or when one grows old.
fn replenish(
    upstreams: &Rc<Upstreams>,
    wanted: &Wanted,
    locality: &Arc<LocalityEndpoints>,
    sessions: &Rc<LocalitySessions>,
) {
    if sessions.opening.get() > 0 {
        return;
    }
    let now = Instant::now();
    let mut open = sessions.open.borrow_mut();
    let old = open.iter().position(|session| session.renew_at <= now);
    if open.len() > KEPT
        && let Some(old) = old
    {
        // Its replacement is open; streams on it finish, because they hold it.
        open.swap_remove(old);
        return;
    }
    if open.len() >= KEPT && old.is_none() {
        return;
    }
    // An endpoint that is the only one of its locality cannot be avoided: then one session has to do.
    let alone = open.len() == 1 && locality.total() <= 1 && old.is_none();
    let exclude = avoided(open.iter().map(|session| &session.endpoint.id), old);
    drop(open);
    if !alone {
        spawn_open(upstreams, wanted.clone(), Arc::clone(locality), sessions, exclude);
    }
}

/// The endpoints that a further session must not lead to: those of the open ones, but not that of the `old` one which it
/// replaces. If all were named, the gateway of a locality that has no others could only go against that, and might choose
/// the endpoint of a session that stays: then both would lead to the same.
fn avoided<'a>(open: impl Iterator<Item = &'a EndpointId>, old: Option<usize>) -> Vec<EndpointId> {
    open.enumerate().filter(|(place, _)| Some(*place) != old).map(|(_, endpoint)| endpoint.clone()).collect()
}

fn spawn_open(
    upstreams: &Rc<Upstreams>,
    wanted: Wanted,
    locality: Arc<LocalityEndpoints>,
    sessions: &Rc<LocalitySessions>,
    exclude: Vec<EndpointId>,
) {
    let (upstreams, opening) = (Rc::clone(upstreams), Opening::begin(sessions));
    tokio::task::spawn_local(async move { open_another(&upstreams, &wanted, &locality, opening, &exclude).await });
}

/// Opens a further session of the locality, and tells those who wait for it how that went.
async fn open_another(
    upstreams: &Rc<Upstreams>,
    wanted: &Wanted,
    locality: &Arc<LocalityEndpoints>,
    opening: Opening,
    exclude: &[EndpointId],
) {
    let sessions = &opening.0;
    match open_session(upstreams, wanted, locality, exclude).await {
        Ok(session) => {
            watch(upstreams, &session.way);
            sessions.failed.set(None);
            sessions.open.borrow_mut().push(session);
        }
        Err(failed) => {
            tracing::debug!(zone = %locality.zone, reason = %failed.reason, "no session with a remote endpoint");
            sessions.failed.set(Some(failed));
        }
    }
}

/// Sees to it that the sessions through `way` move when it is about to end.
fn watch(upstreams: &Rc<Upstreams>, way: &Way) {
    if !upstreams.sessions.watched.borrow_mut().insert(way.clone()) {
        return;
    }
    let (upstreams, way) = (Rc::clone(upstreams), way.clone());
    tokio::task::spawn_local(async move {
        let leaving = leaving::ask(&upstreams, &way).await.unwrap_or(false);
        upstreams.sessions.watched.borrow_mut().remove(&way);
        if leaving {
            tracing::info!(gateway = %way.gateway, via = way.via, "a gateway drains: its sessions move");
            move_away(&upstreams, &way);
        }
    });
}

/// Replaces every session that leads through `way`. Requests that are under way on one finish, because they hold it; it
/// ends with the last of them, also where there is no other way for the next.
fn move_away(upstreams: &Rc<Upstreams>, way: &Way) {
    let localities: Vec<Rc<LocalitySessions>> = upstreams.sessions.localities.borrow().values().cloned().collect();
    for sessions in localities {
        let open = sessions.open.borrow();
        let Some(session) = open.iter().find(|session| session.way == *way) else { continue };
        let (wanted, locality) = (session.wanted.clone(), Arc::clone(&session.locality));
        let others = open.iter().any(|session| session.way != *way && !session.h2.is_closed());
        drop(open);
        let (upstreams, way) = (Rc::clone(upstreams), way.clone());
        tokio::task::spawn_local(async move {
            if !others {
                open_another(&upstreams, &wanted, &locality, Opening::begin(&sessions), &[]).await;
            }
            sessions.open.borrow_mut().retain(|session| session.way != way);
        });
    }
}

async fn open_session(
    upstreams: &Upstreams,
    wanted: &Wanted,
    locality: &Arc<LocalityEndpoints>,
    exclude: &[EndpointId],
) -> Result<Session, Failed> {
    let mut tried = Tried::new();
    exclude.iter().for_each(|endpoint| tried.push_endpoint_id(locality.zone.clone(), endpoint.clone()));
    let call = Call {
        entry: &wanted.entry,
        port: wanted.port,
        tried: &tried,
        idempotent: false,
        attempt: wanted.attempt,
        traceparent: wanted.traceparent.clone(),
    };
    let (io, endpoint, way) = connect_remote(upstreams, &call, locality, ALPN_H2).await?;
    let h2 = H2::new(io, Scheme::HTTPS, &options(upstreams, &locality.zone.cluster)).await.map_err(sending)?;
    let renew_after = RENEW_AFTER + RENEW_AFTER.mul_f64(upstreams.rng.borrow_mut().f64());
    let renew_at = Instant::now() + renew_after;
    Ok(Session { endpoint, h2, renew_at, way, locality: Arc::clone(locality), wanted: wanted.clone() })
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

/// A verified connection to a sidecar of another cluster, through the gateways, the endpoint that it is, and the way there.
pub(super) async fn connect_remote(
    upstreams: &Upstreams,
    call: &Call<'_>,
    locality: &Arc<LocalityEndpoints>,
    alpn: &[&[u8]],
) -> Result<(Io, Arc<Endpoint>, Way), Failed> {
    let node = &upstreams.node;
    let own = node.identity.id();
    let service = &call.entry.service;
    let mut failed = Failed::connecting(Reason::GatewayUnreachable);
    let (gateways, last) = (&node.config.gateways, &upstreams.sessions.gateway);
    let turns = gateways.iter().enumerate().cycle().skip(last.get()).take(gateways.len().max(GATEWAY_ATTEMPTS));
    for (turn, (place, gateway)) in turns.enumerate() {
        let Ok(stream) = dial(node, gateway.tunnel).await else { continue };
        let expected = Expected::Gateway { trust_domain: own.trust_domain.clone() };
        let Ok(outer) = handshake(node, stream, expected, ALPN_H1).await else { continue };
        let connected = match through_gateway(upstreams, call, locality, outer).await {
            Ok(connected) => connected,
            Err(refusal) if goes_on(refusal.reason, turn + 1 < gateways.len()) => {
                failed = refusal;
                continue;
            }
            Err(refusal) => return Err(refusal),
        };
        last.set(place);
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
        return Ok((io, endpoint, Way { gateway: gateway.tunnel, via: connected.via }));
    }
    Err(failed)
}

/// Whether to ask a gateway after one that refused for `reason`: one that was not asked yet (`other`) may have a path that
/// works, whatever is wrong with that of this one. The same one is asked again only if it said so at once.
fn goes_on(reason: Reason, other: bool) -> bool {
    let at_once = matches!(reason, Reason::Draining | Reason::PathDown | Reason::Overloaded);
    at_once || other && reason.attribution() == Attribution::Tunnel
}

async fn through_gateway(
    upstreams: &Upstreams,
    call: &Call<'_>,
    locality: &Arc<LocalityEndpoints>,
    outer: Io,
) -> Result<connect::Tunnel, Failed> {
    let node = &upstreams.node;
    let authority = authority(node, call, Some(&locality.zone.cluster));
    let exclude: Vec<&str> = call.tried.endpoint_ids().take(MAX_EXCLUDED).map(EndpointId::as_str).collect();
    let exclude = exclude.join(",");
    let attempt = call.attempt.to_string();
    let headers = [
        ("traceparent", call.traceparent.as_str()),
        ("eastway-zone", &locality.zone.zone),
        ("eastway-exclude", &exclude),
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
        Ok(Err(reason)) => Err(Failed::connecting(reason)),
        Err(_) => Err(Failed::connecting(Reason::StreamOpenTimeout)),
    }
}

/// The authority of a CONNECT for the call's service, of one cluster if named.
pub(super) fn authority(node: &Node, call: &Call<'_>, cluster: Option<&Arc<str>>) -> String {
    let authority =
        Authority { service: call.entry.service.name().clone(), cluster: cluster.cloned(), port: Some(call.port) };
    authority.to_text(&node.config.suffix)
}

/// The trust domain of a peer cluster, as discovery says, or by convention before it did.
fn trust_domain(node: &Node, cluster: &str) -> String {
    let mesh = node.services.mesh();
    let peer = mesh.peers.iter().find(|peer| peer.cluster.name == cluster);
    peer.map_or_else(|| format!("{cluster}.mesh.internal"), |peer| peer.cluster.trust_domain.clone())
}

#[cfg(test)]
mod tests;
