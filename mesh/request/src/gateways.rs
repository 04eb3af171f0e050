//! The gateways of a caller's own cluster, and the ways through them: which is asked next for a stream to another cluster.
//!
//! The gateways are equals, and take turns. One that failed a moment ago is asked last, and one that the caller's other
//! sessions lead through is asked after those that none does: so the loss of a gateway breaks as few sessions as can be.

use std::net::SocketAddr;
use std::time::Duration;

use eastway_core::{Timestamp, via};

/// How long a gateway that failed is asked last.
const FAILED_FOR: Duration = Duration::from_secs(5);

/// The gateways that a session leads through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelPath {
    /// The own cluster's.
    pub gateway: SocketAddr,
    /// The other cluster's, as the own one names it.
    pub via: Option<String>,
}

impl TunnelPath {
    /// Whether one gateway lies on both: what it does to a session, it may do to one on the other path.
    pub fn shares_gateway(&self, other: &Self) -> bool {
        self.gateway == other.gateway || self.via.is_some() && self.peer() == other.peer()
    }

    /// The other cluster's gateway, over whatever transport it is reached.
    fn peer(&self) -> Option<(&str, &str)> {
        self.via.as_deref().map(|name| via::gateway(name).unwrap_or(("", name)))
    }
}

/// The gateways of the own cluster, by their places in the configuration.
#[derive(Debug)]
pub struct Gateways {
    /// When each failed last.
    failed: Vec<Option<Timestamp>>,
    turn: usize,
}

impl Gateways {
    /// So many; the first turn is that of number `turn`, so that callers begin with different ones.
    pub fn new(count: usize, turn: usize) -> Self {
        Self { failed: vec![None; count], turn }
    }

    /// The order in which to ask them for one stream. `in_use` says of a place whether the caller keeps away from it while
    /// there are others.
    pub fn order(&mut self, in_use: impl Fn(usize) -> bool, now: Timestamp) -> Vec<usize> {
        let count = self.failed.len();
        let start = self.turn % count.max(1);
        self.turn = self.turn.wrapping_add(1);
        let mut places: Vec<usize> = (start..count).chain(0..start).collect();
        places.sort_by_key(|place| (self.failed_lately(*place, now), in_use(*place)));
        places
    }

    /// A gateway could not be reached, or said that it has no room.
    pub fn failed(&mut self, place: usize, now: Timestamp) {
        if let Some(failed) = self.failed.get_mut(place) {
            *failed = Some(now);
        }
    }

    /// A gateway opened a stream.
    pub fn answered(&mut self, place: usize) {
        if let Some(failed) = self.failed.get_mut(place) {
            *failed = None;
        }
    }

    fn failed_lately(&self, place: usize, now: Timestamp) -> bool {
        self.failed[place].is_some_and(|failed| now.since(failed) < FAILED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn they_take_turns() {
        let mut gateways = Gateways::new(3, 7);
        let first: Vec<usize> = (0..4).map(|_| gateways.order(|_| false, at(1))[0]).collect();
        assert_eq!(first, [1, 2, 0, 1]);
        assert_eq!(Gateways::new(0, 7).order(|_| false, at(1)), [] as [usize; 0]);
    }

    #[test]
    fn what_failed_a_moment_ago_comes_last_and_what_is_in_use_after_what_is_not() {
        let mut gateways = Gateways::new(3, 0);
        assert_eq!(gateways.order(|place| place == 0, at(1)), [1, 2, 0]);
        gateways.failed(2, at(1));
        for _ in 0..3 {
            assert_eq!(gateways.order(|place| place == 0, at(5)), [1, 0, 2]);
        }
        gateways.answered(2);
        assert_eq!(gateways.order(|place| place == 0, at(5))[2], 0);
        gateways.failed(2, at(5));
        assert_eq!(gateways.order(|place| place != 2, at(10))[0], 2, "that is long ago");
    }

    #[test]
    fn paths_share_a_gateway_at_either_end() {
        let path = |own: u8, via: Option<&str>| TunnelPath {
            gateway: ([127, 0, 0, own], 15_443).into(),
            via: via.map(str::to_owned),
        };
        let one = path(1, Some("eu-west/a"));
        assert!(one.shares_gateway(&path(1, Some("eu-west/b"))) && one.shares_gateway(&path(2, Some("eu-west/a"))));
        assert!(one.shares_gateway(&path(2, Some("eu-west/a;tcp"))), "whatever takes it, takes all of its transports");
        assert!(!one.shares_gateway(&path(2, Some("eu-west/b"))) && !path(1, None).shares_gateway(&path(2, None)));
    }
}
