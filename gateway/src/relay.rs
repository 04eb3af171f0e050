//! Relaying the bytes of an accepted stream, and counting them.

use eastway_core::{Chain, Reason};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eastway_http::Upgrading;
use eastway_server::PeerHold;
use eastway_telemetry::metrics::{StreamGuard, StreamSide, TunnelPeer};
use eastway_transport::Io;
use eastway_transport::relay::{SpliceOptions, splice_until};

use crate::node::GatewayNode;
use crate::streams::StreamPlace;

/// How often the bytes of a running stream reach the metrics.
const REPORT: Duration = Duration::from_secs(1);

/// The side that asked for the stream.
pub(crate) enum Downstream {
    /// A sidecar, once its 200 is sent.
    Upgrading(Upgrading),
    /// A peer gateway.
    Ready(Io),
}

/// A stream to or from a peer gateway, counted while it lives.
pub(crate) struct PeerStream {
    metrics: Arc<TunnelPeer>,
    side: StreamSide,
    /// The way that it was opened by, as a sidecar may name it to ask whether its gateway leaves.
    pub(crate) via: Option<String>,
    _open: StreamGuard,
    _hold: Option<PeerHold>,
}

impl PeerStream {
    /// A stream that a peer opened.
    pub(crate) fn accepted(metrics: Arc<TunnelPeer>) -> Self {
        let open = metrics.stream(StreamSide::Accepted);
        Self { metrics, side: StreamSide::Accepted, via: None, _open: open, _hold: None }
    }

    /// A stream that was opened to a peer's gateway, by the way that has this name; the peer stays connected meanwhile.
    pub(crate) fn opened(metrics: Arc<TunnelPeer>, via: String, hold: PeerHold) -> Self {
        let open = metrics.stream(StreamSide::Opened);
        Self { metrics, side: StreamSide::Opened, via: Some(via), _open: open, _hold: Some(hold) }
    }

    /// Adds what has passed: forward is from the side that asked.
    fn count(&self, forward: u64, backward: u64) {
        let (sent, received) = match self.side {
            StreamSide::Opened => (forward, backward),
            StreamSide::Accepted => (backward, forward),
        };
        self.metrics.sent(sent);
        self.metrics.received(received);
    }
}

/// Relays in the background until both directions have ended, or what allowed it is `withdrawn`.
pub(crate) fn spawn(
    node: &Arc<GatewayNode>,
    downstream: Downstream,
    upstream: Io,
    (place, peer): (StreamPlace, Option<PeerStream>),
    withdrawn: impl Future<Output = Reason> + 'static,
) {
    let (node, guard) = (Arc::clone(node), node.draining.guard());
    tokio::task::spawn_local(async move {
        let _guards = (place, guard);
        let downstream = match downstream {
            Downstream::Ready(io) => io,
            Downstream::Upgrading(upgrading) => match upgrading.io().await {
                Ok(io) => io,
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "the sidecar went away");
                    return;
                }
            },
        };
        let (forward, backward) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let options = SpliceOptions {
            idle: node.config.timeouts.idle,
            forward: Some(Arc::clone(&forward)),
            backward: Some(Arc::clone(&backward)),
            recorder: node.recorder.clone(),
            ..SpliceOptions::default()
        };
        let relayed = splice_until(downstream, upstream, options, withdrawn);
        let relayed = counting(relayed, || {
            if let Some(peer) = &peer {
                peer.count(forward.swap(0, Ordering::Relaxed), backward.swap(0, Ordering::Relaxed));
            }
        })
        .await;
        tracing::trace!(?relayed, "a stream ended");
    });
}

/// Runs `relay` to its end, and `report`s now and then and at the end, however it comes.
async fn counting<T>(relay: impl Future<Output = T>, report: impl Fn()) -> T {
    struct Finally<F: Fn()>(F);
    impl<F: Fn()> Drop for Finally<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let report = Finally(report);
    tokio::pin!(relay);
    let mut ticks = tokio::time::interval(REPORT);
    loop {
        tokio::select! {
            biased;
            outcome = &mut relay => return outcome,
            _ = ticks.tick() => (report.0)(),
        }
    }
}
