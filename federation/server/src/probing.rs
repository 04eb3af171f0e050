//! Probes of endpoints whose sidecars fell silent: a TCP connection to the inbound listener, and, if they stay silent, a TLS handshake.
//!
//! It also drives the catalogue's clock. Never: probing an endpoint whose stream lives; its sidecar knows better.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eastway_identity::{Expected, Identity, client_config};
use eastway_registry::{Probe, ProbeOutcome};
use eastway_transport::{Io, tcp, tls};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::hub::Hub;

/// Finds out whether somebody lives at an address. Behind a trait so that tests decide who does.
#[async_trait]
pub(crate) trait Prober: Send + Sync + std::fmt::Debug {
    /// Limited in time by itself. See [`Probe::thorough`].
    async fn probe(&self, address: SocketAddr, thorough: bool) -> ProbeOutcome;
}

/// Opens a connection; if it is to be thorough, begins a TLS session.
#[derive(Debug)]
pub(crate) struct TlsProber {
    /// What it shows.
    pub(crate) identity: Arc<Identity>,
    pub(crate) timeout: Duration,
}

impl TlsProber {
    async fn connect(&self, address: SocketAddr, thorough: bool) -> ProbeOutcome {
        let stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return ProbeOutcome::Refused,
            Err(_) => return ProbeOutcome::Silent,
        };
        if thorough {
            let tls = client_config(&self.identity, Expected::AnyWorkload, &[b"http/1.1"]);
            // Whatever it says, it lives.
            drop(tls::connect(Io::from(stream), tls).await);
        } else {
            // Nobody waits for it, and it ends by itself.
            tokio::spawn(tcp::close(stream, self.timeout));
        }
        ProbeOutcome::Answered
    }
}

#[async_trait]
impl Prober for TlsProber {
    async fn probe(&self, address: SocketAddr, thorough: bool) -> ProbeOutcome {
        timeout(self.timeout, self.connect(address, thorough)).await.unwrap_or(ProbeOutcome::Silent)
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
                let outcome = prober.probe(probe.address, probe.thorough).await;
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use eastway_core::SpiffeId;
    use eastway_identity::Ca;

    use super::*;
    use crate::testing::identity;

    async fn probes(address: SocketAddr) -> [ProbeOutcome; 2] {
        let ca = Ca::create("us-east.mesh.internal", Duration::from_secs(3_600)).expect("a CA");
        let identity = identity(&ca, &SpiffeId::gateway("us-east.mesh.internal", "gw-1"));
        let prober = TlsProber { identity, timeout: Duration::from_millis(500) };
        [prober.probe(address, false).await, prober.probe(address, true).await]
    }

    #[tokio::test]
    async fn a_process_that_stands_still_takes_connections_and_does_not_answer() {
        // Nobody ever accepts, and the kernel does not tell.
        let still = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = still.local_addr().expect("bound");
        assert_eq!(probes(address).await, [ProbeOutcome::Answered, ProbeOutcome::Silent]);
        drop(still);
        assert_eq!(probes(address).await, [ProbeOutcome::Refused; 2]);
    }

    #[tokio::test]
    async fn whoever_says_anything_lives() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            for connection in listener.incoming().take(2) {
                let _ = connection.and_then(|mut connection| connection.write_all(b"what?"));
            }
        });
        assert_eq!(probes(address).await, [ProbeOutcome::Answered; 2]);
    }
}
