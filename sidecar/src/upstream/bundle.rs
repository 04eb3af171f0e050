//! The connections that everything between a worker and one endpoint shares: one, or two while packets are lost.
//!
//! A lost packet holds up all streams of its connection until it was sent again. With a second connection, what is new goes
//! by the one that has fewer streams open, which is the one that is not held up. More of them help no further: each then has so
//! little under way that the kernel notices a loss only by its timer (`docs/benchmarks.md`, *Lost packets*).

use std::time::Duration;

use eastway_core::Timestamp;

use super::multiplexed::Multiplexed;

/// Connections at a time.
const MOST: usize = 2;
/// Between two tries to open another one.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What is asked of a connection.
pub(super) trait Shared {
    fn is_closed(&self) -> bool;
    fn has_room(&self) -> bool;
    fn streams(&self) -> usize;
    fn loses_packets(&self) -> bool;
}

impl Shared for Multiplexed {
    fn is_closed(&self) -> bool {
        Self::is_closed(self)
    }

    fn has_room(&self) -> bool {
        Self::has_room(self)
    }

    fn streams(&self) -> usize {
        Self::streams(self)
    }

    fn loses_packets(&self) -> bool {
        Self::loses_packets(self)
    }
}

/// Connections to one endpoint.
#[derive(Debug)]
pub(super) struct Bundle<C> {
    connections: Vec<C>,
    /// When another one may be opened.
    another_at: Timestamp,
}

impl<C: Shared + Clone> Bundle<C> {
    pub(super) fn new(connection: C) -> Self {
        Self { connections: vec![connection], another_at: Timestamp::ZERO }
    }

    /// Adds a connection that was opened: in the place of one that takes nothing more just now, unless packets are lost.
    pub(super) fn add(&mut self, connection: C) {
        self.connections.retain(|known| !known.is_closed());
        let kept = if self.loses_packets() { MOST - 1 } else { 0 };
        self.connections.drain(..self.connections.len().saturating_sub(kept));
        self.connections.push(connection);
    }

    fn loses_packets(&self) -> bool {
        self.connections.iter().any(C::loses_packets)
    }

    /// Whether none of them will take anything more.
    pub(super) fn is_closed(&self) -> bool {
        self.connections.iter().all(C::is_closed)
    }

    /// The connection for what is new. Of two, the older one is let go once no packets are lost: it ends with its last stream.
    pub(super) fn choose(&mut self) -> Option<C> {
        if self.connections.len() > 1 && !self.loses_packets() {
            self.connections.drain(..self.connections.len() - 1);
        }
        match &self.connections[..] {
            [one] => Some(one).filter(|one| one.has_room()).cloned(),
            all => all.iter().filter(|one| one.has_room()).min_by_key(|one| one.streams()).cloned(),
        }
    }

    /// Whether another one is to be opened now, which is then not said again for a while.
    pub(super) fn wants_another(&mut self, now: impl FnOnce() -> Timestamp) -> bool {
        if self.connections.len() >= MOST || !self.loses_packets() {
            return false;
        }
        let now = now();
        let wanted = now >= self.another_at;
        if wanted {
            self.another_at = now + RETRY_AFTER;
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[derive(Default)]
    struct Facts {
        closed: Cell<bool>,
        full: Cell<bool>,
        lossy: Cell<bool>,
        streams: Cell<usize>,
    }

    type Fake = Rc<Facts>;

    impl Shared for Fake {
        fn is_closed(&self) -> bool {
            self.closed.get()
        }

        fn has_room(&self) -> bool {
            !self.closed.get() && !self.full.get()
        }

        fn streams(&self) -> usize {
            self.streams.get()
        }

        fn loses_packets(&self) -> bool {
            self.lossy.get()
        }
    }

    fn at(seconds: u64) -> impl FnOnce() -> Timestamp {
        move || Timestamp::ZERO + Duration::from_secs(seconds)
    }

    fn chosen(bundle: &mut Bundle<Fake>, expected: &Fake) -> bool {
        bundle.choose().is_some_and(|one| Rc::ptr_eq(&one, expected))
    }

    #[test]
    fn a_second_connection_is_for_when_packets_are_lost() {
        let (first, second) = (Fake::default(), Fake::default());
        let mut bundle = Bundle::new(Rc::clone(&first));
        assert!(chosen(&mut bundle, &first) && !bundle.wants_another(at(100)));
        first.lossy.set(true);
        assert!(bundle.wants_another(at(100)));
        assert!(!bundle.wants_another(at(101)), "somebody is opening it, or it could not be opened");
        assert!(bundle.wants_another(at(111)) && chosen(&mut bundle, &first));
        bundle.add(Rc::clone(&second));
        assert!(!bundle.wants_another(at(200)), "two are enough");
        first.streams.set(3);
        assert!(chosen(&mut bundle, &second), "the other one is held up");
        second.streams.set(4);
        assert!(chosen(&mut bundle, &first));
        first.lossy.set(false);
        second.lossy.set(true);
        second.streams.set(0);
        assert!(chosen(&mut bundle, &second), "the network still loses packets");
        second.lossy.set(false);
        assert!(chosen(&mut bundle, &second) && bundle.connections.len() == 1);
    }

    #[test]
    fn what_has_ended_or_is_full_is_not_chosen() {
        let (first, second) = (Fake::default(), Fake::default());
        let mut bundle = Bundle::new(Rc::clone(&first));
        first.full.set(true);
        assert!(bundle.choose().is_none() && !bundle.is_closed());
        first.lossy.set(true);
        bundle.add(Rc::clone(&second));
        second.streams.set(9);
        assert!(chosen(&mut bundle, &second));
        second.closed.set(true);
        assert!(bundle.choose().is_none() && !bundle.is_closed());
        let third = Fake::default();
        bundle.add(Rc::clone(&third));
        assert!(chosen(&mut bundle, &third) && bundle.connections.len() == 2, "what has ended is forgotten");
        first.lossy.set(false);
        third.full.set(true);
        bundle.add(Rc::clone(&second));
        assert!(bundle.is_closed(), "one takes the place of what is full");
    }
}
