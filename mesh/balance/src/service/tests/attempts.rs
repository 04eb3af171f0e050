//! What answers and failures of one request mean for its next attempt, for budgets and for breakers.

use std::time::Duration;

use eastway_core::Reason;
use eastway_resilience::attempts::{AttemptEnd, Decision, GiveUp, Repeatable, RetryPolicy};
use eastway_resilience::deadline::Deadline;
use eastway_resilience::{Fault, Progress};

use super::harness::*;
use crate::{AttemptError, Attempts, Outcome, Pick};

fn get() -> Attempts {
    Attempts::new(true, Deadline::NONE)
}

fn begin(attempts: &mut Attempts, world: &mut World) -> Pick {
    attempts.pick(&world.service, None, &mut world.rng, world.now).expect("somebody serves")
}

fn fail(attempts: &mut Attempts, world: &World, pick: &Pick, error: AttemptError) -> AttemptEnd {
    attempts.failed(&world.service, pick, &error, LATENCY, world.now)
}

fn next(attempts: &mut Attempts, world: &mut World, end: &AttemptEnd) -> Decision {
    let policy = RetryPolicy { attempts: 10, attempts_in_all: 10, ..RetryPolicy::default() };
    attempts.next(&world.service, &policy, end, &mut world.rng, world.now)
}

#[test]
fn only_an_answer_that_another_may_better_is_kept_back() {
    let mut world = World::new(&[("a", 2)]);
    for (idempotent, status, kept_back) in [
        (true, 200, false),
        (true, 404, false),
        (true, 500, false),
        (true, 501, false),
        (true, 502, true),
        (true, 503, true),
        (true, 504, true),
        (true, 505, false),
        (false, 503, false),
    ] {
        let mut attempts = Attempts::new(idempotent, Deadline::NONE);
        let pick = begin(&mut attempts, &mut world);
        let endpoint = pick.endpoint().expect("local").clone();
        let outcome = Outcome::status(status, LATENCY);
        let end = attempts.answered(&world.service, &pick, status, outcome, world.now);
        assert_eq!(end.is_some(), kept_back, "{status}");
        assert_eq!(attempts.tried().has_endpoint(&endpoint), kept_back, "{status}");
        assert!(!attempts.tried().has_locality(&pick.locality.zone), "{status}");
        if let Some(end) = end {
            let expected = AttemptEnd {
                progress: Progress::Answered,
                fault: Fault::Stated,
                repeatable: Repeatable::Always,
                ..end
            };
            assert_eq!(end, expected);
        }
    }
}

#[test]
fn an_answer_that_is_kept_back_is_charged_at_once() {
    let mut world = World::new(&[("a", 2)]);
    let mut attempts = get();
    let pick = begin(&mut attempts, &mut world);
    let endpoint = pick.endpoint().expect("local").clone();
    assert_eq!(endpoint.others(), 0.0);
    attempts.answered(&world.service, &pick, 503, Outcome::status(503, LATENCY), world.now).expect("kept back");
    assert!(endpoint.others() > 0.0, "a failure counts as load");
}

#[test]
fn what_failed_says_what_is_left() {
    let blameless = AttemptError::said(Reason::UpstreamReset).blameless();
    for (failed, endpoint, locality, cluster) in [
        (AttemptError::said(Reason::ResponseTimeout), true, false, false),
        (AttemptError::gone(Reason::ConnectFailed), true, true, false),
        (AttemptError::connecting(Reason::NoReadyEndpoint), true, true, false),
        (AttemptError::connecting(Reason::PathDown), true, false, true),
        (AttemptError::said(Reason::Overloaded), true, false, true),
        (AttemptError::silent(), true, true, false),
        (AttemptError::full(Reason::RequestLimit), true, false, false),
        (AttemptError::gone(Reason::ConnectFailed).blameless(), true, false, false),
        (blameless, true, false, false),
    ] {
        let mut world = World::new(&[("a", 2)]);
        let mut attempts = get();
        let pick = begin(&mut attempts, &mut world);
        let end = fail(&mut attempts, &world, &pick, failed);
        let tried = attempts.tried();
        let avoided = (
            tried.has_endpoint(pick.endpoint().expect("local")),
            tried.has_locality(&pick.locality.zone),
            tried.has_cluster(&pick.locality.zone.cluster),
        );
        assert_eq!(avoided, (endpoint, locality, cluster), "{failed:?}");
        let told = (end.progress, end.fault, end.repeatable);
        assert_eq!(told, (failed.progress, failed.fault, Repeatable::Always), "{failed:?}");
    }
}

