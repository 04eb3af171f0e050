//! Who decides where requests go, as the loop sees it: what it tells a driver.

use crate::faults::Action;
use crate::flight::{End, Flight, FlightId};
use crate::net::Net;
use crate::queue::Own;

/// A request as it arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// In order of arrival, from 0.
    pub(crate) number: u64,
    /// Who makes it.
    pub(crate) caller: usize,
}

/// Who decides where requests go.
pub(crate) trait Driver {
    /// A request is made.
    fn arrival(&mut self, net: &mut Net<'_>, arrival: Arrival);
    /// A caller learns how an attempt ended.
    fn ended(&mut self, net: &mut Net<'_>, id: FlightId, flight: Flight, end: End);
    /// A connection for an attempt is there.
    fn connected(&mut self, net: &mut Net<'_>, id: FlightId);
    /// Something of its own happens.
    fn event(&mut self, net: &mut Net<'_>, event: Own);
    /// A fault began or ended, and the endpoints know.
    fn changed(&mut self, net: &mut Net<'_>, action: &Action);
    /// The share of each zone in the callers' present tables, in percent.
    fn shares(&self, net: &Net<'_>) -> Vec<f64>;
}
