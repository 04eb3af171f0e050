//! The invariants of the formulas, as they hold for a service with its endpoints and clusters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::policy::Mode;
use eastway_core::{Health, Reason};
use proptest::prelude::*;

use super::harness::*;
use crate::shares::S;
use crate::situation::{Loss, Question};
use crate::{Outcome, Policy, Tried};

/// Endpoints by zone: weight and health. Zone a is the first priority, b and c are the second.
type Endpoints = Vec<(usize, u8, Health)>;

fn any_endpoints() -> impl Strategy<Value = Endpoints> {
    let health =
        prop::sample::select(vec![Health::Ready, Health::Ready, Health::Unready, Health::Draining, Health::Warming]);
    prop::collection::vec((0usize..3, 1u8..6, health), 1..14)
}

/// Ready, degraded and other endpoints of two zones of eu-west and one of ap.
type Remotes = [[u32; 3]; 3];

fn any_remotes() -> impl Strategy<Value = Remotes> {
    prop::array::uniform3(prop::array::uniform3(0u32..4))
}

fn build(endpoints: &Endpoints, remotes: &Remotes, scale: f64) -> World {
    populate(World::new(&[]), endpoints, remotes, scale)
}

fn populate(mut world: World, endpoints: &Endpoints, remotes: &Remotes, scale: f64) -> World {
    for (i, (zone, weight, health)) in endpoints.iter().enumerate() {
        let zone = ["a", "b", "c"][*zone];
        let id = format!("{zone}-{i:05}");
        world.add(&id, zone, f64::from(*weight) * scale);
        world.change(&id, |e| e.health = *health);
    }
    for (id, [ready, degraded, other]) in ["eu-west/a", "eu-west/b", "ap/a"].iter().zip(remotes) {
        world.add_remote(id, if id.starts_with("ap") { "ap" } else { "eu" }, ready + degraded + other);
        (world.summary(id).ready, world.summary(id).degraded) = (*ready, *degraded);
    }
    world.peer("eu-west").min_rtt = Some(Duration::from_millis(80));
    world.peer("ap").min_rtt = Some(Duration::from_millis(180));
    world.update();
    world
}

/// The share of each priority, and whether any panics.
fn priorities(world: &World) -> (Vec<u32>, bool) {
    let localities = world.service.localities();
    let count = localities.iter().map(|(locality, _)| locality.priority + 1).max().unwrap_or(0);
    let mut priorities = vec![0; count];
    localities.iter().for_each(|(locality, share)| priorities[locality.priority] += share);
    (priorities, world.service.explain(world.now).priorities.iter().any(|priority| priority.panic))
}

