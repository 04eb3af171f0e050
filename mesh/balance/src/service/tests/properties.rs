//! The invariants of the decision core over random worlds and random histories.
//!
//! A failing case prints its seed, which proptest also writes beside this file and tries first from then on;
//! `PROPTEST_RNG_SEED` and `PROPTEST_CASES` choose another run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::{PathState, Staleness};
use eastway_core::{EndpointId, Health, LoadReport, Reason};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::harness::*;
use crate::service::control::LocalityControl;
use crate::{Algorithm, Outcome, Pick, Policy, Tried};

#[derive(Clone, Debug)]
enum Step {
    Pick { idempotent: bool, hold: bool, end: u8 },
    Release(usize),
    Health(usize, Health),
    Restart(usize),
    Remove(usize),
    Weight(usize, u8),
    Path(PathState),
    Stale(Staleness),
    Summary { ready: u32, total: u32 },
    Load(usize, u32),
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let health = prop::sample::select(Health::ALL.to_vec());
    prop_oneof![
        8 => (any::<bool>(), any::<bool>(), 0u8..12).prop_map(|(idempotent, hold, end)| Step::Pick { idempotent, hold, end }),
        2 => (0usize..9).prop_map(Step::Release),
        2 => (0usize..9, health).prop_map(|(i, h)| Step::Health(i, h)),
        1 => (0usize..9).prop_map(Step::Restart),
        1 => (0usize..9).prop_map(Step::Remove),
        1 => (0usize..9, 0u8..6).prop_map(|(i, w)| Step::Weight(i, w)),
        1 => prop::sample::select(vec![PathState::Up, PathState::Down, PathState::Suspect]).prop_map(Step::Path),
        1 => prop::sample::select(vec![Staleness::Fresh, Staleness::Stale1, Staleness::Stale2, Staleness::Stale3])
            .prop_map(Step::Stale),
        1 => (0u32..4, 0u32..4).prop_map(|(ready, more)| Step::Summary { ready, total: ready + more }),
        1 => (0usize..9, 0u32..50).prop_map(|(i, active_requests)| Step::Load(i, active_requests)),
        2 => (0u64..4_000).prop_map(Step::Wait),
    ]
}

fn outcome(end: u8) -> Option<Outcome> {
    match end {
        0..=3 => Some(success()),
        4..=6 => Some(error()),
        7 => Some(Outcome::failed(Reason::AppUnreachable)),
        8 => Some(refused()),
        9 => Some(Outcome::failed(Reason::TunnelLost)),
        10 => Some(Outcome::failed(Reason::NoReadyEndpoint)),
        _ => None,
    }
}

struct Run {
    world: World,
    held: Vec<Pick>,
}

impl Run {
    fn new(zones: [usize; 3], remote: u32) -> Self {
        let mut world = World::new(&[("a", zones[0]), ("b", zones[1]), ("c", zones[2])]);
        world.add_remote("eu-west/a", "eu", remote);
        world.update();
        Self { world, held: Vec::new() }
    }

    fn edit(&mut self, index: usize, edit: impl Fn(&mut eastway_core::view::EndpointView)) {
        let count = self.world.view.endpoints.len();
        if count > 0 {
            edit(Arc::make_mut(&mut self.world.view.endpoints[index % count]));
        }
        self.world.update();
    }

    fn step(&mut self, step: &Step) {
        let world = &mut self.world;
        match *step {
            Step::Pick { idempotent, hold, end } => self.pick(idempotent, hold, end),
            Step::Release(index) if !self.held.is_empty() => {
                let index = index % self.held.len();
                drop(self.held.swap_remove(index));
            }
            Step::Release(_) => {}
            Step::Health(index, health) => self.edit(index, |e| e.health = health),
            Step::Restart(index) => self.edit(index, |e| e.incarnation += 1),
            Step::Weight(index, weight) => self.edit(index, |e| e.weight = f64::from(weight)),
            Step::Remove(index) => {
                let count = world.view.endpoints.len();
                if count > 1 {
                    world.view.endpoints.remove(index % count);
                }
                world.update();
            }
            Step::Path(path) => {
                world.peer("eu-west").path = path;
                world.update();
            }
            Step::Stale(staleness) => {
                world.peer("eu-west").staleness = staleness;
                world.update();
            }
            Step::Summary { ready, total } => {
                (world.summary("eu-west/a").ready, world.summary("eu-west/a").total) = (ready, total);
                world.update();
            }
            Step::Load(index, active_requests) => {
                let ids: Vec<EndpointId> = world.view.endpoints.iter().map(|e| e.id.clone()).collect();
                if !ids.is_empty() {
                    let load = LoadReport {
                        active_requests,
                        utilisation: Some(active_requests as f32 / 20.0),
                        error_rate: 0.0,
                    };
                    world.service.apply_load(&ids[index % ids.len()], load, world.now);
                }
            }
            Step::Wait(ms) => world.wait(Duration::from_millis(ms)),
        }
        self.world.check();
        self.check_probes();
    }

