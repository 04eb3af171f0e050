//! A cluster in this process: gateways, and what sidecars do towards them, on real TLS and gRPC.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eastway_client::{Link, LinkOptions, Registrar, TlsConnector, Workload};
use eastway_core::view::Transport;
use eastway_core::{EndpointId, Health, Reason, ServiceName, SpiffeId};
use eastway_identity::{Ca, Identity, IssueOptions};
use eastway_registry::Admission;
use eastway_server::resources::Files;
use eastway_server::store::Store;
use eastway_server::{DialError, Dialer, Server, ServerConfig, ServerOptions};
use eastway_transport::Tunnel;
use eastway_transport::tcp::DialOptions;
use tokio::task::AbortHandle;

const DOMAIN: &str = "us-east.mesh.internal";

/// Dials nobody: there are no peers.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Dialer for Nobody {
    async fn dial(&self, _: &str, _: &str, _: Transport) -> Result<Arc<dyn Tunnel>, DialError> {
        Err(DialError { reason: Reason::PathDown, message: "there are no peers".to_owned() })
    }

    fn transports(&self) -> &[Transport] {
        &[Transport::Quic]
    }
}

/// The CA of the cluster.
pub(super) fn authority() -> Ca {
    Ca::create(DOMAIN, Duration::from_secs(86_400)).expect("a CA")
}

/// A workload's identity.
pub(super) fn account(ca: &Ca, name: &str) -> Arc<Identity> {
    identity(ca, &SpiffeId::workload(ca.trust_domain(), "shop", name))
}

fn identity(ca: &Ca, id: &SpiffeId) -> Arc<Identity> {
    let issued = ca.issue(id, &IssueOptions::default()).expect("issued");
    let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    Identity::from_pem(certificate, key, ca.bundle_pem().as_bytes()).expect("an identity")
}

/// A gateway on the store, and where its discovery listens.
pub(super) async fn gateway(ca: &Ca, store: impl Store + 'static, id: &str) -> (Arc<Server>, SocketAddr) {
    let discovery = eastway_transport::tcp::bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = discovery.local_addr().expect("bound");
    let config = ServerConfig {
        cluster: "us-east".to_owned(),
        region: "us-east-1".to_owned(),
        trust_domain: DOMAIN.to_owned(),
        zones: [("a".to_owned(), None)].into(),
        gateway: id.to_owned(),
        address: "127.0.0.1:1".to_owned(),
        identity: identity(ca, &SpiffeId::gateway(DOMAIN, id)),
        discovery,
        dialer: Arc::new(Nobody),
        admission: Admission { loopback: true, ..Admission::default() },
        state: None,
        options: ServerOptions::default(),
    };
    (Server::start(config, Arc::new(store), Files::default()).await.expect("started"), address)
}

/// A sidecar's way to its gateway.
pub(super) fn link(identity: &Arc<Identity>, address: SocketAddr) -> Link {
    let dial = DialOptions { connect_timeout: Duration::from_secs(10), ..DialOptions::default() };
    let options = LinkOptions { connect_timeout: Duration::from_secs(10), ..LinkOptions::default() };
    Link::new(
        vec![address.to_string()],
        Arc::new(TlsConnector::new(identity, &identity.id().trust_domain, dial)),
        options,
    )
}

/// Where somebody answers, should a gateway ask, and what ends that.
pub(super) async fn listen() -> (SocketAddr, AbortHandle) {
    let inbound = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = inbound.local_addr().expect("bound");
    let accepting = tokio::spawn(async move { while inbound.accept().await.is_ok() {} });
    (address, accepting.abort_handle())
}

/// A ready workload that is registered at the gateway.
pub(super) async fn register(identity: &Arc<Identity>, gateway: SocketAddr, workload: Workload) -> Arc<Registrar> {
    let (registrar, run) = Registrar::new(link(identity, gateway), workload);
    registrar.set_health(Health::Ready, "");
    tokio::spawn(run);
    registrar.registered().await;
    registrar
}

/// The endpoint of a service with this number, which is reached at `address`.
pub(super) fn workload(service: &str, endpoint: usize, address: SocketAddr) -> Workload {
    Workload {
        service: ServiceName::new("shop", service),
        endpoint: EndpointId::new(format!("{service}-{endpoint}")),
        zone: "a".to_owned(),
        address,
        weight: 1.0,
        capacity: 8,
        labels: BTreeMap::new(),
        incarnation: 1,
    }
}
