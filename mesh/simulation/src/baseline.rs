//! The baseline `global-jsq2`: two endpoints at random, and the one that truly has less to do.
//!
//! It knows which endpoints live and what each has in its queue and on its way, for all callers together, without delay. It
//! never retries. No mesh can know as much; it shows how good choosing between two can be.

use eastway_core::Timestamp;

use crate::driver::{Arrival, Driver};
use crate::faults::Action;
use crate::flight::{End, Flight, FlightId, Trip};
use crate::net::Net;
use crate::queue::Own;
use crate::server::{Life, Server};
use crate::world::millis;

/// Requests under way, by their number as a trip knows it.
#[derive(Debug, Default)]
pub(crate) struct GlobalJsq2 {
    scheduled: Vec<Timestamp>,
}

impl Driver for GlobalJsq2 {
    fn arrival(&mut self, net: &mut Net<'_>, arrival: Arrival) {
        let Some(server) = choose(net) else { return net.record.failed(net.now) };
        let request = self.scheduled.len();
        self.scheduled.push(net.now);
        let trip = Trip {
            request,
            server,
            one_way: net.world.rtt(net.world.callers[arrival.caller], net.world.servers[server]) / 2,
            work: (arrival.number, 1),
            deadline: net.now + millis(net.scenario.timeout_s * 1000.0),
        };
        net.send(&trip, std::time::Duration::ZERO);
    }

    fn ended(&mut self, net: &mut Net<'_>, _id: FlightId, flight: Flight, end: End) {
        let scheduled = self.scheduled[flight.request];
        match end {
            End::Answer { ok: true, .. } => net.record.succeeded(scheduled, net.now),
            _ => net.record.failed(scheduled),
        }
    }

    fn connected(&mut self, _net: &mut Net<'_>, _id: FlightId) {}

    fn event(&mut self, _net: &mut Net<'_>, _event: Own) {}

    fn changed(&mut self, _net: &mut Net<'_>, _action: &Action) {}

    fn shares(&self, _net: &Net<'_>) -> Vec<f64> {
        Vec::new()
    }
}

fn choose(net: &mut Net<'_>) -> Option<usize> {
    let alive = net.servers.iter().filter(|server| server.life == Life::Up).count();
    if alive == 0 {
        return None;
    }
    let (a, b) = (net.choices.usize(..alive), net.choices.usize(..alive));
    let (a, b) = (nth_alive(&net.servers, alive, a), nth_alive(&net.servers, alive, b));
    let load = |i: usize| net.servers[i].in_flight() + net.servers[i].coming;
    Some(if load(b) < load(a) { b } else { a })
}

/// The index of the `n`th of the `alive` servers that are up, from 0.
fn nth_alive(servers: &[Server], alive: usize, n: usize) -> usize {
    if alive == servers.len() {
        return n;
    }
    (0..servers.len()).filter(|i| servers[*i].life == Life::Up).nth(n).unwrap_or_default()
}
