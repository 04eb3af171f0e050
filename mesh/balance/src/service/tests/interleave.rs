//! Workers and the control runtime at once, under very many interleavings of what they share: see [`crate::sync`].
//!
//! `make test` builds and runs them apart from the other tests. A failure prints its schedule, which `shuttle::replay` repeats.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eastway_core::{EndpointId, Health, LoadReport, Reason, Timestamp};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use super::harness::*;
use crate::endpoint::Endpoint;
use crate::{Outcome, Pick, Tried};

/// Runs the tests under random schedules, and under those with few switches at the worst moments.
fn check(runs: usize, test: impl Fn() + Clone + Send + Sync + 'static) {
    let mut config = Config::new();
    // A service is made on the stack.
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(runs), config.clone()).run(test.clone());
    Runner::new(PctScheduler::new(3, runs), config).run(test);
}

type Work = Box<dyn FnOnce(&World) + Send>;

/// Lets all do their work on one world at once; returns it for a look at what is left.
fn at_once(world: World, works: Vec<Work>) -> World {
    let world = Arc::new(world);
    let spawn = |work: Work| {
        let world = Arc::clone(&world);
        shuttle::thread::spawn(move || work(&world))
    };
    let running: Vec<_> = works.into_iter().map(spawn).collect();
    running.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
    Arc::into_inner(world).expect("nobody else has it")
}

fn work(work: impl FnOnce(&World) + Send + 'static) -> Work {
    Box::new(work)
}

fn pick(world: &World, rng: &mut fastrand::Rng, now: Timestamp) -> Option<Pick> {
    world.service.pick(rng, now, &Tried::new(), None, true).ok()
}

fn member(world: &World, id: &str) -> Arc<Endpoint> {
    Arc::clone(world.service.state.control.lock().member(&EndpointId::new(id)).expect("a member"))
}

/// What the probes of one endpoint at a time would break.
#[derive(Clone, Debug, Default)]
struct Probing(Arc<Mutex<BTreeSet<String>>>);

impl Probing {
    fn begin(&self, pick: &Pick) {
        if let Some(endpoint) = pick.endpoint().filter(|_| pick.permits().endpoint) {
            let mut probed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(probed.insert(endpoint.id.to_string()), "{} is probed twice", endpoint.id);
        }
    }

    fn end(&self, pick: &Pick) {
        if let Some(endpoint) = pick.endpoint().filter(|_| pick.permits().endpoint) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(endpoint.id.as_str());
        }
    }
}

/// Invariant 9: whatever ends a request, and whatever happens beside it, nothing stays in flight.
#[test]
fn requests_in_flight_return_to_zero() {
    check(1_000, || {
        let world = World::new(&[("a", 2), ("b", 1)]);
        let all: Vec<_> = ["a-00000", "a-00001", "b-00000"].map(|id| member(&world, id)).into();
        let worker = |seed: u64| {
            work(move |world| {
                let mut rng = fastrand::Rng::with_seed(seed);
                for end in 0..4 {
                    let Some(pick) = pick(world, &mut rng, world.now) else { continue };
                    match (end + seed) % 4 {
                        0 => world.finish(&pick, success()),
                        1 => world.finish(&pick, refused()),
                        2 => drop(pick),
                        _ => {
                            let unwound = catch_unwind(AssertUnwindSafe(|| {
                                let _held = &pick;
                                resume_unwind(Box::new("the handler panics"))
                            }));
                            assert!(unwound.is_err());
                        }
                    }
                }
            })
        };
        let control = work(|world| {
            let mut view = world.view.clone();
            Arc::make_mut(&mut view.endpoints[0]).incarnation += 1;
            world.service.update(&world.mesh, &view, world.now);
            view.endpoints.pop();
            world.service.update(&world.mesh, &view, world.now);
            world.service.tick(world.now + Duration::from_secs(2));
        });
        let world = at_once(world, vec![worker(0), worker(1), control]);
        for endpoint in all.iter().chain([&member(&world, "a-00000")]) {
            assert_eq!(endpoint.active_requests(), 0, "{}", endpoint.id);
        }
    });
}

/// A report that comes in while requests start and end never counts more of others than it said.
#[test]
fn reports_and_requests_do_not_disturb_one_another() {
    check(1_000, || {
        let world = World::new(&[("a", 1)]);
        let report = work(|world| {
            for active_requests in [5, 2] {
                let load = LoadReport { active_requests, ..LoadReport::default() };
                world.service.apply_load(&EndpointId::new("a-00000"), load, world.now);
            }
        });
        let requests = || {
            work(|world| {
                let mut rng = fastrand::Rng::with_seed(1);
                for _ in 0..2 {
                    drop(pick(world, &mut rng, world.now));
                }
            })
        };
        let world = at_once(world, vec![report, requests(), requests()]);
        let endpoint = member(&world, "a-00000");
        assert_eq!(endpoint.active_requests(), 0);
        assert!((0.0..=2.0).contains(&endpoint.others()), "{}", endpoint.others());
    });
}

