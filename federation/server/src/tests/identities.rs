//! Over real TCP and TLS: who may connect to discovery at all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eastway_client::{
    Connector, Discovery, DiscoveryOptions, Link, LinkOptions, Registrar, Sink, TlsConnector, Workload,
};
use eastway_core::{EndpointId, Health, SpiffeId};
use eastway_identity::{Ca, Identity};
use eastway_transport::tcp::DialOptions;

use crate::testing::{Gateway, Notes, eventually, identity, payments};

const US: &str = "us-east.mesh.internal";

/// A gateway that listens, and where.
async fn listening() -> (Gateway, SocketAddr) {
    let gateway =
        Gateway::new("us-east", Arc::new(crate::testing::NoDialer), crate::testing::exporting_payments()).await;
    let config = gateway.config();
    let address = config.discovery.local_addr().expect("bound");
    let resources = gateway.resources.lock().clone();
    let server =
        crate::Server::start(config, Arc::new(gateway.store.clone()), resources.into()).await.expect("started");
    *gateway.server.lock() = Some(server);
    (gateway, address)
}

fn connector(identity: &Arc<Identity>) -> TlsConnector {
    TlsConnector::new(identity, US, DialOptions { connect_timeout: Duration::from_secs(5), ..DialOptions::default() })
}

fn link(identity: &Arc<Identity>, address: SocketAddr) -> Link {
    let options = LinkOptions { connect_timeout: Duration::from_secs(5), ..LinkOptions::default() };
    Link::new(vec![address.to_string()], Arc::new(connector(identity)), options)
}

fn workload(address: SocketAddr) -> Workload {
    Workload {
        service: payments(),
        endpoint: EndpointId::new("p1"),
        zone: "a".to_owned(),
        address,
        weight: 1.0,
        capacity: 8,
        labels: BTreeMap::from([("version".to_owned(), "2".to_owned())]),
        incarnation: 1,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registering_and_resolving_work_over_mutual_tls_and_a_dead_process_is_noticed() {
    let (gateway, address) = listening().await;
    let inbound = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let served = identity(&gateway.ca, &SpiffeId::workload(US, "shop", "payments"));
    let (registrar, run) = Registrar::new(link(&served, address), workload(inbound.local_addr().expect("bound")));
    registrar.set_health(Health::Ready, "");
    let process = tokio::spawn(run);
    registrar.registered().await;

    let calling = identity(&gateway.ca, &SpiffeId::workload(US, "shop", "storefront"));
    let notes = Arc::new(Notes::default());
    let options = DiscoveryOptions { resolve_timeout: Duration::from_secs(10), ..DiscoveryOptions::new("us-east") };
    let (discovery, run) = Discovery::new(link(&calling, address), options, Arc::clone(&notes) as Arc<dyn Sink>);
    tokio::spawn(run);
    let view = discovery.resolve(&payments()).await.expect("known");
    assert_eq!(
        (view.endpoints[0].capacity, view.endpoints[0].labels.get("version").map(String::as_str)),
        (8, Some("2"))
    );

    drop(inbound);
    process.abort();
    eventually("down", || (notes.health("p1") == Some(Health::Down)).then_some(())).await;
    gateway.running().shutdown(Duration::from_secs(10)).await.expect("every task ends");
}

#[tokio::test]
async fn certificates_of_foreign_cas_and_gateways_do_not_get_in() {
    let (gateway, address) = listening().await;
    let impostor = Ca::create(US, Duration::from_secs(86_400)).expect("a CA");
    let strangers = [
        ("of a foreign CA", identity(&impostor, &SpiffeId::workload(US, "shop", "payments"))),
        ("a gateway", identity(&gateway.ca, &SpiffeId::gateway(US, "gw-2"))),
    ];
    for (what, stranger) in strangers {
        let (registrar, run) = Registrar::new(link(&stranger, address), workload(address));
        let task = tokio::spawn(run);
        let waited = tokio::time::timeout(Duration::from_millis(700), registrar.registered()).await;
        assert!(waited.is_err(), "{what} registered");
        task.abort();
    }
    assert_eq!(gateway.health("p1"), None);
}

#[tokio::test]
async fn a_workload_that_poses_as_a_gateway_is_not_spoken_to() {
    let gateway = Gateway::start("us-east").await;
    let posing = identity(&gateway.ca, &SpiffeId::workload(US, "shop", "payments"));
    let config = eastway_identity::server_config(&posing, eastway_identity::Expected::Any, &[b"h2"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = eastway_transport::tls::accept(eastway_transport::Io::from(stream), config.clone()).await;
        }
    });
    let calling = identity(&gateway.ca, &SpiffeId::workload(US, "shop", "storefront"));
    let error = connector(&calling).connect(&address.to_string()).await.expect_err("refused");
    assert!(!error.to_string().is_empty());
}
