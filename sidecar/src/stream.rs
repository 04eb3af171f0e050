//! Opaque streams on their way through this sidecar: CONNECT, and what follows an upgrade, in either direction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eastway_core::Reason;
use eastway_request::{Answer, AnswerEnd};
use eastway_runtime::clock;
use eastway_transport::Io;
use eastway_transport::relay::{End, Side, SpliceOptions, splice};

use crate::record::Telemetry;

/// How often the bytes of an open stream reach the metrics.
const REPORT: Duration = Duration::from_secs(1);

/// Relays between the side that asked and the side that serves, until both have ended, either breaks, or nothing moved for
/// `idle`. The metrics learn of its bytes while it is open, and `answer` of its end.
pub(crate) async fn relay(asking: Io, serving: Io, idle: Duration, mut answer: Answer<Telemetry>) {
    let (sent, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let options = SpliceOptions {
        idle,
        forward: Some(Arc::clone(&sent)),
        backward: Some(Arc::clone(&received)),
        ..SpliceOptions::default()
    };
    let mut bytes = Bytes { answer: &mut answer, sent, received };
    let mut relayed = std::pin::pin!(splice(asking, serving, options));
    let mut ticks = tokio::time::interval(REPORT);
    let relayed = loop {
        tokio::select! {
            biased;
            relayed = &mut relayed => break relayed,
            _ = ticks.tick() => bytes.report(),
        }
    };
    drop(bytes);
    answer.end(reason(relayed.end).map_or(AnswerEnd::Complete, AnswerEnd::Failed), clock::now());
    tracing::debug!(?relayed, "a stream ended");
}

/// What passed since the last report; the rest is reported however the relay ends.
struct Bytes<'a> {
    answer: &'a mut Answer<Telemetry>,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

impl Bytes<'_> {
    fn report(&mut self) {
        let (sent, received) = (self.sent.swap(0, Ordering::Relaxed), self.received.swap(0, Ordering::Relaxed));
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
