//! Places for streams: as many for each peer cluster and for each workload, so that none takes those of the others.

use std::sync::Arc;

use eastway_core::SpiffeId;
use eastway_resilience::limits::{KeyedLimit, KeyedPermit};

use crate::config::Limits;

/// The streams of one worker.
#[derive(Debug)]
pub(crate) struct Streams {
    peers: Arc<KeyedLimit<String>>,
    workloads: Arc<KeyedLimit<Arc<SpiffeId>>>,
}

/// The place of a stream, given back when it is dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "what is held is given back by being dropped")]
pub(crate) enum StreamPlace {
    Peer(KeyedPermit<String>),
    Workload(KeyedPermit<Arc<SpiffeId>>),
}

impl Streams {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { peers: KeyedLimit::new(limits.streams), workloads: KeyedLimit::new(limits.workload_streams) }
    }

    /// For a stream that a gateway of the peer `cluster` opened.
    pub(crate) fn of_peer(&self, cluster: &str) -> Option<StreamPlace> {
        self.peers.try_acquire(&cluster.to_owned()).map(StreamPlace::Peer)
    }

    /// For a stream that a sidecar of `workload` opened.
    pub(crate) fn of_workload(&self, workload: &Arc<SpiffeId>) -> Option<StreamPlace> {
        self.workloads.try_acquire(workload).map(StreamPlace::Workload)
    }

    /// Streams that are open.
    pub(crate) fn taken(&self) -> u32 {
        self.peers.taken() + self.workloads.taken()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_and_each_workload_has_its_own_streams() {
        let streams = Streams { peers: KeyedLimit::new(1), workloads: KeyedLimit::new(2) };
        let [storefront, admin] = ["storefront", "admin"]
            .map(|account| Arc::new(SpiffeId::workload("us-east.mesh.internal", "shop", account)));
        let taken = [streams.of_peer("eu-west"), streams.of_workload(&storefront), streams.of_workload(&storefront)];
        assert!(taken.iter().all(Option::is_some));
        assert!(streams.of_peer("eu-west").is_none() && streams.of_workload(&storefront).is_none());
        let others = [streams.of_peer("ap-south"), streams.of_workload(&admin)];
        assert!(others.iter().all(Option::is_some));
        assert_eq!(streams.taken(), 5);
        drop((taken, others));
        assert_eq!(streams.taken(), 0);
    }
}