/// Invariant 10: one probe at most of what is half-open, also while its breaker moves.
#[test]
fn a_half_open_endpoint_is_probed_by_one() {
    check(1_000, || {
        let mut world = World::new(&[("a", 2)]);
        world.attempts_on("a-00000", 1, refused());
        world.wait(Duration::from_secs(2));
        let now = world.now;
        let probing = Probing::default();
        let worker = |seed: u64| {
            let probing = probing.clone();
            work(move |world| {
                let mut rng = fastrand::Rng::with_seed(seed);
                for step in 0..3 {
                    let Some(pick) = pick(world, &mut rng, now + Duration::from_millis(step * 30)) else { continue };
                    probing.begin(&pick);
                    shuttle::thread::yield_now();
                    probing.end(&pick);
                    match seed % 3 {
                        0 => world.service.finish(&pick, success(), now),
                        1 => world.service.finish(&pick, refused(), now),
                        _ => drop(pick),
                    }
                }
            })
        };
        let control = work(move |world| world.service.tick(now + Duration::from_millis(100)));
        let world = at_once(world, vec![worker(0), worker(1), worker(2), control]);
        world.check();
        for id in ["a-00000", "a-00001"] {
            let endpoint = member(&world, id);
            assert!(!endpoint.permit.is_taken(), "the permit of {id} is lost");
            assert_eq!(endpoint.active_requests(), 0);
        }
    });
}

/// The word that picks read says what the breaker and discovery say, and the locality's sums what its endpoints are.
#[test]
fn marks_and_sums_agree_in_the_end() {
    check(1_000, || {
        let world = World::new(&[("a", 3), ("b", 1)]);
        let now = world.now;
        let failing = |id: &'static str, outcome: Outcome, times: usize| {
            work(move |world| {
                for _ in 0..times {
                    let pick = world.pick_of(id);
                    world.finish(&pick, outcome);
                }
            })
        };
        let discovery = work(|world| {
            let mut view = world.view.clone();
            Arc::make_mut(&mut view.endpoints[1]).health = Health::Unready;
            Arc::make_mut(&mut view.endpoints[2]).weight = 3.0;
            world.service.update(&world.mesh, &view, world.now);
        });
        let revival = work(move |world| {
            let endpoint = member(world, "a-00000");
            world.service.revive(&endpoint, now);
            world.service.tick(now);
        });
        let works = vec![
            failing("a-00000", refused(), 1),
            failing("a-00002", error(), 4),
            failing("a-00001", Outcome::failed(Reason::AppUnreachable), 2),
            discovery,
            revival,
        ];
        let world = at_once(world, works);
        world.check();
        let control = world.service.state.control.lock();
        for endpoint in control.localities.iter().flat_map(|locality| locality.roster.endpoints.iter()) {
            let cold = endpoint.cold.lock();
            let before = endpoint.gate();
            endpoint.regate(&cold, now);
            assert_eq!(endpoint.gate(), before, "{}: {cold:?}", endpoint.id);
        }
    });
}

/// Sessions of a remote locality: bound by several at once, moved, and given back.
#[test]
fn sessions_are_bound_and_given_back() {
    check(1_000, || {
        let mut world = World::new(&[]);
        world.add_remote("eu-west/a", "eu", 2);
        world.update();
        let locality = Arc::clone(&world.pick().locality);
        let sessions: Vec<_> = ["p-1", "p-2"].map(|id| world.service.session(&locality, &EndpointId::new(id))).into();
        world.service.mark_down(&sessions[0], world.now);
        world.wait(Duration::from_secs(2));
        let probing = Probing::default();
        let worker = |seed: u64| {
            let (sessions, probing) = (sessions.clone(), probing.clone());
            work(move |world| {
                let mut rng = fastrand::Rng::with_seed(seed);
                let Some(mut pick) = pick(world, &mut rng, world.now) else { return };
                for _ in 0..2 {
                    probing.end(&pick);
                    let chosen = world.service.choose(&mut rng, world.now, &sessions, &Tried::new(), true);
                    if chosen.is_some_and(|index| pick.bind(Arc::clone(&sessions[index]))) {
                        probing.begin(&pick);
                        shuttle::thread::yield_now();
                    }
                }
                probing.end(&pick);
                world.service.finish(&pick, if seed == 0 { success() } else { refused() }, world.now);
            })
        };
        at_once(world, vec![worker(0), worker(1), worker(2)]);
        for session in &sessions {
            assert_eq!(session.active_requests(), 0, "{}", session.id);
            assert!(!session.permit.is_taken(), "the permit of {} is lost", session.id);
        }
    });
}
