//! What the tests of this crate share: gateways of two clusters, their endpoints, and tunnels between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::SpiffeId;
use eastway_identity::{Ca, ClientTls, Expected, Identity, IssueOptions, ServerTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;

use crate::quic::{self, Endpoint, QuicOptions, QuicTunnel};
use crate::tcp_tunnel::{ALPN as ALPNS, TcpCarrier, TcpOptions};
use crate::tunnel::{Carrier as _, ConnectError, Tunnel};
use crate::{ALPN, Io, Kind, tls};

pub(crate) const US: &str = "us-east.mesh.internal";
pub(crate) const EU: &str = "eu-west.mesh.internal";
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Far more than anything here takes, so that a test that hangs fails instead.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("within the test's patience")
}

pub(crate) fn ca(trust_domain: &str) -> Ca {
    Ca::create(trust_domain, Duration::from_secs(86_400)).expect("a CA")
}

pub(crate) fn identity(ca: &Ca, id: &SpiffeId) -> Arc<Identity> {
    let issued = ca.issue(id, &IssueOptions::default()).expect("issued");
    Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes(), ca.bundle_pem().as_bytes())
        .expect("an identity")
}

/// The identities of a gateway in each of two clusters that trust each other.
pub(crate) fn gateways() -> (Arc<Identity>, Arc<Identity>) {
    let (us_ca, eu_ca) = (ca(US), ca(EU));
    let us = identity(&us_ca, &SpiffeId::gateway(US, "gw-1"));
    let eu = identity(&eu_ca, &SpiffeId::gateway(EU, "gw-1"));
    trust(&us, &eu_ca);
    trust(&eu, &us_ca);
    (us, eu)
}

pub(crate) fn trust(identity: &Identity, ca: &Ca) {
    let bundle = vec![ca.certificate().clone()];
    identity.set_peer_bundles(BTreeMap::from([(ca.trust_domain().to_owned(), bundle)])).expect("trusted");
}

/// A workload of the US cluster, calling.
pub(crate) fn caller() -> SpiffeId {
    SpiffeId::workload(US, "shop", "storefront")
}

pub(crate) fn client(identity: &Arc<Identity>, trust_domain: &str) -> ClientTls {
    let expected = Expected::Gateway { trust_domain: trust_domain.to_owned() };
    eastway_identity::client_config(identity, expected, &[ALPN])
}

pub(crate) fn server(identity: &Arc<Identity>) -> ServerTls {
    eastway_identity::server_config(identity, Expected::AnyGateway, &[ALPN])
}

/// The endpoints of a gateway: control first, then data workers, all driven by the test's runtime.
pub(crate) fn endpoints(identity: &Arc<Identity>, data_workers: usize, options: &QuicOptions) -> Vec<Endpoint> {
    let sockets = quic::bind(LOOPBACK, data_workers, options).expect("bound");
    let endpoint = |(shard, socket)| Endpoint::new(socket, shard, server(identity), options).expect("an endpoint");
    (0..).zip(sockets).map(endpoint).collect()
}

/// A tunnel from the US gateway to the EU gateway: both ends.
pub(crate) async fn tunnel(options: &QuicOptions) -> (Arc<QuicTunnel>, Arc<QuicTunnel>) {
    let (us, eu) = gateways();
    let ours = endpoints(&us, 0, options).remove(0);
    let theirs = endpoints(&eu, 0, options).remove(0);
    let address = theirs.local_addr().expect("bound");
    let (out, back) = tokio::join!(soon(ours.connect(address, client(&us, EU), Kind::Data)), async {
        soon(theirs.accept()).await.expect("open").establish().await
    });
    (out.expect("connected"), back.expect("accepted"))
}

/// Both transports, for tests that must hold over each.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    Quic,
    Tcp,
}

/// The limits of a tunnel that tests change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_streams: u32,
    pub(crate) open_timeout: Duration,
    pub(crate) opening_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let QuicOptions { max_streams, open_timeout, opening_timeout, .. } = QuicOptions::default();
        Self { max_streams, open_timeout, opening_timeout }
    }
}

impl Over {
    /// A tunnel from the US gateway to the EU gateway: both ends.
    pub(crate) async fn tunnel(self, limits: Limits) -> (Arc<dyn Tunnel>, Arc<dyn Tunnel>) {
        let Limits { max_streams, open_timeout, opening_timeout } = limits;
        match self {
            Self::Quic => {
                let options = QuicOptions { max_streams, open_timeout, opening_timeout, ..QuicOptions::default() };
                let (out, back) = tunnel(&options).await;
                (out, back)
            }
            Self::Tcp => {
                let options = TcpOptions { max_streams, open_timeout, opening_timeout, ..TcpOptions::default() };
                let (us, eu) = gateways();
                let (out, back) = tcp_tunnel(&us, &eu, &options).await;
                (out.expect("connected"), back.expect("accepted"))
            }
        }
    }
}