#[test]
fn requests_earn_retries_once_each_from_both_budgets() {
    let mut world = World::new(&[("a", 2)]);
    let mut attempts = get();
    for _ in 0..400 {
        begin(&mut attempts, &mut world);
    }
    assert_eq!(attempts.begun(), 400);
    for _ in 0..199 {
        begin(&mut get(), &mut world);
    }
    for budget in [world.service.retry_budget(), world.service.cross_region_budget()] {
        assert_eq!(budget.allowance(world.now), 20);
    }
}

#[test]
fn failures_and_answers_are_counted_for_the_budget() {
    let mut world = World::new(&[("a", 2)]);
    let budget = |world: &World| world.service.retry_budget().mostly_failing(world.now);
    for _ in 0..9 {
        let mut attempts = get();
        let pick = begin(&mut attempts, &mut world);
        attempts.answered(&world.service, &pick, 500, Outcome::status(500, LATENCY), world.now);
    }
    assert!(!budget(&world), "too few to say");
    let mut attempts = get();
    let pick = begin(&mut attempts, &mut world);
    fail(&mut attempts, &world, &pick, AttemptError::said(Reason::UpstreamReset));
    assert!(budget(&world));
    for _ in 0..10 {
        let mut attempts = get();
        let pick = begin(&mut attempts, &mut world);
        fail(&mut attempts, &world, &pick, AttemptError::full(Reason::RequestLimit));
    }
    assert!(!budget(&world), "the blameless failures are none");
}

#[test]
fn a_retry_that_must_leave_the_region_needs_the_other_budget_too() {
    let mut world = World::new(&[("a", 1), ("b", 1)]);
    world.add_remote("eu-west/a", "eu", 2);
    world.change("b-", |e| e.health = eastway_core::Health::Unready);
    world.update();
    let (mut attempts, now) = (get(), world.now);
    let pick = begin(&mut attempts, &mut world);
    assert_eq!(World::name(&pick), "a-00000");
    let end = fail(&mut attempts, &world, &pick, AttemptError::said(Reason::ResponseTimeout));
    while world.service.cross_region_budget().try_retry(now) {}
    assert!(matches!(next(&mut attempts, &mut world, &end), Decision::Retry { .. }), "its locality is still there");
    assert_eq!(world.service.retry_budget().used(now), 1);
    let end = fail(&mut attempts, &world, &pick, AttemptError::silent());
    assert_eq!(next(&mut attempts, &mut world, &end), Decision::GiveUp(GiveUp::Budget), "zone b has no share");
    assert_eq!(world.service.retry_budget().used(now), 1, "and it costs the service's own budget nothing");
    world.change("b-", |e| e.health = eastway_core::Health::Ready);
    world.update();
    let zone_b = world.share("us-east/b");
    assert_eq!(zone_b, 0, "it is not needed while zone a is well");
}

#[test]
fn the_deadline_of_the_request_ends_its_attempts() {
    let mut world = World::new(&[("a", 2)]);
    let mut attempts = Attempts::new(true, Deadline::after(Duration::from_millis(5), world.now));
    assert_eq!(attempts.deadline().at(), Some(world.now + Duration::from_millis(5)));
    let pick = begin(&mut attempts, &mut world);
    let end = fail(&mut attempts, &world, &pick, AttemptError::silent());
    let late = AttemptEnd { retry_after: Some(Duration::from_millis(6)), ..end };
    assert_eq!(next(&mut attempts, &mut world, &late), Decision::GiveUp(GiveUp::Deadline));
    assert_eq!(next(&mut get(), &mut world, &end), Decision::Retry { after: Duration::ZERO });
}

