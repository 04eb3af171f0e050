//! Routes and filters on the way of a request.

use std::num::NonZeroU32;

use super::*;
use crate::filter::RateLimit;

fn route(prefix: &str, filters: Vec<Filter>) -> Route {
    let prefix = RequestMatch { path_prefix: Some(prefix.to_owned()), ..RequestMatch::default() };
    Route { matches: vec![prefix], filters }
}

fn abort(status: u16) -> Filter {
    Filter::Fault(InjectedFault { abort: Some(FaultAbort::new(100.0, status)), ..InjectedFault::default() })
}

fn delay(delay: Duration) -> Filter {
    let delay = Some(FaultDelay { percentage: 100.0, delay });
    Filter::Fault(InjectedFault { delay, ..InjectedFault::default() })
}

#[test]
fn a_table_of_two_routes_needs_no_new_mechanism() {
    let mut world = World::new("a", TrafficPolicy::default());
    let team = HeaderEdits::new(vec![Edit::Set("x-team".into(), "cart".into())], vec![Edit::Drop("server".into())]);
    let cart = route("/cart", vec![Filter::Headers(team.expect("its own"))]);
    world.entry.set_routes(RouteTable::new([cart, route("/legacy", vec![abort(410)])]));
    let mut ended = |target| play(&mut world, &head("GET", target, &()), &BodyState::NONE, &[Answers(200)]);
    assert_eq!(ended("/cart/1"), "passed: 200");
    assert_eq!(ended("/legacy"), "refused: 410 fault_injected");
    assert_eq!(ended("/else"), "refused: 404 no_route");
}

#[test]
fn a_route_changes_heads_both_ways() {
    let mut world = World::new("a", TrafficPolicy::default());
    let edits = HeaderEdits::new(
        vec![Edit::Set("x-team".into(), "cart".into())],
        vec![Edit::Set("x-served-by".into(), "cart".into())],
    );
    world.entry.set_routes(RouteTable::new([route("/", vec![Filter::Headers(edits.expect("its own"))])]));
    let (options, recorder, head) = (Arc::clone(&world.options), world.recorder.clone(), head("GET", "/", &()));
    let mut request = Outbound::begin(&recorder, &options, &head, world.now, &mut world.rng);
    request.step(world.now, &mut world.rng);
    request.resolved(Ok(Arc::clone(&world.entry)), &head, world.now, &mut world.rng);
    let Step::Attempt(pick) = request.step(world.now, &mut world.rng) else { panic!("somebody serves") };
    let out: Vec<Edit> = request.edits(world.now).into_iter().collect();
    assert!(out.contains(&Edit::Set("x-team".into(), "cart".into())), "{out:?}");
    let judged = request.judge(&ResponseHead { status: 200, fields: &() }, None, world.now).expect("an answer");
    let passes = request.answered(pick, &judged, &BodyState::NONE, world.now, &mut world.rng);
    let back: Vec<Edit> = passes.expect("it passes").0.into_iter().collect();
    assert!(back.contains(&Edit::Set("x-served-by".into(), "cart".into())), "{back:?}");
}

#[test]
fn an_injected_fault_is_charged_to_nobody_and_attempts_nothing() {
    let mut world = World::new("a", TrafficPolicy::default());
    world.entry.set_routes(RouteTable::new([route("/", vec![abort(503)])]));
    for _ in 0..100 {
        play(&mut world, &head("GET", "/", &()), &BodyState::NONE, &[]);
    }
    let lines = world.recorder.take();
    assert_eq!(lines.len(), 100, "no attempt was made");
    assert!(lines.iter().all(|line| line == "request: 503 fault_injected"));
    world.entry.set_routes(RouteTable::default());
    let ended = play(&mut world, &head("GET", "/", &()), &BodyState::NONE, &[Answers(200)]);
    assert_eq!(ended, "passed: 200", "the endpoint serves as before");
}

#[test]
fn a_delay_is_waited_before_anybody_is_asked_and_before_the_nodes_own_limit_begins() {
    let mut world = World::new("a", TrafficPolicy::default());
    world.entry.set_routes(RouteTable::new([route("/", vec![delay(Duration::from_secs(20))])]));
    let began = world.now;
    let ended = play(&mut world, &head("GET", "/", &()), &BodyState::NONE, &[TimesOut]);
    assert_eq!(ended, "refused: 504 response_timeout");
    let took = world.now.since(began);
    assert!(took >= Duration::from_secs(35), "the limit of 15 s is for the endpoint: {took:?}");
}

#[test]
fn a_delay_beyond_the_callers_own_deadline_is_the_operators_doing() {
    let mut world = World::new("a", TrafficPolicy::default());
    world.entry.set_routes(RouteTable::new([route("/", vec![delay(Duration::from_secs(2))])]));
    let fields: &[(&str, &[u8])] = &[("x-envoy-expected-rq-timeout-ms", b"1000")];
    let ended = play(&mut world, &head("GET", "/", &fields), &BodyState::NONE, &[]);
    assert_eq!(ended, "refused: 504 fault_injected");
}

#[test]
fn what_exceeds_a_rate_is_told_when_to_come_again() {
    let mut world = World::new("a", TrafficPolicy::default());
    let number = |number| NonZeroU32::new(number).expect("not zero");
    let limit = RateLimit::new(number(1), Duration::from_secs(1), number(2)).expect("long enough");
    world.entry.set_routes(RouteTable::new([route("/", vec![Filter::RateLimit(limit)])]));
    let ended = |world: &mut World| play(world, &head("GET", "/", &()), &BodyState::NONE, &[Answers(200)]);
    assert_eq!([ended(&mut world), ended(&mut world)], ["passed: 200", "passed: 200"]);
    let refused = ended(&mut world);
    assert!(refused.starts_with("refused: 429 rate_limited after 99"), "{refused}");
    world.now = world.now + Duration::from_secs(1);
    assert_eq!(ended(&mut world), "passed: 200");
}
