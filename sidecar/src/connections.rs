//! The streams of bytes that are open through this sidecar, for operators: CONNECT, connections to ports for TCP, WebSockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eastway_core::ServiceName;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

/// All that are open.
#[derive(Debug)]
pub(crate) struct Connections {
    open: Mutex<BTreeMap<u64, Arc<Open>>>,
    next: AtomicU64,
    begin: Instant,
}

/// What is known of a stream when it opens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stream {
    pub(crate) direction: Direction,
    pub(crate) service: Option<ServiceName>,
    pub(crate) port: Option<u16>,
    /// `CLUSTER/ZONE`, and the endpoint there, of those that this sidecar has led somewhere.
    pub(crate) zone: Option<String>,
    pub(crate) endpoint: Option<String>,
    /// Its failover level: 0 in the caller's zone.
    pub(crate) level: Option<usize>,
    /// Who asked for it.
    pub(crate) from: Option<SocketAddr>,
    /// How long it may carry nothing.
    pub(crate) idle: Duration,
}

/// Which way a stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    /// To the application.
    Inbound,
    /// From the application.
    Outbound,
}

#[derive(Debug)]
struct Open {
    stream: Stream,
    since: Instant,
    sent: AtomicU64,
    received: AtomicU64,
    /// When bytes last passed, in milliseconds since the begin.
    moved: AtomicU64,
}

/// A stream that is listed until this is dropped.
#[derive(Debug)]
pub(crate) struct Listed {
    connections: Arc<Connections>,
    number: u64,
    open: Arc<Open>,
}

/// A stream, for operators.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectionListing {
    direction: Direction,
    service: Option<String>,
    port: Option<u16>,
    zone: Option<String>,
    endpoint: Option<String>,
    level: Option<usize>,
    from: Option<SocketAddr>,
    age_seconds: f64,
    /// Since bytes last passed.
    silent_seconds: f64,
    /// How long it may carry nothing; `null` for ever.
    idle_seconds: Option<u64>,
    sent_bytes: u64,
    received_bytes: u64,
}

/// A limit that is none.
const FOR_EVER: Duration = eastway_core::resource::Idle::OFF.limit();

impl Connections {
    /// None yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), next: AtomicU64::new(0), begin: Instant::now() })
    }

    /// A stream opens.
    pub(crate) fn open(self: &Arc<Self>, stream: Stream) -> Listed {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let open = Arc::new(Open {
            stream,
            since: Instant::now(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            moved: AtomicU64::new(self.now()),
        });
        self.open.lock().insert(number, Arc::clone(&open));
        Listed { connections: Arc::clone(self), number, open }
    }

    /// Those that are open, the oldest first.
    pub(crate) fn listing(&self) -> Vec<ConnectionListing> {
        let now = self.now();
        let listing = |open: &Arc<Open>| {
            let Stream { direction, service, port, zone, endpoint, level, from, idle } = open.stream.clone();
            ConnectionListing {
                direction,
                service: service.map(|service| service.to_string()),
                port,
                zone,
                endpoint,
                level,
                from,
                age_seconds: open.since.elapsed().as_secs_f64(),
                silent_seconds: now.saturating_sub(open.moved.load(Ordering::Relaxed)) as f64 / 1_000.0,
                idle_seconds: (idle < FOR_EVER).then_some(idle.as_secs()),
                sent_bytes: open.sent.load(Ordering::Relaxed),
                received_bytes: open.received.load(Ordering::Relaxed),
            }
        };
        self.open.lock().values().map(listing).collect()
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_millis() as u64
    }
}

impl Listed {
    /// So many more bytes have passed.
    pub(crate) fn moved(&self, sent: u64, received: u64) {
        if sent + received > 0 {
            self.open.sent.fetch_add(sent, Ordering::Relaxed);
            self.open.received.fetch_add(received, Ordering::Relaxed);
            self.open.moved.store(self.connections.now(), Ordering::Relaxed);
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_listed_with_what_passes_until_it_ends() {
        let connections = Connections::new();
        let stream = Stream {
            direction: Direction::Outbound,
            service: Some(ServiceName::new("shop", "db")),
            port: Some(5432),
            zone: Some("eu-west/a".to_owned()),
            endpoint: Some("db-1".to_owned()),
            level: Some(2),
            from: None,
            idle: FOR_EVER,
        };
        let listed = connections.open(stream.clone());
        let other = connections.open(Stream { idle: Duration::from_secs(300), ..stream });
        tokio::time::advance(Duration::from_secs(5)).await;
        listed.moved(3, 4);
        listed.moved(0, 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        let all = serde_json::to_value(connections.listing()).expect("JSON");
        assert_eq!((&all[0]["age_seconds"], &all[0]["silent_seconds"]), (&7.0.into(), &2.0.into()), "{all}");
        assert_eq!((&all[0]["sent_bytes"], &all[0]["received_bytes"]), (&3.into(), &4.into()));
        assert_eq!((&all[0]["idle_seconds"], &all[1]["idle_seconds"]), (&serde_json::Value::Null, &300.into()));
        drop(other);
        assert_eq!(connections.listing().len(), 1);
    }
}
