//! Where the gateways of a peer are reached, as they state it.
//!
//! A peer is believed about its own addresses, and about nothing that answers there: certificates decide that. Silence takes no
//! address away; one goes when gateways of the peer have stated others for a while, and not this one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eastway_core::Timestamp;

/// An address goes when it has not been stated for so long while others were: several times the interval of statements.
const GONE: Duration = Duration::from_secs(60);

/// The addresses that were stated, each with when it last was.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    stated: BTreeMap<String, Timestamp>,
}

impl Addresses {
    /// A gateway of the peer states these. What exceeds `most` is left out; answers whether any is new, and whether all were taken.
    pub(super) fn state(&mut self, addresses: &[String], now: Timestamp, most: usize) -> (bool, bool) {
        let (mut new, mut whole) = (false, true);
        for address in addresses {
            if self.stated.contains_key(address) || self.stated.len() < most {
                new |= self.stated.insert(address.clone(), now).is_none();
            } else {
                whole = false;
            }
        }
        (new, whole)
    }

    /// Lets those go that have not been stated while others were. True if there were such.
    pub(super) fn forget(&mut self) -> bool {
        let Some(latest) = self.stated.values().max().copied() else { return false };
        let before = self.stated.len();
        self.stated.retain(|_, stated| latest.since(*stated) < GONE);
        self.stated.len() < before
    }

    /// What was stated, for the store.
    pub(super) fn stated(&self) -> impl Iterator<Item = &String> {
        self.stated.keys()
    }

    /// The addresses to connect to: those that are stated; and the declared ones while none of the stated answers, as at first, or
    /// when the peer has moved as a whole.
    pub(super) fn wanted(&self, declared: &[String], answers: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let mut wanted: BTreeSet<String> = self.stated.keys().cloned().collect();
        if !wanted.iter().any(|address| answers(address)) {
            wanted.extend(declared.iter().cloned());
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    fn texts(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|address| (*address).to_owned()).collect()
    }

    fn wanted(addresses: &Addresses, up: &[&str]) -> Vec<String> {
        addresses.wanted(&texts(&["seed:1"]), |address| up.contains(&address)).into_iter().collect()
    }

    #[test]
    fn what_is_stated_takes_the_place_of_what_is_declared_once_it_answers() {
        let mut addresses = Addresses::default();
        assert_eq!(wanted(&addresses, &["seed:1"]), ["seed:1"]);
        assert_eq!(addresses.state(&texts(&["a:1", "b:1"]), at(0), 4), (true, true));
        assert_eq!(wanted(&addresses, &["seed:1"]), ["a:1", "b:1", "seed:1"]);
        assert_eq!(wanted(&addresses, &["b:1"]), ["a:1", "b:1"]);
        assert_eq!(addresses.state(&texts(&["a:1"]), at(1), 4), (false, true));
    }

    #[test]
    fn an_address_goes_when_others_are_stated_for_a_while_and_not_by_silence() {
        let mut addresses = Addresses::default();
        addresses.state(&texts(&["a:1", "b:1"]), at(0), 4);
        addresses.state(&texts(&["b:1"]), at(59), 4);
        assert!(!addresses.forget(), "a minute is not over");
        // Two gateways of the peer, of which one does not know the other's address.
        addresses.state(&texts(&["a:1"]), at(60), 4);
        addresses.state(&texts(&["b:1"]), at(119), 4);
        assert!(!addresses.forget());
        addresses.state(&texts(&["b:1"]), at(120), 4);
        assert!(addresses.forget());
        assert_eq!(wanted(&addresses, &["b:1"]), ["b:1"]);
        assert!(!addresses.forget(), "nothing was stated since, whatever the time");
    }

    #[test]
    fn a_peer_that_states_addresses_without_end_has_no_more_than_fit() {
        let mut addresses = Addresses::default();
        let many: Vec<String> = (0..100).map(|port| format!("a:{port}")).collect();
        assert_eq!(addresses.state(&many, at(0), 16), (true, false));
        assert_eq!(addresses.stated().count(), 16);
        assert_eq!(addresses.state(&texts(&["a:0"]), at(1), 16), (false, true), "what is known stays so");
    }

    proptest! {
        #[test]
        fn what_was_stated_last_stays_and_there_are_never_too_many(
            statements in prop::collection::vec((0..90_u64, prop::collection::btree_set(0..9_u8, 0..6)), 1..40),
        ) {
            let (mut addresses, mut now) = (Addresses::default(), 0);
            for (pause, stated) in statements {
                now += pause;
                let known: BTreeSet<String> = addresses.stated().cloned().collect();
                let stated: Vec<String> = stated.into_iter().map(|host| format!("{host}:1")).collect();
                let (new, whole) = addresses.state(&stated, at(now), 6);
                prop_assert_eq!(new, addresses.stated().any(|address| !known.contains(address)));
                addresses.forget();
                let kept: BTreeSet<&String> = addresses.stated().collect();
                prop_assert!(kept.len() <= 6);
                prop_assert!(!whole || stated.iter().all(|address| kept.contains(address)));
            }
        }
    }
}