    /// Invariant 7: a pick exists if and only if something has no hard mark, or is half-open and free; and what is
    /// picked is that.
    fn pick(&mut self, idempotent: bool, hold: bool, end: u8) {
        let world = &mut self.world;
        let (reachable, half_open) = pickable(world);
        let pick = world.service.pick(&mut world.rng, world.now, &Tried::new(), None, idempotent);
        let Ok(pick) = pick else {
            assert!(!reachable && !half_open, "nothing picked, though there is something");
            return;
        };
        assert!(reachable || half_open, "picked {} out of nothing", World::name(&pick));
        if let Some(endpoint) = pick.endpoint() {
            assert!(endpoint.is_reachable() || pick.probe, "picked a hard-marked endpoint");
        } else {
            assert_ne!(world.peer("eu-west").path, PathState::Down);
        }
        if let Some(outcome) = outcome(end) {
            world.finish(&pick, outcome);
        }
        if hold {
            self.held.push(pick);
        }
    }

    /// Invariant 10: one probe at most of each endpoint at a time.
    fn check_probes(&self) {
        let mut probed = BTreeSet::new();
        for pick in self.held.iter().filter(|pick| pick.permits().endpoint && !pick.is_settled()) {
            let endpoint = pick.endpoint().expect("an endpoint's permit");
            assert!(endpoint.permit.is_taken());
            assert!(probed.insert(Arc::as_ptr(endpoint)), "{} is tried twice at once", endpoint.id);
        }
    }
}

/// Every health of one to three endpoints in the own zone and up to two beside it: a pick exists if and only if something
/// can serve, and it is one that can.
#[test]
fn every_small_world_is_picked_from_rightly() {
    let combinations = |n: usize| {
        let all = Health::ALL.len();
        (0..all.pow(n as u32)).map(move |code| (0..n).map(|i| Health::ALL[code / all.pow(i as u32) % all]).collect())
    };
    for (here, there) in [(1, 0), (2, 0), (3, 0), (1, 1), (1, 2), (2, 1), (2, 2)] {
        let mut world = World::new(&[("a", here), ("b", there)]);
        for healths in combinations(here + there).collect::<Vec<Vec<Health>>>() {
            for (endpoint, health) in world.view.endpoints.iter_mut().zip(&healths) {
                Arc::make_mut(endpoint).health = *health;
            }
            world.now = world.now + Duration::from_secs(600);
            world.update();
            let can = |health: &Health| matches!(health, Health::Ready | Health::Degraded | Health::Draining);
            match world.try_pick(&Tried::new()) {
                Ok(pick) => {
                    let id = World::name(&pick);
                    let index = world.view.endpoints.iter().position(|e| e.id.as_str() == id).expect("known");
                    assert!(can(&healths[index]), "{id} of {healths:?}");
                }
                Err(_) => assert!(!healths.iter().any(can), "nothing of {healths:?}"),
            }
        }
    }
}

/// Whether something is reachable without a hard mark, and whether something half-open is free to be tried.
fn pickable(world: &World) -> (bool, bool) {
    let control = world.service.state.control.lock();
    let plan = world.service.view.plan.load();
    let free = plan.probes.iter().any(|probe| match &probe.what {
        crate::plan::Probing::Endpoint(endpoint) => !endpoint.permit.is_taken(),
        _ => false,
    });
    (control.localities.iter().any(LocalityControl::conceivable), free)
}

proptest! {

    /// Invariants 1, 6, 7, 9, 10 and 11 over any history: the harness checks sums, tallies and caps after each step.
    #[test]
    fn any_history_keeps_the_invariants(
        zones in [0usize..4, 0usize..4, 0usize..4],
        remote in 0u32..3,
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let mut run = Run::new(zones, remote);
        for step in &steps {
            run.step(step);
        }
        // Invariant 9: whatever happened, nothing stays in flight.
        run.held.clear();
        for locality in &run.world.service.state.control.lock().localities {
            for endpoint in locality.roster.endpoints.iter() {
                prop_assert_eq!(endpoint.active_requests(), 0);
            }
        }
    }

    /// Invariant 15: what was tried is not tried again while something else is reachable.
    #[test]
    fn retries_find_something_new_while_there_is_something(
        zones in [0usize..4, 0usize..4, 0usize..3],
        bad in prop::collection::vec((0usize..12, 0u8..3), 0..6),
        localities_too in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(&[("a", zones[0]), ("b", zones[1]), ("c", zones[2])]);
        world.rng = fastrand::Rng::with_seed(seed);
        let ids: Vec<String> = world.view.endpoints.iter().map(|e| e.id.to_string()).collect();
        for (index, how) in bad {
            if let Some(id) = ids.get(index) {
                match how {
                    0 => world.attempts_on(id, 1, refused()),
                    1 => world.attempts_on(id, 4, error()),
                    _ => world.change(id, |e| e.health = Health::Degraded),
                }
            }
        }
        world.update();
        let reachable: usize = {
            let control = world.service.state.control.lock();
            control.localities.iter().flat_map(|l| l.roster.endpoints.iter()).filter(|e| e.is_reachable()).count()
        };
        let mut tried = Tried::new();
        let mut seen = Vec::new();
        for _ in 0..reachable {
            let pick = world.try_pick(&tried).expect("something untried is reachable");
            let endpoint = pick.endpoint().expect("local");
            prop_assert!(!seen.contains(&endpoint.id), "{} again, after {:?} of {reachable}", endpoint.id, seen);
            seen.push(endpoint.id.clone());
            tried.push_endpoint(endpoint);
            if localities_too {
                tried.push_locality(&pick.locality.zone);
            }
        }
        prop_assert_eq!(world.try_pick(&tried).is_ok(), reachable > 0);
    }
}