proptest! {
    /// Invariant 2: an endpoint that fails, in whatever way, never raises the share of its priority, nor lowers what all
    /// lower priorities have together.
    #[test]
    fn a_failing_endpoint_moves_traffic_down_only(
        endpoints in any_endpoints(), remotes in any_remotes(), which in any::<prop::sample::Index>(), way in 0u8..3,
    ) {
        let mut world = build(&endpoints, &remotes, 1.0);
        let ready: Vec<_> = world.view.endpoints.iter().filter(|e| e.health == Health::Ready).cloned().collect();
        if ready.is_empty() {
            return Ok(());
        }
        let failing = which.get(&ready);
        let locality = world.service.localities().into_iter().find(|(locality, _)| locality.zone.zone == failing.zone && !locality.remote);
        let priority = locality.expect("its locality").0.priority;
        let (before, panic) = priorities(&world);
        match way {
            0 => world.change(failing.id.as_str(), |e| e.health = Health::Unready),
            1 => world.attempts_on(failing.id.as_str(), 1, refused()),
            _ => world.attempts_on(failing.id.as_str(), 4, error()),
        }
        world.update();
        let (after, panic_now) = priorities(&world);
        if panic || panic_now {
            return Ok(());
        }
        let below = |priorities: &[u32]| priorities[priority + 1..].iter().sum::<u32>();
        // Rounding: at most one unit for each of the parts that are summed.
        prop_assert!(after[priority] <= before[priority] + 2, "priority {priority}: {before:?} to {after:?}");
        prop_assert!(below(&after) + 4 >= below(&before), "below {priority}: {before:?} to {after:?}");
    }

    /// Invariant 4: neither the order in which endpoints, zones and clusters are listed, nor the unit of weights matters.
    #[test]
    fn listings_and_units_do_not_matter(
        endpoints in any_endpoints(), remotes in any_remotes(), hundredths in 1u32..5_000, seed in any::<u64>(),
    ) {
        let world = build(&endpoints, &remotes, 1.0);
        let expected = world.shares();
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut shuffled = build(&endpoints, &remotes, 1.0);
        rng.shuffle(&mut shuffled.view.endpoints);
        rng.shuffle(&mut shuffled.view.remote);
        rng.shuffle(&mut shuffled.mesh.peers);
        let mut fresh = World::new(&[]);
        (fresh.mesh, fresh.view) = (shuffled.mesh, shuffled.view);
        fresh.update();
        prop_assert_eq!(&fresh.shares(), &expected);
        // Sums are kept in thousandths, so a hundredth of these weights is still exact.
        let scale = f64::from(hundredths) / 100.0;
        let scaled = build(&endpoints, &remotes, scale).shares();
        for (zone, share) in &expected {
            prop_assert!(scaled[zone].abs_diff(*share) <= 1, "{:?} times {} is {:?}", &expected, scale, scaled);
        }
    }

    /// Invariant 4: which of a locality's endpoints has which weight and health does not matter either.
    #[test]
    fn names_do_not_matter(endpoints in any_endpoints(), remotes in any_remotes(), seed in any::<u64>()) {
        let mut renamed = endpoints.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut renamed);
        prop_assert_eq!(build(&endpoints, &remotes, 1.0).shares(), build(&renamed, &remotes, 1.0).shares());
    }

    /// Invariant 6: an endpoint that shows a wrong identity is never picked again, not even in a panic; and a pick carries
    /// the accounts that its own cluster states, whatever they were before.
    #[test]
    fn a_wrong_identity_is_never_picked(
        endpoints in any_endpoints(), wrong in prop::collection::vec(any::<prop::sample::Index>(), 1..6), seed in any::<u64>(),
    ) {
        let mut world = build(&endpoints, &[[1, 1, 1], [0, 1, 0], [1, 0, 0]], 1.0);
        world.rng = fastrand::Rng::with_seed(seed);
        let ids: Vec<String> = world.view.endpoints.iter().map(|e| e.id.to_string()).collect();
        let wrong: Vec<&String> = wrong.iter().map(|index| index.get(&ids)).collect();
        wrong.iter().for_each(|id| world.attempts_on(id, 1, Outcome::down(Reason::WrongIdentity)));
        world.view.spec.accounts = ["billing".to_owned()].into();
        world.view.remote[1].accounts = ["b".to_owned(), "c".to_owned()].into();
        world.update();
        let own = [vec!["billing".to_owned()], vec!["payments".to_owned()], vec!["b".to_owned(), "c".to_owned()]];
        let mut tried = Tried::new();
        for _ in 0..60 {
            let pick = world.service.pick(&mut world.rng, world.now, &tried, None, true).expect("clusters beyond");
            let expected = match pick.locality.zone.to_string().as_str() {
                "eu-west/b" => &own[2],
                zone if zone.starts_with("us-east") => &own[0],
                _ => &own[1],
            };
            prop_assert_eq!(&*pick.locality.accounts, expected.as_slice());
            let Some(endpoint) = pick.endpoint() else {
                tried.push_locality(&pick.locality.zone);
                continue;
            };
            prop_assert!(!wrong.iter().any(|id| **id == endpoint.id.as_str()), "{} again", endpoint.id);
            tried.push_endpoint(endpoint);
        }
    }

    /// What `what-if` says of a zone's loss is what picks do once it is lost, also where every priority panics.
    #[test]
    fn what_is_predicted_of_a_loss_is_what_happens(
        endpoints in any_endpoints(), remotes in any_remotes(), lost in any::<prop::sample::Index>(), compatible in any::<bool>(),
    ) {
        let mode = if compatible { Mode::Envoy } else { Mode::Native };
        let world = World::with_policy(&[], Policy { mode, ..Policy::default() });
        let mut world = populate(world, &endpoints, &remotes, 1.0);
        let zone = ["a", "b", "c"][endpoints[lost.index(endpoints.len())].0];
        let question = Question { losses: vec![Loss::Locality(format!("us-east/{zone}"))], load: 1.0 };
        let predicted = world.service.what_if(&question).expect("the zone is there").division.priorities;
        world.change(zone, |e| if e.health != Health::Warming { e.health = Health::Down });
        world.update();
        let told = world.service.explain(world.now).priorities;
        let told: BTreeMap<_, _> = told.iter().flat_map(|t| &t.localities).map(|l| (l.name.to_string(), l.share)).collect();
        let predicted: BTreeMap<_, _> =
            predicted.into_iter().flat_map(|priority| priority.localities).map(|locality| (locality.name, locality.share)).collect();
        prop_assert_eq!(predicted, told);
    }

    /// Invariant 12: a returning locality never has more than its ramp while another locality can serve, nor more than its
    /// target unless a nearer one still ramps, and it has its target within 35 s, whatever the jitter of this node is.
    #[test]
    fn returning_localities_keep_to_their_ramps(
        counts in prop::array::uniform3(1usize..5), returns in prop::collection::btree_set(0usize..3, 1..4),
        seed in any::<u64>(), down in 1u64..20,
    ) {
        let zones: Vec<_> = ["a", "b", "c"].into_iter().zip(counts).collect();
        let mut world = World::with_policy(&zones, Policy { seed, ..Policy::default() });
        world.add_remote("eu-west/a", "eu", 4);
        world.update();
        let target: BTreeMap<_, _> = world.shares();
        let back: Vec<&str> = returns.iter().map(|zone| zones[*zone].0).collect();
        back.iter().for_each(|zone| world.change(zone, |e| e.health = Health::Down));
        world.update();
        world.wait(Duration::from_secs(down));
        back.iter().for_each(|zone| world.change(zone, |e| (e.health, e.incarnation) = (Health::Ready, 2)));
        world.update();
        let nearest = "us-east/a";
        for tenth in 0..=350u32 {
            let shares = world.shares();
            let fills_in = shares[nearest] < target[nearest];
            for zone in back.iter().map(|zone| format!("us-east/{zone}")) {
                let share = shares[&zone];
                prop_assert!(share <= target[&zone] || fills_in, "{zone}: {shares:?} after {tenth} tenths");
                prop_assert!(share <= (tenth * S).div_ceil(300), "{zone}: {share} after {tenth} tenths");
            }
            world.wait(Duration::from_millis(100));
        }
        prop_assert_eq!(world.shares(), target);
    }
}

/// Invariant 9: a request that unwinds with its pick leaves nothing in flight, and gives back the permit of a probe.
#[test]
fn unwinding_ends_a_request() {
    let mut world = World::new(&[("a", 2)]);
    world.attempts_on("a-00000", 1, refused());
    world.wait(Duration::from_secs(2));
    let probe = world.pick();
    assert!(probe.probe);
    let endpoint = Arc::clone(probe.endpoint().expect("local"));
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _held = probe;
        std::panic::resume_unwind(Box::new("the handler panics"))
    }));
    assert!(unwound.is_err());
    assert_eq!((endpoint.active_requests(), endpoint.permit.is_taken()), (0, false));
    world.wait(Duration::from_millis(100));
    assert!(world.pick().probe, "somebody else may try");
}
