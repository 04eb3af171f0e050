//! Tunnels between gateways: streams, bytes and round-trip time, by the cluster at the other end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use eastway_core::Reason;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::labels::{OTHER, values};
use super::{Described, Metrics};

pub(super) const TABLE: &[Described] = &[CONNECTIONS, OPENED, ACTIVE, REFUSED, SENT, RECEIVED, RTT];

const LABELS: &[&str] = &["peer_cluster", "protocol"];
const CONNECTIONS: Described = Described {
    name: "eastway_tunnel_connections",
    kind: "gauge",
    help: "Tunnel connections that are up",
    labels: LABELS,
};
const OPENED: Described = Described {
    name: "eastway_tunnel_streams_total",
    kind: "counter",
    help: "Tunnel streams, by who opened them: this node (`opened`) or the peer (`accepted`)",
    labels: &["peer_cluster", "protocol", "side"],
};
const ACTIVE: Described = Described {
    name: "eastway_tunnel_streams_active",
    kind: "gauge",
    help: "Tunnel streams that have not ended yet",
    labels: LABELS,
};
const REFUSED: Described = Described {
    name: "eastway_tunnel_streams_refused_total",
    kind: "counter",
    help: "Tunnel streams that were refused at either end, by reason (`docs/reasons.md`)",
    labels: &["peer_cluster", "protocol", "reason"],
};
const SENT: Described = Described {
    name: "eastway_tunnel_sent_bytes_total",
    kind: "counter",
    help: "Bytes of streams that were sent to the peer, without the tunnel's own framing",
    labels: LABELS,
};
const RECEIVED: Described = Described {
    name: "eastway_tunnel_received_bytes_total",
    kind: "counter",
    help: "Bytes of streams that came from the peer, without the tunnel's own framing",
    labels: LABELS,
};
const RTT: Described = Described {
    name: "eastway_tunnel_rtt_seconds",
    kind: "gauge",
    help: "Smoothed round-trip time of the tunnel as last measured",
    labels: LABELS,
};

/// Who opened a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamSide {
    /// This node.
    Opened,
    /// The peer.
    Accepted,
}

values! {
    StreamSide { Opened = "opened", Accepted = "accepted" }
}

