//! Which peers are wanted: all that are declared, or, where that is configured, those of which something is.

use std::collections::BTreeMap;
use std::time::Duration;

use eastway_core::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

/// The peers that are wanted.
#[derive(Debug)]
pub(crate) struct Demand {
    /// How long a peer stays connected of which nothing is wanted any more; `None`: all are wanted, always.
    idle: Option<Duration>,
    wanted: Mutex<BTreeMap<String, Wanted>>,
    /// Grows with each peer that is wanted anew, or no longer.
    changes: watch::Sender<u64>,
}

/// A peer that is wanted.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// Streams that are open to it.
    streams: usize,
    /// When something of it was wanted last.
    last: Timestamp,
}

impl Demand {
    /// Nothing is wanted yet.
    pub(crate) fn new(idle: Option<Duration>) -> Self {
        Self { idle, wanted: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// Whether there is to be a connection to the peer `cluster`.
    pub(crate) fn wants(&self, cluster: &str) -> bool {
        self.idle.is_none() || self.wanted.lock().contains_key(cluster)
    }

    /// Whether peers are connected to only while something of them is wanted.
    pub(crate) const fn is_heeded(&self) -> bool {
        self.idle.is_some()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Something of these peers is wanted.
    pub(crate) fn want(&self, clusters: impl IntoIterator<Item = String>, now: Timestamp) {
        self.change(|wanted| {
            clusters
                .into_iter()
                .for_each(|cluster| wanted.entry(cluster).or_insert(Wanted { streams: 0, last: now }).last = now);
        });
    }

    /// A stream to the peer begins (`more`), or ends.
    pub(crate) fn count(&self, cluster: &str, more: bool, now: Timestamp) {
        self.change(|wanted| {
            let known = wanted.entry(cluster.to_owned()).or_insert(Wanted { streams: 0, last: now });
            known.last = now;
            known.streams = if more { known.streams + 1 } else { known.streams.saturating_sub(1) };
        });
    }

    /// Lets go of the peers of which nothing was wanted for long.
    pub(crate) fn let_go(&self, now: Timestamp) {
        let idle = self.idle.unwrap_or(Duration::MAX);
        self.change(|wanted| wanted.retain(|_, peer| peer.streams > 0 || now.since(peer.last) < idle));
    }

    /// How often it is worth a look whether a peer is to be [let go](Self::let_go).
    pub(crate) fn look_every(&self) -> Duration {
        self.idle.map_or(Duration::MAX, |idle| idle / 4).clamp(Duration::from_millis(10), Duration::from_secs(60))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Wanted>)) {
        let mut wanted = self.wanted.lock();
        let before = wanted.len();
        change(&mut wanted);
        if wanted.len() != before {
            self.changes.send_modify(|version| *version += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_peer_is_let_go_once_nothing_of_it_was_wanted_for_long() {
        let demand = Demand::new(Some(Duration::from_secs(10)));
        let changes = demand.changes();
        assert!(!demand.wants("eu-west"));
        demand.want(["eu-west".to_owned()], at(0));
        demand.want(["eu-west".to_owned()], at(5));
        demand.let_go(at(14));
        assert!(demand.wants("eu-west") && !demand.wants("ap-south"));
        assert_eq!(*changes.borrow(), 1, "once for two that want it");
        demand.let_go(at(15));
        assert!(!demand.wants("eu-west"));
        assert_eq!(*changes.borrow(), 2);
    }

    #[test]
    fn a_peer_to_which_a_stream_is_open_is_wanted_until_long_after_its_end() {
        let demand = Demand::new(Some(Duration::from_secs(10)));
        demand.count("eu-west", true, at(0));
        demand.count("eu-west", true, at(0));
        demand.count("eu-west", false, at(1));
        demand.let_go(at(100));
        assert!(demand.wants("eu-west"));
        demand.count("eu-west", false, at(100));
        demand.let_go(at(109));
        assert!(demand.wants("eu-west"));
        demand.let_go(at(110));
        assert!(!demand.wants("eu-west"));
    }

    #[test]
    fn without_a_limit_all_are_wanted() {
        assert!(Demand::new(None).wants("eu-west"));
    }
}
