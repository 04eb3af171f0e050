//! Probes of endpoints whose sidecars fell silent: a TCP connection to the inbound listener, and nothing more.
//!
//! It also drives the catalogue's clock. Never: probing an endpoint whose stream lives; its sidecar knows better.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eastway_registry::{Probe, ProbeOutcome};
use eastway_transport::tcp;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::hub::Hub;

/// Finds out whether something listens at an address. Behind a trait so that tests decide who lives.
#[async_trait]
pub(crate) trait Prober: Send + Sync + std::fmt::Debug {
    /// Limited in time by itself.
    async fn probe(&self, address: SocketAddr) -> ProbeOutcome;
}

/// Opens a connection, and closes it again in order.
#[derive(Debug)]
pub(crate) struct TcpProber {
    pub(crate) timeout: Duration,
}

#[async_trait]
impl Prober for TcpProber {
    async fn probe(&self, address: SocketAddr) -> ProbeOutcome {
        match timeout(self.timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Nobody waits for it, and it ends by itself.
                tokio::spawn(tcp::close(stream, self.timeout));
                ProbeOutcome::Answered
            }
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => ProbeOutcome::Refused,
            Ok(Err(_)) | Err(_) => ProbeOutcome::Silent,
        }
    }
}

/// Runs until it is dropped.
pub(crate) async fn run(hub: Arc<Hub>, prober: Arc<dyn Prober>) {
    let mut ticks = interval(hub.options.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut probes: JoinSet<(Probe, ProbeOutcome)> = JoinSet::new();
    let started = Instant::now();
    let mut refreshed = Instant::now();
    let mut waiting: Vec<Probe> = Vec::new();
    loop {
        let mut look = true;
        tokio::select! {
            _ = ticks.tick() => {
                hub.change(|catalogue, now| catalogue.tick(now));
                hub.publish_loads();
                if refreshed.elapsed() >= hub.options.export_interval {
                    refreshed = Instant::now();
                    hub.change(|catalogue, now| catalogue.refresh_statements(now));
                }
            }
            () = hub.probe.notified() => {}
            // A result frees a place; what is due is looked for by the clock, because that goes over all endpoints.
            Some(Ok((probe, outcome))) = probes.join_next(), if !probes.is_empty() => {
                hub.change(|catalogue, now| catalogue.probed(&probe, outcome, now));
                look = false;
            }
        }
        if look {
            waiting.extend(hub.change(|catalogue, now| catalogue.due_probes(now)));
        }
        while probes.len() < hub.options.max_probes {
            let Some(probe) = waiting.pop() else { break };
            let prober = Arc::clone(&prober);
            probes.spawn(async move {
                let outcome = prober.probe(probe.address).await;
                (probe, outcome)
            });
        }
        settle(&hub, started);
    }
}

/// Subscribers are answered once everything that was loaded at the start has been probed, or took too long.
fn settle(hub: &Hub, started: Instant) {
    let settled = || started.elapsed() >= hub.options.settle || hub.read(|catalogue, _| catalogue.is_probed());
    if !*hub.settled.borrow() && settled() {
        hub.settled.send_replace(true);
    }
}
