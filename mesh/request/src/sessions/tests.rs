//! Which session carries an attempt, and when another is wanted.

use std::cell::Cell;
use std::rc::Rc;

use eastway_balance::Tried;
use eastway_core::trace::TraceContext;

use super::*;
use crate::testing::World;
use crate::traffic_policy::TrafficPolicy;

#[derive(Clone, Debug)]
struct Named {
    name: &'static str,
    path: TunnelPath,
    silent: Rc<Cell<bool>>,
}

impl Named {
    fn new(name: &'static str) -> Self {
        Self::through(name, 1, 1)
    }

    /// A session through a gateway of either cluster, by their numbers.
    fn through(name: &'static str, own: u8, other: u8) -> Self {
        let gateway = ([127, 0, 0, own], 15_443).into();
        Self { name, path: TunnelPath { gateway, via: Some(format!("eu-west/{other}")) }, silent: Rc::default() }
    }
}

impl PooledSession for Named {
    fn is_closed(&self) -> bool {
        self.silent.get() || self.name.starts_with("closed")
    }

    fn fell_silent(&self) -> bool {
        self.silent.get()
    }

    fn path(&self) -> Option<&TunnelPath> {
        Some(&self.path)
    }

    fn has_room(&self) -> bool {
        !self.name.starts_with("busy")
    }
}

/// A caller of a remote locality with so many endpoints.
struct Caller {
    world: World,
    pool: SessionPool<Named>,
    tried: Tried,
}

impl Caller {
    fn new(endpoints: &str) -> Self {
        Self::with(endpoints, TrafficPolicy::default())
    }

    fn with(endpoints: &str, policy: TrafficPolicy) -> Self {
        Self { world: World::new(endpoints, policy), pool: SessionPool::default(), tried: Tried::new() }
    }

    fn pick(&mut self) -> Pick {
        let World { entry, now, rng, .. } = &mut self.world;
        entry.service().pick(rng, *now, &Tried::new(), None, true).expect("a remote locality")
    }

    /// What the pool says to an attempt that waited for so many rounds, and the pick.
    fn ask(&mut self, round: usize) -> (Acquired<Named>, Pick) {
        let mut pick = self.pick();
        let World { entry, now, rng, .. } = &mut self.world;
        let traceparent = TraceContext::begin(None, false, false, &mut fastrand::Rng::with_seed(1)).traceparent();
        let call = Call { entry, port: 80, tried: &self.tried, idempotent: true, attempt: 1, traceparent };
        (self.pool.acquire(&call, &mut pick, round, *now, rng), pick)
    }

    fn wanted_by(&mut self) -> Option<Vec<EndpointId>> {
        let traceparent = TraceContext::begin(None, false, false, &mut fastrand::Rng::with_seed(1)).traceparent();
        let entry = &self.world.entry;
        let call = Call { entry, port: 80, tried: &self.tried, idempotent: true, attempt: 1, traceparent };
        self.pool.wanted_by(&call)
    }

    fn open(&mut self, name: &'static str) -> Arc<Endpoint> {
        self.open_session(Named::new(name))
    }

    fn open_session(&mut self, session: Named) -> Arc<Endpoint> {
        let pick = self.pick();
        let endpoint = self.world.entry.service().session(&pick.locality, &EndpointId::new(session.name));
        self.pool.begin();
        self.pool.end(Ok((Arc::clone(&endpoint), session)), self.world.now, &mut self.world.rng);
        endpoint
    }

    /// The name of the session that carries the next attempt; none if it waits.
    fn carrier(&mut self, round: usize) -> Option<&'static str> {
        match self.ask(round).0 {
            Acquired::Use(session) => Some(session.name),
            Acquired::Wait | Acquired::Fail(_) => None,
        }
    }

    fn replenish(&mut self) -> Option<Vec<String>> {
        let locality = Arc::clone(&self.pick().locality);
        let wanted = self.pool.replenish(&locality, self.world.now)?;
        Some(wanted.iter().map(ToString::to_string).collect())
    }

    fn avoided(&mut self) -> Vec<TunnelPath> {
        let locality = Arc::clone(&self.pick().locality);
        self.pool.paths_to_avoid(&locality, self.world.now)
    }

    fn wait(&mut self, wait: Duration) {
        self.world.now = self.world.now + wait;
    }
}

