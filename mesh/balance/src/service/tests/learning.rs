//! What a decision object learns from what happens, and what it keeps to while it ramps.

use std::collections::BTreeSet;
use std::time::Duration;

use eastway_core::{Attribution, EndpointId, LoadReport, ServiceName};
use eastway_resilience::{ChargedFailure, Outcome};

use super::harness::*;
use crate::{Class, Policy, Tried};

#[test]
fn the_budgets_of_a_service_follow_the_operators_numbers() {
    let mut world = World::new(&[("a", 1)]);
    std::sync::Arc::make_mut(&mut world.view.spec.policy).retries.min_per_second = Some(7);
    world.update();
    let now = world.now;
    for budget in [world.service.retry_budget(), world.service.cross_region_budget()] {
        assert_eq!(budget.allowance(now), 70);
    }
    assert!(world.service.retry_budget().try_retry(now));
    assert_eq!((world.service.retry_budget().used(now), world.service.cross_region_budget().used(now)), (1, 0));
}

#[test]
fn the_median_is_that_of_the_latencies_that_are_known() {
    let mut world = World::new(&[("a", 5)]);
    for (id, millis) in [("a-00000", 10), ("a-00001", 40)] {
        let pick = world.pick_of(id);
        world.finish(&pick, Outcome::success(Duration::from_millis(millis)));
    }
    world.wait(Duration::from_secs(1));
    let counts = world.counts(1_000);
    assert_eq!(counts.get("a-00001"), None, "three times the median loses to everybody: {counts:?}");
}

#[test]
fn picks_that_pass_the_table_by_keep_to_the_ramp_as_well() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    world.change("a-", |endpoint| endpoint.health = eastway_core::Health::Unready);
    world.update();
    world.change("a-", |endpoint| endpoint.health = eastway_core::Health::Ready);
    world.update();
    world.wait(Duration::from_secs(6));
    let (tried, cluster) = (Tried::new(), Some("us-east"));
    let near = (0..2_000)
        .filter(|_| {
            let pick = world.service.pick(&mut world.rng, world.now, &tried, cluster, true).expect("a pick");
            &*pick.locality.zone.zone == "a"
        })
        .count();
    // 6 of 30 s: a fifth of its hosts, times what a priority may take beyond.
    assert!((400..750).contains(&near), "{near} of 2000 went to the zone that ramps");
}

#[test]
fn the_usual_error_rate_is_learnt_also_while_an_endpoint_starts_slowly() {
    let mut world = World::new(&[("a", 2), ("b", 2)]);
    let failure = ChargedFailure { attribution: Attribution::Upstream5xx, down: false };
    for i in 0..400 {
        let pick = world.pick_of("b-00000");
        let bad = Outcome { class: Class::Failure(failure), latency: Some(LATENCY), load: None };
        world.finish(&pick, if i % 20 == 0 { bad } else { success() });
    }
    world.change("a-00000", |endpoint| endpoint.incarnation += 1);
    world.update();
    world.wait(Duration::from_secs(2));
    let p0 = world.service.view.plan.load().localities[0].state.p0();
    assert!((p0 - 0.05).abs() < 0.001, "the other locality fails 5 %, and {p0} is what is usual");
}

#[test]
fn a_session_brings_the_load_of_its_endpoint() {
    let mut world = World::new(&[]);
    world.add_remote("eu-west/a", "eu", 2);
    world.update();
    let locality = world.service.localities()[0].0.clone();
    let endpoint = world.service.session(&locality, &EndpointId::new("p-1"));
    world.service.report(
        &endpoint,
        LoadReport { active_requests: 7, utilisation: Some(0.5), error_rate: 0.0 },
        world.now,
    );
    assert_eq!((endpoint.others(), endpoint.utilisation()), (7.0, Some(0.5)));
}

#[test]
fn services_and_nodes_do_not_share_their_jitter() {
    let seed = |service: &str, seed| {
        crate::service::seed(&ServiceName::new("shop", service), &Policy { seed, ..Policy::default() })
    };
    let nodes: BTreeSet<u64> = (0..64).map(|bit| seed("payments", 1 << bit)).chain([seed("payments", 0)]).collect();
    assert_eq!(nodes.len(), 65, "every bit of a node's seed counts");
    let services: BTreeSet<u64> = (0..1_000).map(|i| seed(&format!("payments-{i}"), 1)).collect();
    assert_eq!(services.len(), 1_000);
    let bits = services.iter().map(|seed| seed.count_ones()).sum::<u32>();
    assert!((30_000..34_000).contains(&bits), "{bits} of 64,000 bits");
}
