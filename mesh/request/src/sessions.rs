//! Sessions of one caller with the endpoints of one remote locality: which one carries an attempt, and when to open another.
//!
//! A session carries many requests at once. At least two to distinct endpoints are kept for each locality in use, so that the
//! caller can balance per request, and each is renewed before the remote gateway's choice grows old. Whoever opens sessions
//! tells the pool; what a session is made of is not known here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use eastway_balance::{Endpoint, LocalityEndpoints, Pick};
use eastway_core::{EndpointId, Reason, Timestamp};
use eastway_resilience::AttemptError;

use crate::gateways::TunnelPath;
use crate::outbound::Call;

/// Sessions kept for each locality in use, to distinct endpoints.
const KEPT: usize = 2;
/// When a session is replaced: after 60 s and up to as much again.
const RENEW_AFTER: Duration = Duration::from_secs(60);
/// How often a request waits for a further session before it is sent elsewhere.
const OPEN_ROUNDS: usize = 2;
/// Sessions of a locality at most, those that are being replaced included.
const MAX_OPEN: usize = 8;
/// How long new sessions keep away from the gateways of one that fell silent.
const SILENT_FOR: Duration = Duration::from_secs(5);

/// What a session is made of.
pub trait PooledSession: Clone {
    /// It takes no request any more.
    fn is_closed(&self) -> bool;

    /// It takes a request more just now.
    fn has_room(&self) -> bool;

    /// It ended because nothing answered any more: the endpoint's host is gone, or a gateway on its path.
    fn fell_silent(&self) -> bool;

    /// The gateways that it leads through, where they are known.
    fn path(&self) -> Option<&TunnelPath>;
}

/// The sessions with one locality.
#[derive(Debug)]
pub struct SessionPool<S> {
    open: Vec<Open<S>>,
    /// How many are being opened right now.
    opening: usize,
    /// How the last opening failed.
    failed: Option<AttemptError>,
    /// The paths of sessions that fell silent, and when that was noticed.
    silent: Vec<(TunnelPath, Timestamp)>,
}

#[derive(Debug)]
struct Open<S> {
    endpoint: Arc<Endpoint>,
    session: S,
    renew_at: Timestamp,
    /// Another session that led through one of its gateways fell silent, and nothing has passed there since.
    doubtful: bool,
}

/// What an attempt in the locality is to do.
#[derive(Debug)]
pub enum Acquired<S> {
    /// Use this session: the pick is bound to its endpoint.
    Use(S),
    /// Wait until an opening has ended, and ask again with the next round.
    Wait,
    /// There is no session for it.
    Fail(AttemptError),
}

impl<S> Default for SessionPool<S> {
    fn default() -> Self {
        Self { open: Vec::new(), opening: 0, failed: None, silent: Vec::new() }
    }
}