#[test]
fn the_first_attempts_wait_for_one_opening_that_they_share() {
    let mut caller = Caller::new("AAA");
    assert!(matches!(caller.ask(0).0, Acquired::Wait));
    assert_eq!(caller.wanted_by(), Some(vec![]));
    assert!(matches!(caller.ask(0).0, Acquired::Wait));
    assert_eq!(caller.wanted_by(), None, "one is being opened");
    let locality = Arc::clone(&caller.pick().locality);
    let endpoint = caller.world.entry.service().session(&locality, &EndpointId::new("x"));
    caller.pool.end(Ok((endpoint, Named::new("x"))), caller.world.now, &mut caller.world.rng);
    let (acquired, pick) = caller.ask(1);
    assert!(matches!(acquired, Acquired::Use(Named { name: "x", .. })));
    assert_eq!(pick.endpoint().map(|endpoint| endpoint.id.to_string()).as_deref(), Some("x"), "it is bound");
}

#[test]
fn an_opening_in_vain_ends_the_wait_and_tells_why() {
    let mut caller = Caller::new("AAA");
    caller.pool.begin();
    let error = AttemptError::connecting(Reason::PathDown);
    caller.pool.end(Err(error), caller.world.now, &mut caller.world.rng);
    assert!(matches!(caller.ask(0).0, Acquired::Wait), "another attempt tries anew");
    assert!(matches!(caller.ask(1).0, Acquired::Fail(failed) if failed == error));
    caller.pool.begin();
    caller.pool.give_up();
    assert!(!caller.pool.is_opening());
}

#[test]
fn two_sessions_to_distinct_endpoints_are_kept_and_one_where_there_is_one_endpoint() {
    let mut caller = Caller::new("AAA");
    caller.open("a");
    assert_eq!(caller.replenish(), Some(vec!["a".to_owned()]));
    caller.pool.give_up();
    caller.open("b");
    assert_eq!(caller.replenish(), None);
    let mut alone = Caller::new("A");
    alone.open("a");
    assert_eq!(alone.replenish(), None);
}

#[test]
fn who_replaces_a_session_avoids_the_endpoints_of_those_that_stay_and_no_other() {
    let mut caller = Caller::new("AA");
    caller.open("a");
    caller.wait(RENEW_AFTER / 2);
    caller.open("b");
    assert_eq!(caller.replenish(), None, "neither is old");
    while caller.replenish().is_none() {
        caller.wait(Duration::from_secs(1));
        assert!(caller.world.now.as_nanos() < Timestamp::from_millis(2_000_000).as_nanos(), "a grows old");
    }
    caller.pool.give_up();
    let wanted = caller.replenish().expect("a is old");
    assert!(wanted.len() == 1, "of two endpoints, one alone is distinct from the other: {wanted:?}");
    caller.pool.give_up();
    caller.open("c");
    assert_eq!(caller.replenish(), None);
    assert_eq!(caller.pool.sessions().count(), 2, "the old one went when its replacement was there");
}

#[test]
fn every_session_is_renewed_within_two_minutes_and_not_before_one() {
    let mut caller = Caller::new("A");
    caller.open("a");
    caller.wait(RENEW_AFTER - Duration::from_millis(1));
    assert_eq!(caller.replenish(), None);
    caller.wait(RENEW_AFTER + Duration::from_millis(2));
    assert_eq!(caller.replenish(), Some(vec![]), "the only endpoint is not avoided");
}

#[test]
fn a_session_that_is_closed_or_busy_carries_nothing() {
    let mut caller = Caller::new("AAA");
    caller.open("closed-a");
    caller.open("busy-b");
    assert!(matches!(caller.ask(0).0, Acquired::Wait));
    assert_eq!(caller.pool.sessions().count(), 1, "what is closed is forgotten");
    caller.open("c");
    assert!(matches!(caller.ask(0).0, Acquired::Use(Named { name: "c", .. })));
}

#[test]
fn what_was_tried_is_left_for_a_further_session_and_used_again_where_there_is_none() {
    let mut caller = Caller::new("AA");
    let tried = caller.open("a");
    caller.tried.push_endpoint(&tried);
    assert!(matches!(caller.ask(0).0, Acquired::Wait));
    assert_eq!(caller.wanted_by(), Some(vec![EndpointId::new("a")]));
    caller.pool.give_up();
    assert!(
        matches!(caller.ask(OPEN_ROUNDS).0, Acquired::Use(Named { name: "a", .. })),
        "it has waited for long enough"
    );
}

