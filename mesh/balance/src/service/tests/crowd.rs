//! Many callers at once: a small simulation of queues, to see that what each decides alone is good for all.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use eastway_core::{EndpointId, LoadReport, Timestamp};

use super::harness::*;
use crate::{Outcome, Pick, Policy, Tried};

const CALLERS: usize = 200;
const SERVERS: usize = 50;
const MEAN_MS: f64 = 100.0;
const PERIOD: Duration = Duration::from_millis(100);
const WARM_UP: f64 = 10.0;

/// Who chooses the server of a request.
enum Chooser {
    /// Two at random; the one that truly has less to do.
    Exact,
    /// The production code, one decision object a caller.
    Callers(Vec<World>),
}

struct Job {
    caller: usize,
    arrived: Timestamp,
    pick: Option<Pick>,
}

#[derive(Default)]
struct Server {
    queue: VecDeque<Job>,
    area: f64,
    changed: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Done(usize),
    Report,
}

struct Crowd {
    chooser: Chooser,
    servers: Vec<Server>,
    events: BinaryHeap<Reverse<(Timestamp, Event)>>,
    now: Timestamp,
    rng: fastrand::Rng,
    latencies: Vec<f64>,
}

struct Result {
    p99_ms: f64,
    imbalance: f64,
}

impl Crowd {
    fn new(chooser: Chooser, seed: u64) -> Self {
        let servers = (0..SERVERS).map(|_| Server::default()).collect();
        let events = [Event::Arrival, Event::Report].map(|event| Reverse((Timestamp::from_millis(1_000_000), event)));
        let rng = fastrand::Rng::with_seed(seed);
        Self { chooser, servers, events: events.into(), now: Timestamp::ZERO, rng, latencies: Vec::new() }
    }

    /// Runs for so many seconds at `load` of all servers' capacity, were none slow.
    fn run(mut self, load: f64, seconds: f64) -> Result {
        let start = Timestamp::from_millis(1_000_000);
        let warm = start + Duration::from_secs_f64(WARM_UP);
        let mut measuring = false;
        while let Some(Reverse((at, event))) = self.events.pop() {
            self.now = at;
            if (at - start).as_secs_f64() > seconds {
                break;
            }
            if !measuring && at >= warm {
                measuring = true;
                self.latencies.clear();
                self.servers.iter_mut().for_each(|s| (s.area, s.changed) = (0.0, at));
            }
            match event {
                Event::Arrival => self.arrive(load),
                Event::Done(server) => self.done(server),
                Event::Report => self.report(),
            }
        }
        self.result()
    }

    fn arrive(&mut self, load: f64) {
        let gap = exponential(&mut self.rng, MEAN_MS / (load * SERVERS as f64));
        self.events.push(Reverse((self.now + gap, Event::Arrival)));
        let caller = self.rng.usize(..CALLERS);
        let (server, pick) = self.choose(caller);
        self.account(server);
        self.servers[server].queue.push_back(Job { caller, arrived: self.now, pick });
        if self.servers[server].queue.len() == 1 {
            self.serve(server);
        }
    }

    fn choose(&mut self, caller: usize) -> (usize, Option<Pick>) {
        match &mut self.chooser {
            Chooser::Exact => {
                let (a, b) = (self.rng.usize(..SERVERS), self.rng.usize(..SERVERS));
                (if self.servers[b].queue.len() < self.servers[a].queue.len() { b } else { a }, None)
            }
            Chooser::Callers(worlds) => {
                let pick = worlds[caller].service.pick(&mut self.rng, self.now, &Tried::new(), None, true);
                let pick = pick.expect("nothing fails here");
                let id = &pick.endpoint().expect("local").id;
                (id.as_str()[2..].parse().expect("a number"), Some(pick))
            }
        }
    }

    fn serve(&mut self, server: usize) {
        // Two servers take three times as long.
        let mean = if server < 2 { MEAN_MS * 3.0 } else { MEAN_MS };
        let time = exponential(&mut self.rng, mean);
        self.events.push(Reverse((self.now + time, Event::Done(server))));
    }

    fn done(&mut self, server: usize) {
        self.account(server);
        let rif = self.servers[server].queue.len() as u32;
        let job = self.servers[server].queue.pop_front().expect("was served");
        let latency = self.now - job.arrived;
        self.latencies.push(latency.as_secs_f64() * 1000.0);
        if let (Chooser::Callers(worlds), Some(pick)) = (&self.chooser, &job.pick) {
            let load = LoadReport { rif, ..LoadReport::default() };
            worlds[job.caller].service.finish(pick, Outcome::success(latency).with_load(Some(load)), self.now);
        }
        if !self.servers[server].queue.is_empty() {
            self.serve(server);
        }
    }

    /// Each server's load reaches all callers, and time passes for them.
    fn report(&mut self) {
        self.events.push(Reverse((self.now + PERIOD, Event::Report)));
        let Chooser::Callers(worlds) = &self.chooser else { return };
        let loads: Vec<(EndpointId, LoadReport)> = (0..SERVERS)
            .map(|i| {
                let rif = self.servers[i].queue.len() as u32;
                (EndpointId::new(format!("a-{i:05}")), LoadReport { rif, ..LoadReport::default() })
            })
            .collect();
        for world in worlds {
            loads.iter().for_each(|(id, load)| world.service.apply_load(id, *load, self.now));
            world.service.tick(self.now);
        }
    }

    fn account(&mut self, server: usize) {
        let server = &mut self.servers[server];
        server.area += server.queue.len() as f64 * (self.now - server.changed).as_secs_f64();
        server.changed = self.now;
    }

    fn result(mut self) -> Result {
        self.latencies.sort_by(f64::total_cmp);
        let areas: Vec<f64> = self.servers.iter().map(|s| s.area).collect();
        let mean = areas.iter().sum::<f64>() / areas.len() as f64;
        Result {
            p99_ms: self.latencies[self.latencies.len() * 99 / 100],
            imbalance: areas.iter().copied().fold(0.0, f64::max) / mean,
        }
    }
}

fn exponential(rng: &mut fastrand::Rng, mean_ms: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - rng.f64()).ln() * mean_ms / 1000.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// 70 % load with two slow servers, reports every mean service time: close to what exact knowledge reaches.
#[test]
fn many_callers_with_reports_balance_almost_as_if_they_knew_everything() {
    let run = |exact: bool, seed| {
        let worlds = || (0..CALLERS).map(|_| World::with_policy(&[("a", SERVERS)], Policy::default())).collect();
        let chooser = if exact { Chooser::Exact } else { Chooser::Callers(worlds()) };
        Crowd::new(chooser, seed).run(0.7, 40.0)
    };
    let (mut p99, mut imbalance) = (Vec::new(), Vec::new());
    for seed in 0..3 {
        let (ours, exact) = (run(false, seed), run(true, seed));
        println!(
            "ours {:.0} ms {:.2}, exact {:.0} ms {:.2}",
            ours.p99_ms, ours.imbalance, exact.p99_ms, exact.imbalance
        );
        p99.push(ours.p99_ms / exact.p99_ms);
        imbalance.push(ours.imbalance / exact.imbalance);
    }
    let (p99, imbalance) = (median(p99), median(imbalance));
    assert!(p99 <= 1.3, "p99 is {p99:.2} times that of exact knowledge");
    assert!(imbalance <= 1.25, "imbalance is {imbalance:.2} times that of exact knowledge");
}
