//! Opaque streams on their way through this sidecar: CONNECT, and what follows an upgrade, in either direction.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eastway_core::Reason;
use eastway_core::resource::{Idle, OnFailback, ServicePort};
use eastway_request::{Answer, AnswerEnd};
use eastway_runtime::clock;
use eastway_transport::Io;
use eastway_transport::relay::{End, Side, SpliceOptions, splice_until};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::connections::{Direction, Listed, Stream};
use crate::record::Telemetry;
use crate::worker::Worker;

/// How often the bytes of an open stream reach the metrics.
const REPORT: Duration = Duration::from_secs(1);

/// Relays between the side that asked and the side that serves, until both have ended, either breaks, nothing moves for as long
/// as `port` allows, or it is left behind where that ends it. The metrics and operators learn of its bytes while it is open, and
/// `answer` of its end.
pub(crate) async fn relay(
    worker: &Worker,
    (asking, serving): (Io, Io),
    port: Option<&ServicePort>,
    mut answer: Answer<Telemetry>,
) {
    let node = &worker.node;
    let idle = port.and_then(|port| port.idle).map_or(node.config.timeouts.idle, Idle::limit);
    let (sent, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let options = SpliceOptions {
        idle,
        forward: Some(Arc::clone(&sent)),
        backward: Some(Arc::clone(&received)),
        ..SpliceOptions::default()
    };
    let listed = node.connections.open(described(&answer, port, asking.peer_addr(), idle));
    let drains = port.is_some_and(|port| port.on_failback == OnFailback::Drain);
    let mut failback = drains.then(|| worker.random(|rng| Failback::new(node.config.timeouts.failback, rng)));
    let mut bytes = Bytes { answer: &mut answer, listed, sent, received };
    let (left, mut leaves) = (Notify::new(), false);
    let withdrawn = async {
        left.notified().await;
        Reason::Draining
    };
    let mut relayed = std::pin::pin!(splice_until(asking, serving, options, withdrawn));
    let mut ticks = tokio::time::interval(REPORT);
    let relayed = loop {
        tokio::select! {
            biased;
            relayed = &mut relayed => break relayed,
            _ = ticks.tick() => {
                bytes.report();
                if failback.as_mut().is_some_and(|failback| failback.is_due(bytes.answer)) {
                    leaves = true;
                    left.notify_one();
                }
            }
        }
    };
    drop(bytes);
    // That it was ended here says nothing of who served it.
    let failure = reason(relayed.end).filter(|_| !leaves);
    answer.end(failure.map_or(AnswerEnd::Complete, AnswerEnd::Failed), clock::now());
    tracing::debug!(?relayed, "a stream ended");
}

/// What operators are told of a stream.
fn described(
    answer: &Answer<Telemetry>,
    port: Option<&ServicePort>,
    from: Option<SocketAddr>,
    idle: Duration,
) -> Stream {
    let pick = answer.pick();
    Stream {
        direction: if pick.is_some() { Direction::Outbound } else { Direction::Inbound },
        service: answer.facts().and_then(|facts| facts.service.clone()),
        port: port.map(|port| port.port),
        zone: pick.map(|pick| pick.locality.zone.to_string()),
        endpoint: pick.and_then(|pick| Some(pick.endpoint()?.id.to_string())),
        level: pick.map(|pick| pick.locality.level),
        from,
        idle,
    }
}

/// Ends a stream some time after it was left behind, each at another one.
struct Failback {
    after: Duration,
    since: Option<Instant>,
}

impl Failback {
    fn new(least: Duration, rng: &mut fastrand::Rng) -> Self {
        Self { after: least + least.mul_f64(rng.f64()), since: None }
    }

    fn is_due(&mut self, answer: &Answer<Telemetry>) -> bool {
        if !answer.is_left_behind() {
            self.since = None;
            return false;
        }
        self.since.get_or_insert_with(Instant::now).elapsed() >= self.after
    }
}

/// What passed since the last report; the rest is reported however the relay ends.
struct Bytes<'a> {
    answer: &'a mut Answer<Telemetry>,
    listed: Listed,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

impl Bytes<'_> {
    fn report(&mut self) {
        let (sent, received) = (self.sent.swap(0, Ordering::Relaxed), self.received.swap(0, Ordering::Relaxed));
        self.listed.moved(sent, received);
        self.answer.streamed(sent, received);
    }
}

impl Drop for Bytes<'_> {
    fn drop(&mut self) {
        self.report();
    }
}

/// Why a stream did not come to its regular end.
const fn reason(end: End) -> Option<Reason> {
    match end {
        End::Finished => None,
        End::Idle => Some(Reason::IdleTimeout),
        End::Withdrawn(reason) => Some(reason),
        End::Failed { side: Side::A, .. } => Some(Reason::CallerGone),
        End::Failed { side: Side::B, reason } => Some(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_its_caller_breaks_off_blames_nobody_else() {
        let broken = |side| End::Failed { side, reason: Reason::TunnelLost };
        assert_eq!(reason(broken(Side::A)), Some(Reason::CallerGone));
        assert_eq!(reason(broken(Side::B)), Some(Reason::TunnelLost));
        assert_eq!((reason(End::Finished), reason(End::Idle)), (None, Some(Reason::IdleTimeout)));
    }
}
