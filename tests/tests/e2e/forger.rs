//! Who can do nothing but send first packets of QUIC handshakes, as anybody can who forges addresses.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use eastway_core::SpiffeId;
use eastway_identity::{Ca, Expected, Identity, IssueOptions, client_config};
use eastway_transport::ALPN;
use eastway_transport::quic::{self, Endpoint, Kind, QuicOptions};

/// Packets of one round; the next one sends the same again. More than a gateway's bounds, so that what it keeps of them
/// would be full.
const PACKETS: usize = 1_500;
/// Sockets to send from, each with a port of its own.
const SOURCES: usize = 50;
/// Packets at once, and the pause after them: 1,500 a second.
const BURST: usize = 15;
const PAUSE: Duration = Duration::from_millis(10);

/// A flood of first packets, until it is dropped.
#[derive(Debug)]
pub(crate) struct Forger {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    sending: Option<JoinHandle<()>>,
}

impl Forger {
    /// Begins to send to `target`.
    pub(crate) fn flood(target: SocketAddr) -> Self {
        let packets = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(first_packets(PACKETS));
        let bind = |_| UdpSocket::bind("127.0.0.1:0").expect("bound");
        let sources: Vec<UdpSocket> = (0..SOURCES).map(bind).collect();
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&sent));
        let sending = std::thread::spawn(move || {
            for (number, packet) in packets.iter().enumerate().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // Nobody listens while the target starts.
                let _ = sources[number % SOURCES].send_to(packet, target);
                counted.fetch_add(1, Ordering::Relaxed);
                if number % BURST == 0 {
                    std::thread::sleep(PAUSE);
                }
            }
        });
        Self { stop, sent, sending: Some(sending) }
    }

    /// Packets sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Forger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sending) = self.sending.take() {
            // A panic in there was printed already.
            let _ = sending.join();
        }
    }
}

/// Real first packets: each is what a client sends to somebody who never answers.
async fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let ca = Ca::create("forger.mesh.internal", Duration::from_secs(3_600)).expect("a CA");
    let id = SpiffeId::gateway("forger.mesh.internal", "gw-1");
    let issued = ca.issue(&id, &IssueOptions::default()).expect("issued");
    let identity =
        Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes(), ca.bundle_pem().as_bytes())
            .expect("an identity");
    let client = client_config(&identity, Expected::AnyGateway, &[ALPN]);
    let server = eastway_identity::server_config(&identity, Expected::AnyGateway, &[ALPN]);
    let options = QuicOptions::default();
    let socket = quic::bind(([127, 0, 0, 1], 0).into(), 0, &options).expect("bound").remove(0);
    let endpoint = Endpoint::new(socket, 0, server, &options).expect("an endpoint");
    let mut packets = Vec::new();
    for number in 0..count {
        let kind = if number % 2 == 0 { Kind::Control } else { Kind::Data };
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let address = silent.local_addr().expect("bound");
        let mut packet = vec![0; 2048];
        let length = tokio::select! {
            received = silent.recv(&mut packet) => received.expect("a packet"),
            ended = endpoint.connect(address, client.clone(), kind) => panic!("nobody answers: {ended:?}"),
        };
        packet.truncate(length);
        packets.push(packet);
    }
    packets
}