#[test]
fn a_probe_costs_no_attempt() {
    let mut world = World::new(&[("a", 2)]);
    world.attempts_on("a-00000", 1, refused());
    world.wait(Duration::from_secs(10));
    let mut attempts = get();
    let pick = begin(&mut attempts, &mut world);
    assert!(pick.probe);
    let end = fail(&mut attempts, &world, &pick, AttemptError::gone(Reason::ConnectFailed));
    assert!(end.probe);
    let mut attempts = Attempts::new(false, Deadline::NONE);
    assert!(!begin(&mut attempts, &mut world).probe, "what must not be repeated tries nothing");
    assert!(!attempts.idempotent() && get().idempotent());
}

#[test]
fn a_path_that_was_left_leaves_its_region_too() {
    let mut world = World::new(&[]);
    world.add_remote("us-west/a", "us", 2);
    world.add_remote("eu-west/a", "eu", 2);
    world.update();
    let mut attempts = get();
    let pick = begin(&mut attempts, &mut world);
    assert_eq!(&*pick.locality.zone.cluster, "us-west");
    let now = world.now;
    while world.service.cross_region_budget().try_retry(now) {}
    let end = fail(&mut attempts, &world, &pick, AttemptError::said(Reason::TunnelLost));
    assert_eq!(next(&mut attempts, &mut world, &end), Decision::GiveUp(GiveUp::Budget));
}

#[test]
fn the_first_retry_waits_unless_it_goes_to_another_locality() {
    let mut world = World::new(&[("a", 2)]);
    let waits = |world: &mut World, failed: AttemptError| {
        (0..50).any(|_| {
            let mut attempts = get();
            let pick = begin(&mut attempts, world);
            let end = fail(&mut attempts, world, &pick, failed);
            matches!(next(&mut attempts, world, &end), Decision::Retry { after } if !after.is_zero())
        })
    };
    assert!(waits(&mut world, AttemptError::said(Reason::ResponseTimeout)), "another endpoint of the locality");
    assert!(waits(&mut world, AttemptError::connecting(Reason::TlsFailed)), "the only locality");
    assert!(!waits(&mut world, AttemptError::said(Reason::UpstreamReset).blameless()), "nobody is to blame");
    world.add("b-0", "b", 1.0);
    world.change("b-", |e| e.health = eastway_core::Health::Warming);
    world.update();
    assert!(waits(&mut world, AttemptError::connecting(Reason::TlsFailed)), "the other locality has nobody");
    world.change("b-", |e| e.health = eastway_core::Health::Ready);
    world.update();
    assert!(!waits(&mut world, AttemptError::connecting(Reason::TlsFailed)), "another locality");
}

#[test]
fn a_retry_that_must_avoid_the_only_endpoint_says_nothing_of_its_locality() {
    let nobody = AttemptError::connecting(Reason::NoReadyEndpoint);
    for (avoiding, expected) in [(true, "closed"), (false, "open")] {
        let mut world = World::new(&[]);
        world.add_remote("us-west/a", "us", 1);
        world.update();
        for _ in 0..50 {
            let mut attempts = get();
            let mut pick = begin(&mut attempts, &mut world);
            if avoiding {
                let endpoint = world.service.session(&pick.locality, &eastway_core::EndpointId::new("only"));
                assert!(pick.bind(endpoint));
                fail(&mut attempts, &world, &pick, AttemptError::said(Reason::UpstreamReset).blameless());
                let retry = begin(&mut attempts, &mut world);
                let end = fail(&mut attempts, &world, &retry, nobody);
                assert_eq!(next(&mut attempts, &mut world, &end), Decision::GiveUp(GiveUp::Attempts));
            } else {
                fail(&mut attempts, &world, &pick, nobody);
            }
        }
        let localities = &world
            .service
            .explain(world.now)
            .priorities
            .into_iter()
            .flat_map(|priority| priority.localities)
            .collect::<Vec<_>>();
        assert_eq!(localities[0].breaker, expected, "avoiding an endpoint: {avoiding}");
    }
}
