//! What this cluster declares of the service that the workload serves, held against a caller. Pure; what the caller says
//! of ports or of itself is never believed.

use eastway_core::resource::Protocol;
use eastway_core::view::{InboundRules, MeshView};
use eastway_core::{Reason, SpiffeId};

/// What the stream of a CONNECT carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// Bytes, which nobody reads on the way.
    Bytes,
    /// What its first bytes show, unless the application speaks first.
    Either,
    /// HTTP: each request in it is treated as one that came without CONNECT.
    Http,
}

/// What a CONNECT to the port `port` carries.
///
/// # Errors
/// [`Reason::UnknownPort`] if the service has no such port.
pub(super) fn carried(rules: &InboundRules, port: Option<u16>) -> Result<Carried, Reason> {
    match port.and_then(|port| rules.protocol(port)) {
        Some(Protocol::Tcp) => Ok(Carried::Bytes),
        Some(Protocol::Auto) => Ok(Carried::Either),
        Some(Protocol::Http | Protocol::Grpc) => Ok(Carried::Http),
        None => Err(Reason::UnknownPort),
    }
}

/// Whether workloads of the trust domain of `caller`, which is not this cluster's, are let in.
///
/// # Errors
/// [`Reason::NotExported`] if the service is not exported to the caller's cluster, [`Reason::IdentityRefused`] if the caller
/// is of no peer's cluster.
pub(super) fn let_in(rules: &InboundRules, mesh: &MeshView, caller: &SpiffeId) -> Result<(), Reason> {
    let peer = mesh.peers.iter().find(|peer| peer.cluster.trust_domain == caller.trust_domain);
    let peer = peer.ok_or(Reason::IdentityRefused)?;
    if rules.exports_to(&peer.cluster.name) { Ok(()) } else { Err(Reason::NotExported) }
}

#[cfg(test)]
mod tests {
    use eastway_core::resource::{ClusterMeta, ServicePort};
    use eastway_core::view::{PathState, PeerView, Staleness};

    use super::*;

    fn cluster(name: &str) -> ClusterMeta {
        let trust_domain = format!("{name}.mesh.internal");
        ClusterMeta {
            name: name.to_owned(),
            uid: "1".to_owned(),
            region: "r".to_owned(),
            trust_domain,
            zones: [].into(),
        }
    }

    fn mesh(peers: &[&str]) -> MeshView {
        let peer = |name: &&str| PeerView {
            cluster: cluster(name),
            trust_bundle: Vec::new(),
            path: PathState::Up,
            min_rtt: None,
            staleness: Staleness::Fresh,
        };
        MeshView { cluster: cluster("us-east"), peers: peers.iter().map(peer).collect() }
    }

    #[test]
    fn only_a_port_that_is_declared_for_bytes_carries_bytes() {
        let declared = [(80, Protocol::Http), (9000, Protocol::Tcp), (50051, Protocol::Grpc), (7000, Protocol::Auto)];
        let ports = declared.map(|(port, protocol)| ServicePort::new(port, protocol)).to_vec();
        let rules = InboundRules { ports, export: Vec::new() };
        assert_eq!(carried(&rules, Some(9000)), Ok(Carried::Bytes));
        assert_eq!(carried(&rules, Some(7000)), Ok(Carried::Either));
        assert_eq!(carried(&rules, Some(80)), Ok(Carried::Http));
        assert_eq!(carried(&rules, Some(50051)), Ok(Carried::Http));
        for port in [None, Some(81), Some(22)] {
            assert_eq!(carried(&rules, port), Err(Reason::UnknownPort), "{port:?}");
        }
    }

    #[test]
    fn a_peers_workload_is_let_in_where_the_service_is_exported_to_its_cluster() {
        let mesh = mesh(&["ap-south", "eu-west"]);
        let caller = |cluster: &str| SpiffeId::workload(&format!("{cluster}.mesh.internal"), "shop", "storefront");
        let rules = |export: &[&str]| {
            let export = export.iter().map(|to| (*to).to_owned()).collect();
            InboundRules { ports: Vec::new(), export }
        };
        assert_eq!(let_in(&rules(&["eu-west"]), &mesh, &caller("eu-west")), Ok(()));
        assert_eq!(let_in(&rules(&["*"]), &mesh, &caller("ap-south")), Ok(()));
        assert_eq!(let_in(&rules(&["eu-west"]), &mesh, &caller("ap-south")), Err(Reason::NotExported));
        assert_eq!(let_in(&rules(&[]), &mesh, &caller("eu-west")), Err(Reason::NotExported));
        assert_eq!(let_in(&rules(&["*"]), &mesh, &caller("removed")), Err(Reason::IdentityRefused));
    }
}
