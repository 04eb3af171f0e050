//! Probes of endpoints whose sidecars fell silent: a TCP connection to the inbound listener, and nothing more.
//!
//! It also drives the catalogue's clock. Never: probing an endpoint whose stream lives; its sidecar knows better.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use eastway_registry::{Probe, ProbeOutcome};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::hub::Hub;

/// Runs until it is dropped.
pub(crate) async fn run(hub: Arc<Hub>) {
    let mut ticks = interval(hub.options.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut probes: JoinSet<(Probe, ProbeOutcome)> = JoinSet::new();
    let started = Instant::now();
    let mut refreshed = Instant::now();
    let mut waiting: Vec<Probe> = Vec::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                hub.change(|catalogue, now| catalogue.tick(now));
                hub.publish_loads();
                if refreshed.elapsed() >= hub.options.export_interval {
                    refreshed = Instant::now();
                    hub.change(|catalogue, now| catalogue.refresh_exported_loads(now));
                }
            }
            () = hub.probe.notified() => {}
            Some(Ok((probe, outcome))) = probes.join_next(), if !probes.is_empty() => {
                hub.change(|catalogue, now| catalogue.probed(&probe, outcome, now));
            }
        }
        waiting.extend(hub.change(|catalogue, now| catalogue.due_probes(now)));
        while probes.len() < hub.options.max_probes {
            let Some(probe) = waiting.pop() else { break };
            let limit = hub.options.probe_timeout;
            probes.spawn(async move {
                let outcome = knock(&probe, limit).await;
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

async fn knock(probe: &Probe, limit: Duration) -> ProbeOutcome {
    match timeout(limit, TcpStream::connect(probe.address)).await {
        Ok(Ok(_)) => ProbeOutcome::Answered,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => ProbeOutcome::Refused,
        Ok(Err(_)) | Err(_) => ProbeOutcome::Silent,
    }
}
