//! What happens next: events in order of time, and in order of their making where times are equal.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use eastway_core::Timestamp;

use crate::flight::{End, FlightId};

/// Something that happens at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// The next request is made.
    Arrive,
    /// A request to open a connection reaches the endpoint's host.
    Connect(FlightId),
    /// The caller has its connection.
    Connected(FlightId),
    /// A request reaches the endpoint.
    Reach(FlightId),
    /// An endpoint has done the work of a request, in one life of it.
    Served { server: usize, incarnation: u64, flight: FlightId },
    /// The caller learns how its attempt ended.
    Ended(FlightId, End),
    /// The caller has waited long enough.
    Deadline(FlightId),
    /// A fault begins or ends.
    Fault(usize),
    /// The shares are looked at.
    Sample,
    /// What only the driver understands.
    Own(Own),
}

/// Events of the production driver.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Own {
    /// A caller's control loop.
    Tick(usize),
    /// The gateways' control loops.
    GatewayTicks,
    /// Endpoints say what load they have.
    Report,
    /// What was said reaches callers.
    Loads(usize),
    /// The backoff of a request is over.
    Retry(usize),
    /// A request for a session reaches the remote gateway.
    Open(usize),
    /// A session is open, or is not.
    Opened(usize),
    /// Discovery learns of a change of an endpoint.
    Noticed { server: usize, incarnation: u64, ready: bool },
    /// A cluster's gateway tells its sidecars.
    Publish(usize),
    /// Gateways tell their peers.
    Heartbeat,
    /// A summary reaches a peer.
    Import(usize),
    /// The answer of a load probe reaches its caller.
    Probed { caller: usize, server: usize, active_requests: u32 },
}

/// The events to come.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<QueuedEvent>>,
    made: u64,
}

/// What is under way, by an index that an event can carry. Places are used again.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Keeps it until it is taken.
    pub(crate) fn put(&mut self, value: T) -> usize {
        if let Some(index) = self.free.pop() {
            self.places[index] = Some(value);
            return index;
        }
        self.places.push(Some(value));
        self.places.len() - 1
    }

    /// Takes it out.
    pub(crate) fn take(&mut self, index: usize) -> Option<T> {
        let value = self.places.get_mut(index)?.take()?;
        self.free.push(index);
        Some(value)
    }
}

#[derive(Debug)]
struct QueuedEvent {
    at: Timestamp,
    number: u64,
    event: Event,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Timestamp, event: Event) {
        self.made += 1;
        self.heap.push(Reverse(QueuedEvent { at, number: self.made, event }));
    }

    pub(crate) fn pop(&mut self) -> Option<(Timestamp, Event)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

impl Ord for QueuedEvent {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for QueuedEvent {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for QueuedEvent {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for QueuedEvent {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_what_has_arrived_are_used_again() {
        let mut slots = Slots::default();
        let (a, b) = (slots.put("a"), slots.put("b"));
        assert_eq!((slots.take(a), slots.take(a)), (Some("a"), None));
        assert_eq!(slots.put("c"), a);
        assert_eq!((slots.take(b), slots.take(a)), (Some("b"), Some("c")));
    }

    #[test]
    fn equal_times_keep_their_order() {
        let mut queue = Queue::default();
        for (at, event) in [(2, Event::Arrive), (1, Event::Sample), (1, Event::Arrive)] {
            queue.push(Timestamp::from_millis(at), event);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(at, event)| (at.as_millis(), event)).collect();
        assert!(matches!(order[..], [(1, Event::Sample), (1, Event::Arrive), (2, Event::Arrive)]), "{order:?}");
    }
}