proptest! {
    #![proptest_config(statistical())]

    /// Invariant 8: at equal load, frequencies are those of the locality table × weights × ramps.
    #[test]
    fn frequencies_follow_the_table_the_weights_and_the_ramps(
        zones in [1usize..5, 1usize..5],
        weights in prop::collection::vec(1u8..9, 10),
        dead in 0usize..4,
        starting in 0usize..4,
        elapsed in 0u64..10_000,
        algorithm in prop::sample::select(vec![Algorithm::TwoChoices, Algorithm::TwoChoices, Algorithm::LeastRequest, Algorithm::Random]),
        seed in any::<u64>(),
    ) {
        let mut world = World::with_policy(&[], Policy { algorithm, ..Policy::default() });
        world.rng = fastrand::Rng::with_seed(seed);
        for (zone, count) in ["a", "b"].iter().zip(zones) {
            for (i, weight) in weights.iter().enumerate().take(count) {
                world.add(&format!("{zone}-{i}"), zone, f64::from(*weight));
            }
        }
        world.update();
        // Some are new, and somewhere in their slow start.
        for (i, weight) in weights.iter().rev().enumerate().take(starting) {
            world.add(&format!("a-{}", 10 + i), "a", f64::from(*weight));
        }
        world.update();
        world.wait(Duration::from_millis(elapsed));
        for i in 0..dead.min(zones[0].saturating_sub(1)) {
            world.attempts_on(&format!("a-{i}"), 1, refused());
        }
        let expected = expected_frequencies(&world);
        let n = 20_000;
        let counts = world.counts(n);
        for (id, p) in expected {
            let got = counts.get(&id).copied().unwrap_or(0) as f64;
            let sigma = (n as f64 * p * (1.0 - p)).sqrt();
            prop_assert!((got - n as f64 * p).abs() <= 4.0 * sigma + 1.0, "{id}: {got} of {n}, not {p}");
        }
    }

    /// Invariant 7, its bound: a pick of a huge locality in which almost everything is down still ends, with the one that
    /// serves.
    #[test]
    fn the_one_that_serves_is_found(survivor in 0usize..300, seed in any::<u64>()) {
        let mut world = World::new(&[("a", 300)]);
        world.rng = fastrand::Rng::with_seed(seed);
        let ids: Vec<String> = world.view.endpoints.iter().map(|e| e.id.to_string()).collect();
        for (i, id) in ids.iter().enumerate() {
            if i != survivor {
                world.attempts_on(id, 1, refused());
            }
        }
        for _ in 0..20 {
            prop_assert_eq!(&World::name(&world.pick()), &ids[survivor]);
        }
    }
}

/// Each case picks thousands of times; and four sigma are exceeded once in 16,000 comparisons by chance alone, so that the
/// cases are always the same unless another seed is asked for.
fn statistical() -> ProptestConfig {
    let config = ProptestConfig::default();
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(8),
        chosen => chosen,
    };
    ProptestConfig { cases: config.cases.div_ceil(8), rng_seed, ..config }
}

/// Slots of the locality table times the part of each endpoint in its locality.
fn expected_frequencies(world: &World) -> Vec<(String, f64)> {
    let plan = world.service.view.plan.load();
    let mut expected = Vec::new();
    for (index, locality) in plan.localities.iter().enumerate() {
        let slots = plan.table.slots_of(index) as f64 / crate::table::SLOTS as f64;
        let parts: Vec<(String, f64)> = locality
            .ready
            .endpoints
            .iter()
            .map(|e| (e.id.to_string(), e.cold.lock().weight * f64::from(e.acceptance())))
            .collect();
        let sum: f64 = parts.iter().map(|(_, part)| part).sum();
        expected.extend(parts.into_iter().filter(|_| sum > 0.0).map(|(id, part)| (id, slots * part / sum)));
    }
    expected
}