type Labels = [(&'static str, Arc<str>); 2];
type LabelsAnd = [(&'static str, Arc<str>); 3];
/// The cluster at the other end, and what carries the tunnel.
type Key = (Arc<str>, &'static str);
type Seconds = Gauge<f64, AtomicU64>;

/// Makes the handles of tunnels. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TunnelMetrics(Arc<Table>);

#[derive(Debug)]
struct Table {
    families: Families,
    peers: Mutex<HashMap<Key, Arc<TunnelPeer>>>,
    limit: usize,
}

#[derive(Debug)]
struct Families {
    connections: Family<Labels, Gauge>,
    streams: Family<LabelsAnd, Counter>,
    active: Family<Labels, Gauge>,
    refused: Family<LabelsAnd, Counter>,
    sent: Family<Labels, Counter>,
    received: Family<Labels, Counter>,
    rtt: Family<Labels, Seconds>,
}

impl TunnelMetrics {
    /// Registers the metrics. Beyond `limit` peers, further ones are counted together as `_other`.
    pub fn new(metrics: &Metrics, limit: usize) -> Self {
        let families = Families {
            connections: metrics.register(&CONNECTIONS, Family::default()),
            streams: metrics.register(&OPENED, Family::default()),
            active: metrics.register(&ACTIVE, Family::default()),
            refused: metrics.register(&REFUSED, Family::default()),
            sent: metrics.register(&SENT, Family::default()),
            received: metrics.register(&RECEIVED, Family::default()),
            rtt: metrics.register(&RTT, Family::default()),
        };
        Self(Arc::new(Table { families, peers: Mutex::default(), limit }))
    }

    /// The handles for the tunnels to `cluster` that `protocol` carries. Takes a lock: keep them with the tunnel.
    pub fn peer(&self, cluster: &str, protocol: &'static str) -> Arc<TunnelPeer> {
        let mut peers = self.0.peers.lock();
        let mut key = (Arc::from(cluster), protocol);
        if peers.len() >= self.0.limit && !peers.contains_key(&key) {
            key.0 = Arc::from(OTHER);
        }
        let new = || Arc::new(TunnelPeer::new(&self.0.families, &key));
        Arc::clone(peers.entry(key.clone()).or_insert_with(new))
    }

    /// What is open now, by cluster; those of which nothing was ever open are not among it.
    pub fn open(&self) -> Vec<OpenTunnels> {
        let open = |((cluster, protocol), peer): (&Key, &Arc<TunnelPeer>)| OpenTunnels {
            cluster: Arc::clone(cluster),
            protocol,
            connections: peer.connections.get(),
            streams: peer.active.get(),
        };
        let mut all: Vec<_> = self.0.peers.lock().iter().map(open).collect();
        all.sort_by(|a, b| (&a.cluster, a.protocol).cmp(&(&b.cluster, b.protocol)));
        all
    }
}

/// What is open to one cluster now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTunnels {
    /// The cluster at the other end.
    pub cluster: Arc<str>,
    /// What carries the tunnels.
    pub protocol: &'static str,
    /// Connections that are up.
    pub connections: i64,
    /// Streams that have not ended yet.
    pub streams: i64,
}

/// The handles for the tunnels to one cluster.
#[derive(Debug)]
pub struct TunnelPeer {
    labels: Labels,
    connections: Gauge,
    streams: [Counter; StreamSide::ALL.len()],
    active: Gauge,
    refused: Family<LabelsAnd, Counter>,
    sent: Counter,
    received: Counter,
    rtt: Seconds,
}

impl TunnelPeer {
    fn new(families: &Families, (cluster, protocol): &Key) -> Self {
        let labels = [("peer_cluster", Arc::clone(cluster)), ("protocol", Arc::from(*protocol))];
        let streams = [StreamSide::Opened, StreamSide::Accepted]
            .map(|side| families.streams.get_or_create_owned(&and(&labels, "side", side.as_str())));
        Self {
            connections: families.connections.get_or_create_owned(&labels),
            streams,
            active: families.active.get_or_create_owned(&labels),
            refused: families.refused.clone(),
            sent: families.sent.get_or_create_owned(&labels),
            received: families.received.get_or_create_owned(&labels),
            rtt: families.rtt.get_or_create_owned(&labels),
            labels,
        }
    }

    /// A connection is up, until the guard is dropped.
    pub fn connected(self: &Arc<Self>) -> TunnelGuard {
        self.connections.inc();
        TunnelGuard(Arc::clone(self))
    }

    /// A stream begins; it is active until the guard is dropped.
    pub fn stream(self: &Arc<Self>, side: StreamSide) -> StreamGuard {
        self.streams[side as usize].inc();
        self.active.inc();
        StreamGuard(Arc::clone(self))
    }

    /// A stream was refused.
    pub fn refused(&self, reason: Reason) {
        self.refused.get_or_create_owned(&and(&self.labels, "reason", reason.code())).inc();
    }

    /// Bytes of streams went to the peer.
    pub fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }

    /// Bytes of streams came from the peer.
    pub fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    /// The round-trip time was measured.
    pub fn rtt(&self, rtt: Duration) {
        self.rtt.set(rtt.as_secs_f64());
    }
}

fn and(labels: &Labels, name: &'static str, value: &str) -> LabelsAnd {
    let [cluster, protocol] = labels.clone();
    [cluster, protocol, (name, Arc::from(value))]
}

/// A tunnel connection that is up.
#[derive(Debug)]
pub struct TunnelGuard(Arc<TunnelPeer>);

impl Drop for TunnelGuard {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// A tunnel stream that has not ended.
#[derive(Debug)]
pub struct StreamGuard(Arc<TunnelPeer>);

impl StreamGuard {
    /// The tunnel's handles, for the bytes of this stream.
    pub const fn peer(&self) -> &Arc<TunnelPeer> {
        &self.0
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.active.dec();
    }
}