impl<S: PooledSession> SessionPool<S> {
    /// A session for the attempt at `pick`, which is bound to its endpoint. It waits only while the locality has none that
    /// should be used. `round` counts how often it has waited. Ask for [`SessionPool::wanted_by`] after it.
    pub fn acquire(
        &mut self,
        call: &Call<'_>,
        pick: &mut Pick,
        round: usize,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> Acquired<S> {
        let most = call.entry.traffic_policy().endpoint_requests;
        let total = pick.locality.total().max(1);
        for path in self.part_with_ended(now) {
            self.doubt(&path, now);
        }
        if let Some(session) = self.choose(call, pick, most, now, rng) {
            return Acquired::Use(session);
        }
        let full = self.open.iter().filter(|open| open.endpoint.active_requests() >= most);
        let full: BTreeSet<&EndpointId> = full.map(|open| &open.endpoint.id).collect();
        let is_full = !full.is_empty();
        if full.len() >= total {
            // There is no endpoint to which a further session could lead.
            return Acquired::Fail(AttemptError::full(Reason::RequestLimit));
        }
        // A further session might lead to an endpoint that is better than those that are known.
        let better = self.endpoints().len() < total || self.open.iter().any(|open| open.doubtful);
        let elsewhere = round < OPEN_ROUNDS && better && self.has_room();
        let in_vain = self.failed.filter(|_| round > 0);
        if (in_vain.is_some() || !elsewhere)
            && let Some(session) = self.choose_any(call, pick, most)
        {
            return Acquired::Use(session);
        }
        match in_vain {
            Some(error) => Acquired::Fail(error),
            None if round < OPEN_ROUNDS && self.has_room() => Acquired::Wait,
            // Sessions are open, but every one leads to an endpoint that this request must not use.
            None if is_full => Acquired::Fail(AttemptError::full(Reason::RequestLimit)),
            None => Acquired::Fail(AttemptError::connecting(Reason::NoReadyEndpoint)),
        }
    }

    /// The endpoints that a further session must not lead to, if one is to be opened now for an attempt that waits; it is
    /// counted as being opened.
    pub fn wanted_by(&mut self, call: &Call<'_>) -> Option<Vec<EndpointId>> {
        if self.is_opening() {
            return None;
        }
        self.begin();
        let tried = call.tried.endpoint_ids().cloned();
        let trusted = self.open.iter().filter(|open| !open.doubtful).map(|open| open.endpoint.id.clone());
        let exclude: BTreeSet<EndpointId> = tried.chain(trusted).collect();
        Some(exclude.into_iter().collect())
    }

    /// The gateways that a further session with `locality` should not lead through while there are others: those of the
    /// sessions that are open, and of those that fell silent a moment ago. If it has one endpoint, a further session takes the
    /// place of the one that is open, and may lead where that does.
    pub fn paths_to_avoid(&self, locality: &LocalityEndpoints, now: Timestamp) -> Vec<TunnelPath> {
        let silent = self.silent.iter().filter(|(_, since)| now.since(*since) < SILENT_FOR).map(|(path, _)| path);
        let beside = self.sessions().filter(|_| locality.total() > 1).filter_map(S::path);
        silent.chain(beside).cloned().collect()
    }

    /// The same, because there are too few sessions, or one grows old or doubtful; else, such a one goes whose replacement is
    /// open.
    pub fn replenish(&mut self, locality: &LocalityEndpoints, now: Timestamp) -> Option<Vec<EndpointId>> {
        if self.is_opening() {
            return None;
        }
        let old = self.open.iter().position(|open| open.doubtful || open.renew_at <= now);
        if self.open.len() > KEPT
            && let Some(old) = old
        {
            // Streams on it finish, because they hold it.
            self.open.swap_remove(old);
            return None;
        }
        // An endpoint that is the only one of its locality cannot be avoided: then one session has to do.
        let alone = self.open.len() == 1 && locality.total() <= 1;
        if old.is_none() && (self.open.len() >= KEPT || alone) {
            return None;
        }
        self.begin();
        // Not that of the session which it replaces: if all were named, the gateway of a locality that has no others could
        // only go against that, and might choose the endpoint of a session that stays.
        let stay = self.open.iter().enumerate().filter(|(place, _)| Some(*place) != old);
        Some(stay.map(|(_, open)| open.endpoint.id.clone()).collect())
    }

    /// A session is being opened, for another reason than the pool's own.
    pub fn begin(&mut self) {
        self.opening += 1;
    }

    /// An opening has ended, with a session or without. Then those who wait look again.
    pub fn end(&mut self, opened: Result<(Arc<Endpoint>, S), AttemptError>, now: Timestamp, rng: &mut fastrand::Rng) {
        self.give_up();
        match opened {
            Ok((endpoint, session)) => {
                self.failed = None;
                let renew_at = now + RENEW_AFTER + RENEW_AFTER.mul_f64(rng.f64());
                // Something has just passed there.
                let proven = self.open.iter_mut().filter(|open| open.session.path() == session.path());
                proven.for_each(|open| open.doubtful = false);
                self.open.push(Open { endpoint, session, renew_at, doubtful: false });
            }
            Err(error) => self.failed = Some(error),
        }
    }

    /// An opening was given up.
    pub fn give_up(&mut self) {
        self.opening = self.opening.saturating_sub(1);
    }

    /// Whether a session is being opened right now.
    pub const fn is_opening(&self) -> bool {
        self.opening > 0
    }

    /// The sessions that are open.
    pub fn sessions(&self) -> impl Iterator<Item = &S> {
        self.open.iter().map(|open| &open.session)
    }

    /// Lets go of the sessions that `keep` does not want. Requests that are under way on one finish, because they hold it.
    pub fn retain(&mut self, mut keep: impl FnMut(&S) -> bool) {
        self.open.retain(|open| keep(&open.session));
    }

    /// Forgets what has ended, and answers the paths of the sessions that fell silent. Nobody knows whether such a session's
    /// endpoint is gone or a gateway on its path: [`SessionPool::doubt`] it, here and wherever else the service is called.
    pub fn part_with_ended(&mut self, now: Timestamp) -> Vec<TunnelPath> {
        self.silent.retain(|(_, since)| now.since(*since) < SILENT_FOR);
        let ended = self.open.extract_if(.., |open| open.session.is_closed());
        let silent = ended.filter(|open| open.session.fell_silent());
        silent.filter_map(|open| open.session.path().cloned()).collect()
    }

    /// A session fell silent that led through `path`. If a gateway is gone, the others that lead through that will fall silent,
    /// too, and nothing new should find that out.
    pub fn doubt(&mut self, path: &TunnelPath, now: Timestamp) {
        let shares = |open: &Open<S>| open.session.path().is_some_and(|other| other.shares_gateway(path));
        self.open.iter_mut().filter(|open| shares(open)).for_each(|open| open.doubtful = true);
        self.silent.push((path.clone(), now));
    }

    fn endpoints(&self) -> BTreeSet<&EndpointId> {
        self.open.iter().map(|open| &open.endpoint.id).collect()
    }

    /// Whether one more may be opened.
    fn has_room(&self) -> bool {
        self.open.len() < MAX_OPEN
    }

    /// The sessions that can take a request more, where an endpoint has at most `most`; the `doubtful` ones only if wanted.
    fn usable(&self, most: u32, doubtful: bool) -> (Vec<Arc<Endpoint>>, Vec<&S>) {
        let usable = self.open.iter().filter(|open| doubtful || !open.doubtful);
        let usable = usable.filter(|open| open.session.has_room() && open.endpoint.active_requests() < most);
        usable.map(|open| (Arc::clone(&open.endpoint), &open.session)).unzip()
    }

    /// The best of the open sessions, or none that should be used.
    fn choose(
        &self,
        call: &Call<'_>,
        pick: &mut Pick,
        most: u32,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> Option<S> {
        let (mut endpoints, mut sessions) = self.usable(most, false);
        while !endpoints.is_empty() {
            let chosen = call.entry.service().choose(rng, now, &endpoints, call.tried, call.idempotent)?;
            let (endpoint, session) = (endpoints.swap_remove(chosen), sessions.swap_remove(chosen));
            if pick.bind(endpoint) {
                return Some(session.clone());
            }
        }
        None
    }

    /// Any of the open sessions, where there is nothing better.
    fn choose_any(&self, call: &Call<'_>, pick: &mut Pick, most: u32) -> Option<S> {
        let (mut endpoints, sessions) = self.usable(most, true);
        let chosen = call.entry.service().choose_any(&pick.locality, &endpoints, call.tried)?;
        pick.bind_anyway(endpoints.swap_remove(chosen));
        Some(sessions[chosen].clone())
    }
}

#[cfg(test)]
mod tests;
