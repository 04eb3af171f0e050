//! The same over real QUIC and certificates: that gRPC and pings live on raw streams of a control connection, and that a
//! peer that was killed is found again as soon as it is back.

use eastway_identity::{Ca, Expected, Identity};
use eastway_transport::ALPN;
use eastway_transport::quic::{self, Endpoint, QuicOptions};

use super::*;
use crate::testing::identity;

/// One gateway's port: dials from it, and takes what is dialled to it, while the server runs.
#[derive(Debug)]
struct QuicDialer {
    endpoint: Endpoint,
    identity: Arc<Identity>,
}

#[async_trait]
impl Dialer for QuicDialer {
    async fn dial(&self, address: &str, trust_domain: &str, _: Transport) -> Result<Arc<dyn Tunnel>, DialError> {
        let gateway = Expected::Gateway { trust_domain: trust_domain.to_owned() };
        let client = eastway_identity::client_config(&self.identity, gateway, &[ALPN]);
        let address = address.parse().expect("an address");
        let tunnel = self.endpoint.connect(address, client, Kind::Control).await;
        Ok(tunnel.map_err(|error| DialError { reason: error.reason(), message: error.to_string() })?)
    }

    fn transports(&self) -> &[Transport] {
        &[Transport::Quic]
    }
}

/// A bound port, with the identity of the cluster's gateway.
fn port(cluster: &str, ca: &Ca, peer: &Ca) -> Arc<QuicDialer> {
    let own = identity(ca, &SpiffeId::gateway(&format!("{cluster}.mesh.internal"), "gw-1"));
    let bundle = vec![peer.certificate().clone()];
    own.set_peer_bundles(BTreeMap::from([(peer.trust_domain().to_owned(), bundle)])).expect("trusted");
    let options = QuicOptions::default();
    let socket = quic::bind(([127, 0, 0, 1], 0).into(), 0, &options).expect("bound").remove(0);
    let server = eastway_identity::server_config(&own, Expected::AnyGateway, &[ALPN]);
    let endpoint = Endpoint::new(socket, 0, server, &options).expect("an endpoint");
    Arc::new(QuicDialer { endpoint, identity: own })
}

/// A gateway at the port, whose peer is at `address`.
async fn gateway(cluster: &'static str, ca: Ca, port: &Arc<QuicDialer>, peer: &str, address: SocketAddr) -> Gateway {
    let mut resources = exporting_payments();
    let mut policy = policy(peer, &["*"]);
    policy.peer.gateways = vec![address.to_string()];
    resources.peers.insert(peer.to_owned(), policy);
    let mut gateway = Gateway::new(cluster, Arc::clone(port) as Arc<dyn Dialer>, resources).await;
    gateway.ca = Arc::new(ca);
    let (port, server) = (Arc::clone(port), Arc::clone(&gateway.server));
    tokio::spawn(async move {
        while let Some(incoming) = port.endpoint.accept().await {
            let Some(server) = server.lock().clone() else {
                incoming.refuse();
                continue;
            };
            tokio::spawn(async move {
                if let Ok(tunnel) = incoming.establish().await {
                    server.on_control_connection(tunnel).await;
                }
            });
        }
    });
    gateway
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_peer_over_quic_and_find_each_other_again() {
    let ca =
        |cluster: &str| Ca::create(&format!("{cluster}.mesh.internal"), Duration::from_secs(86_400)).expect("a CA");
    let (us_ca, eu_ca) = (ca("us-east"), ca("eu-west"));
    let (us_port, eu_port) = (port("us-east", &us_ca, &eu_ca), port("eu-west", &eu_ca, &us_ca));
    let at = |port: &QuicDialer| port.endpoint.local_addr().expect("bound");
    let us = gateway("us-east", us_ca, &us_port, "eu-west", at(&eu_port)).await;
    let eu = gateway("eu-west", eu_ca, &eu_port, "us-east", at(&us_port)).await;
    us.run().await;
    eu.run().await;
    let sidecar = eu.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    eventually("seen", || (ready(&us) == Some(1)).then_some(())).await;
    eventually("up", || path(&us).filter(|path| path.state == PathState::Up)).await;

    eu.kill().await;
    eventually("down", || path(&us).filter(|path| path.state == PathState::Down)).await;
    assert_eq!(ready(&us), Some(1));
    eu.run().await;
    eventually("up again", || path(&us).filter(|path| path.state == PathState::Up)).await;
    sidecar.registrar.set_health(Health::Unready, "");
    eventually("news", || (ready(&us) == Some(0)).then_some(())).await;
}
