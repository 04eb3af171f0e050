//! What an operator's commands are told of the mesh: services as a list, endpoints one by one, and the status with what is
//! wrong.
//!
//! Called by `admin.rs`. It only gathers; what is a problem is judged in `judge.rs`.

use std::collections::BTreeMap;

use eastway_core::{Health, ServiceName};
use eastway_node::listing::{ClusterListing, ServiceListing};
use eastway_node::problem::{Certificate, Problem};
use eastway_registry::{EndpointReport, Speaker};
use eastway_telemetry::metrics::OpenTunnels;
use serde::Serialize;

use crate::judge::{Facts, judge};
use crate::node::GatewayNode;

/// The tunnels to one peer that are open.
#[derive(Debug, Serialize)]
struct TunnelStatus {
    peer: String,
    /// What carries them: `quic`.
    transport: &'static str,
    connections: i64,
    /// Streams of requests, in both directions.
    streams: i64,
}

impl From<OpenTunnels> for TunnelStatus {
    fn from(open: OpenTunnels) -> Self {
        let OpenTunnels { cluster, protocol: transport, connections, streams } = open;
        Self { peer: cluster.to_string(), transport, connections, streams }
    }
}

/// The endpoints of a service: one by one in this cluster, in sum in the others.
#[derive(Debug, Serialize)]
struct ServiceEndpoints {
    /// `NAMESPACE/SERVICE`.
    service: String,
    endpoints: Vec<EndpointRow>,
    remote: Vec<ClusterListing>,
}

/// One endpoint.
#[derive(Debug, Serialize)]
struct EndpointRow {
    id: String,
    zone: String,
    address: String,
    health: Health,
    /// Why it is taken for that.
    why: String,
    /// Seconds since its sidecar last spoke to this gateway.
    age_seconds: Option<f64>,
    weight: f64,
    /// Requests at once; 0 if it does not say.
    capacity: u32,
    active_requests: Option<u32>,
    utilisation: Option<f32>,
    error_rate: Option<f32>,
    /// The gateway that has it from the source.
    gateway: String,
    /// That is the gateway that answers.
    own: bool,
    account: String,
    incarnation: u64,
    session: u64,
    labels: BTreeMap<String, String>,
}

/// The status of the gateway, with what is wrong.
pub(crate) fn status(node: &GatewayNode) -> serde_json::Value {
    let server = node.federation.server();
    let (status, cluster) = (server.status(), server.cluster());
    let (identity, draining) = (node.identity.id().to_string(), node.draining.started());
    let certificate = certificate(node);
    let problems = judge(&Facts {
        cluster: &cluster.name,
        gateway: &node.config.gateway,
        identity: &identity,
        admin: node.config.admin,
        draining,
        certificate,
        server: &status,
        services: &listings(node),
    });
    serde_json::json!({
        "role": "gateway",
        "gateway": node.config.gateway,
        "cluster": cluster,
        "identity": identity,
        "certificate": certificate,
        "version": env!("CARGO_PKG_VERSION"),
        "draining": draining,
        "tunnels": node.tunnels.open().into_iter().map(TunnelStatus::from).collect::<Vec<_>>(),
        "federation": status,
        "problems": problems as Vec<Problem>,
    })
}

fn certificate(node: &GatewayNode) -> Certificate {
    let lifetime = node.identity.lifetime();
    Certificate { days_left: lifetime.days_left(), days: lifetime.days() }
}

/// Every service that some cluster known here offers.
pub(crate) fn listings(node: &GatewayNode) -> Vec<ServiceListing> {
    let server = node.federation.server();
    let declared = server.declared();
    let listing = |name: ServiceName| {
        let view = server.view(&name)?;
        Some(ServiceListing::new(&view, &node.config.cluster, Some(declared.contains(&name))))
    };
    // One after the other: the catalogue is not held up for longer than one of them takes.
    server.services().into_iter().filter_map(listing).collect()
}

/// The endpoints of the service `name`, or of all; `None` if nobody offers it.
pub(crate) fn endpoints(node: &GatewayNode, name: Option<&ServiceName>) -> Option<serde_json::Value> {
    let server = node.federation.server();
    let names = name.map_or_else(|| server.services(), |name| vec![name.clone()]);
    let of = |name: ServiceName| {
        let view = server.view(&name)?;
        let mut clusters = ServiceListing::new(&view, &node.config.cluster, None).clusters;
        clusters.retain(|cluster| !cluster.own);
        let endpoints = server.endpoints(&name).into_iter().map(EndpointRow::from).collect();
        Some(ServiceEndpoints { service: name.to_string(), endpoints, remote: clusters })
    };
    let all: Vec<ServiceEndpoints> = names.into_iter().filter_map(of).collect();
    (name.is_none() || !all.is_empty()).then(|| serde_json::json!(all))
}

