//! When an unexplained deletion is believed.
//!
//! For: a sidecar that deregisters is gone, and one that refuses connections is gone; but an endpoint that merely
//! vanished from a list may be the list's fault. Single ones are let go after the window in which they are gathered;
//! half of a service or more, only after the hold. Called by [`crate::Catalogue`] for the slices of siblings, and by
//! `federation/client` for what a gateway says after a reconnect.

use std::collections::BTreeMap;

use eastway_core::Timestamp;

use crate::options::Options;

/// Of `leaving` (and when each was deleted), those to let go at `now`; `present` endpoints are not leaving.
pub fn due<K: Clone + Ord>(
    leaving: &BTreeMap<K, Timestamp>,
    present: usize,
    now: Timestamp,
    options: &Options,
) -> Vec<K> {
    let all = present + leaving.len();
    let is_due = |deleted: Timestamp| {
        let age = now.since(deleted);
        age >= options.hold || age >= options.hold_window && together(leaving, deleted, options) * 2 < all
    };
    leaving.iter().filter(|(_, deleted)| is_due(**deleted)).map(|(key, _)| key.clone()).collect()
}

/// How many were deleted at about the same time as one.
fn together<K>(leaving: &BTreeMap<K, Timestamp>, deleted: Timestamp, options: &Options) -> usize {
    let near = |other: &&Timestamp| other.since(deleted).max(deleted.since(**other)) <= options.hold_window;
    leaving.values().filter(near).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaving(count: u64, seconds: u64) -> BTreeMap<u64, Timestamp> {
        (0..count).map(|key| (key, Timestamp::from_millis(seconds * 1000))).collect()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn a_minority_goes_after_the_window() {
        let options = Options::default();
        assert!(due(&leaving(2, 100), 8, at(109), &options).is_empty());
        assert_eq!(due(&leaving(2, 100), 8, at(110), &options).len(), 2);
    }

    #[test]
    fn half_is_held_for_30_seconds() {
        let options = Options::default();
        assert!(due(&leaving(5, 100), 5, at(129), &options).is_empty());
        assert_eq!(due(&leaving(5, 100), 5, at(130), &options).len(), 5);
    }

    #[test]
    fn deletions_that_trickle_in_are_judged_together() {
        let options = Options::default();
        let trickle: BTreeMap<u64, Timestamp> = (0..6).map(|k| (k, at(100 + k))).collect();
        assert!(due(&trickle, 4, at(111), &options).is_empty());
        let apart = BTreeMap::from([(1, at(100)), (2, at(111))]);
        assert_eq!(due(&apart, 2, at(112), &options), [1]);
    }
}