#[test]
fn endpoints_that_may_have_no_more_requests_are_told_as_a_limit() {
    let mut caller = Caller::with("A", TrafficPolicy { endpoint_requests: 1, ..TrafficPolicy::default() });
    caller.open("a");
    let (first, _pick) = caller.ask(0);
    assert!(matches!(first, Acquired::Use(_)));
    let (second, _) = caller.ask(0);
    assert!(matches!(second, Acquired::Fail(error) if error == AttemptError::full(Reason::RequestLimit)));
    let mut several = Caller::with("AAA", TrafficPolicy { endpoint_requests: 1, ..TrafficPolicy::default() });
    several.open("a");
    let (_, _pick) = several.ask(0);
    assert!(matches!(several.ask(0).0, Acquired::Wait), "a further session may lead elsewhere");
    assert!(matches!(several.ask(OPEN_ROUNDS).0, Acquired::Fail(error) if error.reason == Reason::RequestLimit));
}

#[test]
fn no_more_than_eight_are_opened() {
    let mut caller = Caller::new("AAAAAAAAAAAA");
    for name in ["busy-1", "busy-2", "busy-3", "busy-4", "busy-5", "busy-6", "busy-7", "busy-8"] {
        assert!(matches!(caller.ask(0).0, Acquired::Wait));
        caller.open(name);
    }
    assert!(matches!(caller.ask(0).0, Acquired::Fail(error) if error.reason == Reason::NoReadyEndpoint));
}

#[test]
fn when_a_session_falls_silent_nothing_new_goes_by_one_that_shares_a_gateway_with_it() {
    let mut caller = Caller::new("AAA");
    let session = Named::through("a", 1, 1);
    caller.open_session(session.clone());
    caller.open_session(Named::through("b", 2, 1));
    caller.open_session(Named::through("c", 2, 2));
    session.silent.set(true);
    assert_eq!((0..20).find_map(|_| caller.carrier(0).filter(|name| *name != "c")), None);
    let avoided = caller.avoided();
    assert!(avoided.len() == 3 && avoided.contains(&session.path), "{avoided:?}");
    // It is replaced like one that is old.
    assert_eq!(caller.replenish(), Some(vec!["c".to_owned()]));
    caller.pool.give_up();
    caller.open_session(Named::through("d", 3, 3));
    assert_eq!(caller.replenish(), None);
    assert_eq!(caller.pool.sessions().filter(|session| ["c", "d"].contains(&session.name)).count(), 2);
    caller.wait(SILENT_FOR);
    assert_eq!(caller.avoided().len(), 2);
}

#[test]
fn where_every_session_is_in_doubt_a_new_one_is_waited_for_and_one_on_the_same_path_ends_the_doubt() {
    let mut caller = Caller::new("AA");
    let session = Named::through("a", 1, 1);
    caller.open_session(session.clone());
    caller.open_session(Named::through("b", 1, 1));
    session.silent.set(true);
    assert!(matches!(caller.ask(0).0, Acquired::Wait));
    assert_eq!(caller.wanted_by(), Some(vec![]), "the endpoint of one that is in doubt is as good as any");
    caller.pool.end(Err(AttemptError::connecting(Reason::PathDown)), caller.world.now, &mut caller.world.rng);
    assert_eq!(caller.carrier(1), Some("b"), "it is better than none");
    assert!(matches!(caller.ask(0).0, Acquired::Wait));
    caller.open_session(Named::through("c", 1, 1));
    assert!((0..50).any(|_| caller.carrier(0) == Some("b")));
}

#[test]
fn what_fell_silent_on_the_way_to_another_locality_is_in_doubt_here_too() {
    let mut caller = Caller::new("A");
    caller.open_session(Named::through("a", 1, 1));
    assert_eq!((caller.carrier(0), caller.avoided()), (Some("a"), vec![]), "one endpoint, one session");
    let elsewhere = Named::through("elsewhere", 2, 1);
    let mut other = Caller::new("A");
    other.open_session(elsewhere.clone());
    assert_eq!(other.pool.part_with_ended(other.world.now), vec![]);
    elsewhere.silent.set(true);
    let silent = other.pool.part_with_ended(other.world.now);
    assert_eq!(silent, vec![elsewhere.path]);
    caller.pool.doubt(&silent[0], caller.world.now);
    assert!(matches!(caller.ask(0).0, Acquired::Wait), "a gateway lies on both paths");
    assert_eq!((caller.wanted_by(), caller.avoided()), (Some(vec![]), silent));
    caller.pool.give_up();
    caller.open_session(Named::through("b", 2, 2));
    assert_eq!(caller.carrier(0), Some("b"));
}