/// A gateway's TCP port: what arrives there is left for the carrier.
pub(crate) fn tcp_port(identity: &Arc<Identity>, options: &TcpOptions) -> (TcpCarrier, SocketAddr) {
    let listener = std::net::TcpListener::bind(LOOPBACK).expect("bound");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("bound");
    let listener = TcpListener::from_std(listener).expect("a listener");
    let carrier = TcpCarrier::new(options);
    let (tls, arrivals) = (eastway_identity::server_config(identity, Expected::AnyGateway, ALPNS), carrier.arrivals());
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.expect("open");
            let (tls, arrivals) = (tls.clone(), arrivals.clone());
            tokio::spawn(async move {
                // Who is refused learns why by itself.
                if let Ok(io) = tls::accept_by(tcp.into(), |_| tls).await {
                    arrivals.hand_over(io).expect("room");
                }
            });
        }
    });
    (carrier, address)
}

type TcpEnds = (Result<Arc<dyn Tunnel>, ConnectError>, Result<Arc<dyn Tunnel>, ConnectError>);

/// A tunnel over TCP from the gateway `us` to the gateway `eu`: what each has of it.
pub(crate) async fn tcp_tunnel(us: &Arc<Identity>, eu: &Arc<Identity>, options: &TcpOptions) -> TcpEnds {
    let (theirs, address) = tcp_port(eu, options);
    let ours = TcpCarrier::new(options);
    tokio::join!(soon(ours.connect(address, client(us, EU), Kind::Data)), async {
        soon(theirs.accept()).await.expect("open").establish().await
    })
}

/// The first packets of `count` handshakes of which nothing more is sent, and a socket to send each from: all that a forger
/// of addresses has.
pub(crate) async fn initials(count: usize) -> Vec<(Vec<u8>, UdpSocket)> {
    let (us, _) = gateways();
    let endpoint = endpoints(&us, 0, &QuicOptions::default()).remove(0);
    let mut packets = Vec::new();
    for _ in 0..count {
        let socket = UdpSocket::bind(LOOPBACK).await.expect("bound");
        let address = socket.local_addr().expect("bound");
        let mut packet = vec![0; 2048];
        let length = tokio::select! {
            received = soon(socket.recv(&mut packet)) => received.expect("a packet"),
            ended = endpoint.connect(address, client(&us, EU), Kind::Data) => panic!("nobody answers: {ended:?}"),
        };
        packet.truncate(length);
        packets.push((packet, socket));
    }
    packets
}

/// A TCP connection: both ends.
pub(crate) async fn tcp_pair() -> (Io, Io) {
    let listener = TcpListener::bind(LOOPBACK).await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let (out, back) = tokio::join!(TcpStream::connect(address), listener.accept());
    (out.expect("connected").into(), back.expect("accepted").0.into())
}

/// Reads to the regular end.
pub(crate) async fn read_all(io: &mut Io) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon(io.read_to_end(&mut bytes)).await.expect("a regular end");
    bytes
}

/// Writes everything, and the end.
pub(crate) async fn send_all(io: &mut Io, bytes: &[u8]) {
    soon(io.write_all(bytes)).await.expect("written");
    soon(io.shutdown()).await.expect("ended");
}

/// Reads until an error comes.
pub(crate) async fn read_error(io: &mut Io) -> std::io::Error {
    soon(io.read_to_end(&mut Vec::new())).await.expect_err("an error instead of the end")
}

/// Bytes that do not repeat at any interval that matters here.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

/// Writes until an error comes.
pub(crate) async fn write_error(io: &mut Io) -> std::io::Error {
    soon(async {
        loop {
            if let Err(error) = io.write_all(&[0; 4096]).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// A runtime with one thread of its own, and the endpoint of `identity` in it.
pub(crate) fn elsewhere(identity: &Arc<Identity>, options: &QuicOptions) -> (Runtime, Endpoint) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let inside = runtime.enter();
    let endpoint = endpoints(identity, 0, options).remove(0);
    drop(inside);
    (runtime, endpoint)
}

/// Ends a runtime and all of its tasks, which must not be waited for inside of another.
pub(crate) async fn end(runtime: Runtime) {
    tokio::task::spawn_blocking(move || drop(runtime)).await.expect("ended");
}