impl From<EndpointReport> for EndpointRow {
    fn from(report: EndpointReport) -> Self {
        let (view, load) = (&report.view, report.load);
        Self {
            id: view.id.to_string(),
            zone: view.zone.to_string(),
            address: view.address.to_string(),
            health: view.health,
            why: why(&report),
            age_seconds: match report.speaker {
                Speaker::Sidecar { age } => Some(age.as_secs_f64()),
                Speaker::Gateway { .. } | Speaker::Probes { .. } => None,
            },
            weight: view.weight,
            capacity: view.capacity,
            active_requests: load.map(|load| load.active_requests),
            utilisation: load.and_then(|load| load.utilisation),
            error_rate: load.map(|load| load.error_rate),
            gateway: report.gateway.to_string(),
            own: report.own,
            account: report.account.clone(),
            incarnation: view.incarnation,
            session: report.session,
            labels: view.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        }
    }
}

/// Why an endpoint is taken for what it is.
fn why(report: &EndpointReport) -> String {
    let gateway = &report.gateway;
    match report.speaker {
        Speaker::Sidecar { .. } if report.words.is_empty() => "its sidecar says so".to_owned(),
        Speaker::Sidecar { .. } => format!("its sidecar says: {}", report.words),
        Speaker::Gateway { down: true, .. } => format!("{gateway} found it down"),
        Speaker::Gateway { attached: true, .. } => format!("its sidecar says so to {gateway}"),
        Speaker::Gateway { attached: false, .. } => format!("{gateway} probes it: its sidecar is silent"),
        Speaker::Probes { down_for: Some(down), .. } => format!("down for {} s: probes fail", down.as_secs()),
        Speaker::Probes { probed: false, .. } => "its sidecar is silent: not probed yet".to_owned(),
        Speaker::Probes { failures: 0, .. } => "its sidecar is silent, but probes are answered".to_owned(),
        Speaker::Probes { failures, .. } => format!("its sidecar is silent, {failures} probe(s) failed"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use eastway_core::EndpointId;
    use eastway_core::view::EndpointView;

    use super::*;

    fn report(speaker: Speaker) -> EndpointReport {
        let view = EndpointView {
            id: EndpointId::new("p1"),
            zone: "a".into(),
            address: ([127, 0, 0, 1], 1).into(),
            weight: 1.0,
            health: Health::Ready,
            incarnation: 1,
            capacity: 0,
            labels: Default::default(),
            load: None,
        };
        EndpointReport {
            view: Arc::new(view),
            account: "payments".to_owned(),
            session: 1,
            gateway: "gateway-2".into(),
            own: false,
            speaker,
            reported: None,
            words: "".into(),
            load: None,
        }
    }

    #[test]
    fn why_an_endpoint_is_what_it_is_is_told_by_who_speaks_for_it() {
        let probes = |probed, failures, down: Option<u64>| Speaker::Probes {
            probed,
            failures,
            down_for: down.map(Duration::from_secs),
        };
        for (speaker, told) in [
            (Speaker::Sidecar { age: Duration::ZERO }, "its sidecar says so"),
            (Speaker::Gateway { attached: true, down: false }, "its sidecar says so to gateway-2"),
            (Speaker::Gateway { attached: false, down: false }, "gateway-2 probes it: its sidecar is silent"),
            (Speaker::Gateway { attached: false, down: true }, "gateway-2 found it down"),
            (probes(false, 0, None), "its sidecar is silent: not probed yet"),
            (probes(true, 0, None), "its sidecar is silent, but probes are answered"),
            (probes(true, 1, None), "its sidecar is silent, 1 probe(s) failed"),
            (probes(true, 2, Some(7)), "down for 7 s: probes fail"),
        ] {
            assert_eq!(why(&report(speaker)), told);
        }
        let said =
            EndpointReport { words: "no answer within 1s".into(), ..report(Speaker::Sidecar { age: Duration::ZERO }) };
        assert_eq!(why(&said), "its sidecar says: no answer within 1s");
    }

    #[test]
    fn the_age_is_that_of_the_sidecars_own_word_and_of_nothing_else() {
        let age = |speaker| EndpointRow::from(report(speaker)).age_seconds;
        assert_eq!(age(Speaker::Sidecar { age: Duration::from_millis(500) }), Some(0.5));
        assert_eq!(age(Speaker::Gateway { attached: true, down: false }), None);
    }
}
