//! The loop: takes the next event, moves the time, tells the network or the driver.

use std::time::Duration;

use eastway_core::Timestamp;

use crate::baseline::GlobalJsq2;
use crate::driver::{Arrival, Driver};
use crate::faults::{Action, Active, actions};
use crate::flight::End;
use crate::net::{ARRIVALS, Net};
use crate::production::Production;
use crate::queue::Event;
use crate::report::{Baseline, Report};
use crate::scenario::{Scenario, exponential};
use crate::world::{START, World, at, stream};

/// Before this, in-flight requests do not count towards the imbalance, in seconds.
const WARM_UP_S: f64 = 10.0;

/// Runs a scenario without mistakes ([`Scenario::mistakes`]), and the baseline over the same arrivals.
pub fn run(scenario: &Scenario) -> Report {
    let world = World::new(scenario);
    let mut net = Net::new(scenario, &world, scenario.seed);
    let mut driver = Production::new(&mut net);
    Engine::new(&net).run(&mut net, &mut driver);
    let mut ideal = Net::new(scenario, &world, scenario.seed);
    Engine::new(&ideal).run(&mut ideal, &mut GlobalJsq2::default());
    let ideal =
        Baseline { name: "global-jsq2", p99_ms: ideal.record.quantile(0.99), imbalance: ideal.record.imbalance };
    Report::new(scenario, &world, net.record, ideal)
}

struct Engine {
    actions: Vec<(Timestamp, Action)>,
    arrivals: fastrand::Rng,
    /// Arrivals are drawn at the highest rate, and thinned out to the present one.
    peak: f64,
    /// Factors of the rate.
    load: Active,
    number: u64,
    end: Timestamp,
    warm: Option<Timestamp>,
    ended: bool,
}

impl Engine {
    fn new(net: &Net<'_>) -> Self {
        Self {
            actions: actions(net.scenario, net.world),
            arrivals: stream(net.seed, ARRIVALS, 0, 0),
            peak: net.scenario.peak(),
            load: Active::default(),
            number: 0,
            end: at(net.scenario.duration_s),
            warm: Some(at(WARM_UP_S)),
            ended: false,
        }
    }

    fn run(mut self, net: &mut Net<'_>, driver: &mut impl Driver) {
        for (index, (at, _)) in self.actions.iter().enumerate() {
            net.queue.push(*at, Event::Fault(index));
        }
        net.queue.push(START, Event::Sample);
        self.next_arrival(net);
        while let Some((now, event)) = net.queue.pop() {
            if self.warm.is_some_and(|warm| now >= warm) {
                self.warm = None;
                net.servers.iter_mut().for_each(|server| server.reset_area(now));
            }
            if now >= self.end && !self.ended {
                self.ended = true;
                self.measure(net);
            }
            if self.ended && net.record.open() == 0 {
                break;
            }
            net.now = now;
            self.handle(net, driver, event);
        }
        if !self.ended {
            self.measure(net);
        }
    }

    /// How unevenly the endpoints were in use, since they were warm.
    fn measure(&self, net: &mut Net<'_>) {
        if self.end <= at(WARM_UP_S) {
            return;
        }
        net.servers.iter_mut().for_each(|server| server.account(self.end));
        let most = net.servers.iter().map(|server| server.area()).fold(0.0, f64::max);
        let mean = net.servers.iter().map(|server| server.area()).sum::<f64>() / net.servers.len() as f64;
        net.record.imbalance = Some(if mean > 0.0 { most / mean } else { 1.0 });
    }

    fn handle(&mut self, net: &mut Net<'_>, driver: &mut impl Driver, event: Event) {
        match event {
            Event::Arrive => self.arrive(net, driver),
            Event::Connect(id) => net.on_connect(id),
            Event::Connected(id) => driver.connected(net, id),
            Event::Reach(id) => net.on_reach(id),
            Event::Served { server, incarnation, flight } => net.on_served(server, incarnation, flight),
            Event::Ended(id, end) => {
                if let Some(flight) = net.land(id) {
                    driver.ended(net, id, flight, end);
                }
            }
            Event::Deadline(id) => {
                if let Some(flight) = net.land(id) {
                    driver.ended(net, id, flight, End::Deadline);
                }
            }
            Event::Fault(index) => {
                let action = &self.actions[index].1;
                if let Action::Load { factor, on } = action {
                    self.load.set(*factor, *on);
                }
                net.apply(action);
                driver.changed(net, action);
            }
            Event::Sample => {
                if net.now < self.end {
                    let shares = driver.shares(net);
                    net.record.sample(net.now, shares);
                    net.after(Duration::from_secs_f64(net.scenario.sample_s), Event::Sample);
                }
            }
            Event::Own(own) => driver.event(net, own),
        }
    }

    fn next_arrival(&mut self, net: &mut Net<'_>) {
        let gap = exponential(&mut self.arrivals) / (net.scenario.rate * self.peak);
        let next = net.now + Duration::from_secs_f64(gap);
        if next < self.end {
            net.queue.push(next, Event::Arrive);
        }
    }

    fn arrive(&mut self, net: &mut Net<'_>, driver: &mut impl Driver) {
        let caller = self.arrivals.usize(..net.world.callers.len());
        let made = self.arrivals.f64() * self.peak < self.load.product();
        if made {
            net.record.scheduled(net.now);
            driver.arrival(net, Arrival { number: self.number, caller });
            self.number += 1;
        }
        self.next_arrival(net);
    }
}
