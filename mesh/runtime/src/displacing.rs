//! Places for connections that still have to prove their worth: the newest takes the place of the one that has been
//! inactive for longest, so that nobody is kept out by connections that do nothing.
//!
//! Half-open handshakes and administrative connections stand here. An honest one is done within round trips; to be pushed
//! out, as many others must come in that time as there are places.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A bounded number of places.
#[derive(Debug)]
pub struct Displacing {
    places: usize,
    per_source: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By activity: the least recently active first.
    occupants: BTreeMap<u64, TakenPlace>,
    sources: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct TakenPlace {
    source: IpAddr,
    displace: oneshot::Sender<()>,
}

/// One taken place; dropping it gives it back.
#[derive(Debug)]
pub struct Occupant {
    activity: Activity,
    displaced: oneshot::Receiver<()>,
}

/// Says that the connection in a place does something. Clones are of the same place.
#[derive(Clone, Debug)]
pub struct Activity {
    room: Arc<Displacing>,
    /// The place's rank by activity.
    order: Arc<AtomicU64>,
}

impl Displacing {
    /// `places` in all, of which one source may have `per_source`. At least one of each.
    pub fn new(places: usize, per_source: usize) -> Arc<Self> {
        Arc::new(Self { places: places.max(1), per_source: per_source.max(1), state: Mutex::default() })
    }

    /// Takes a place for a connection from `address`; if there is none, from the source's own least recently active one, or
    /// else from that of all.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Occupant {
        let source = source(address);
        let mut state = self.state.lock();
        if state.sources.get(&source).is_some_and(|taken| *taken >= self.per_source) {
            state.displace(|entry| entry.source == source);
        } else if state.occupants.len() >= self.places {
            state.displace(|_| true);
        }
        let (displace, displaced) = oneshot::channel();
        let order = state.insert(TakenPlace { source, displace });
        drop(state);
        let activity = Activity { room: Arc::clone(self), order: Arc::new(order.into()) };
        Occupant { activity, displaced }
    }

    /// Ends the least recently active one, for example because the process has no descriptors left.
    pub fn displace_one(&self) {
        self.state.lock().displace(|_| true);
    }

    /// Places taken.
    pub fn taken(&self) -> usize {
        self.state.lock().occupants.len()
    }
}

impl State {
    fn insert(&mut self, entry: TakenPlace) -> u64 {
        let order = self.next;
        self.next += 1;
        *self.sources.entry(entry.source).or_default() += 1;
        self.occupants.insert(order, entry);
        order
    }

    fn displace(&mut self, such: impl Fn(&TakenPlace) -> bool) {
        let oldest = self.occupants.iter().find(|(_, entry)| such(entry)).map(|(order, _)| *order);
        if let Some(entry) = oldest.and_then(|order| self.remove(order)) {
            // Fails only if it is about to leave by itself.
            let _ = entry.displace.send(());
        }
    }

    fn remove(&mut self, order: u64) -> Option<TakenPlace> {
        let entry = self.occupants.remove(&order)?;
        match self.sources.get_mut(&entry.source) {
            Some(taken) if *taken > 1 => *taken -= 1,
            _ => drop(self.sources.remove(&entry.source)),
        }
        Some(entry)
    }
}

impl Occupant {
    /// By which others say that the connection does something.
    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// Completes when another took the place: the connection must end now.
    pub async fn displaced(&mut self) {
        let _ = (&mut self.displaced).await;
    }
}

impl Activity {
    /// The connection is the most recently active one now.
    pub fn touch(&self) {
        let mut state = self.room.state.lock();
        if let Some(entry) = state.remove(self.order.load(Ordering::Relaxed)) {
            self.order.store(state.insert(entry), Ordering::Relaxed);
        }
    }
}

impl Drop for Occupant {
    fn drop(&mut self) {
        let order = self.activity.order.load(Ordering::Relaxed);
        self.activity.room.state.lock().remove(order);
    }
}

/// What counts as one source: an IPv4 address, or the /64 that an IPv6 host can choose its addresses from.
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(occupant: &mut Occupant) -> bool {
        occupant.displaced.try_recv().is_ok()
    }

    #[test]
    fn the_newest_takes_the_oldest_place_of_its_source_or_else_of_all() {
        let room = Displacing::new(3, 2);
        let [one, two] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let (mut first, mut second) = (room.enter(one), room.enter(two));
        let mut third = room.enter(two);
        let mut fourth = room.enter(two);
        assert_eq!([&mut first, &mut second, &mut third, &mut fourth].map(ended), [false, true, false, false]);
        drop(second);
        assert_eq!(room.taken(), 3);
        let mut fifth = room.enter([10, 0, 0, 3].into());
        assert_eq!([&mut first, &mut third, &mut fourth, &mut fifth].map(ended), [true, false, false, false]);
        // Whoever is active keeps its place.
        third.activity().touch();
        let mut sixth = room.enter([10, 0, 0, 4].into());
        assert_eq!([&mut third, &mut fourth, &mut fifth, &mut sixth].map(ended), [false, true, false, false]);
        drop((first, third, fourth, fifth, sixth));
        assert_eq!(room.taken(), 0);
        assert!(room.state.lock().sources.is_empty());
    }

    #[test]
    fn the_addresses_that_one_host_can_choose_are_one_source() {
        let of = |text: &str| source(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::7"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
