//! What a lab writes: certificates, resources, and the configuration of each node.

use std::net::SocketAddr;
use std::path::PathBuf;

use eastway_core::SpiffeId;
use eastway_identity::{Ca, IssueOptions, Overwrite};

use super::{Lab, LabNode, StoreKind};

impl Lab {
    /// Writes the resources of the cluster `name`: payments, exported to all, and its peers.
    ///
    /// # Panics
    /// If a cluster was not planned.
    pub fn resources(&self, name: &str, peers: &[&str]) {
        let payments = service("payments", PAYMENTS_SPEC);
        let peers = peers.iter().map(|peer| self.peer(peer, "imports: ['shop/*']"));
        let all: Vec<String> = [payments].into_iter().chain(peers).collect();
        self.declare(name, &all);
    }

    /// Writes `resources` as those of the cluster `name`.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn declare(&self, name: &str, resources: &[String]) {
        self.write(&format!("{name}-resources.yaml"), &resources.join("---\n"));
    }

    /// The resource by which another cluster peers with `name`; `more` goes into its `spec`.
    ///
    /// # Panics
    /// If the cluster was not planned.
    pub fn peer(&self, name: &str, more: &str) -> String {
        let gateways: Vec<SocketAddr> = self.gateways(name).into_iter().map(|gateway| gateway.at(15443)).collect();
        self.peer_at(name, &gateways, more)
    }

    /// The same, with gateways that are reached at other addresses than their own.
    pub fn peer_at(&self, name: &str, gateways: &[SocketAddr], more: &str) -> String {
        let gateways: Vec<String> = gateways.iter().map(|address| format!("'{address}'")).collect();
        let spec = format!("gateways: [{}], trustBundle: {name}-ca/ca.crt, {more}", gateways.join(", "));
        format!("apiVersion: eastway.dev/v1\nkind: Peer\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n")
    }

    /// Writes the configuration of the gateway of the cluster `name`, and issues its certificate.
    pub fn configure_gateway(&self, name: &str) -> PathBuf {
        self.gateway_file(name, &self.gateway(name), "gateway-1")
    }

    /// The same for any gateway of the cluster, by its id.
    pub(super) fn gateway_file(&self, name: &str, node: &LabNode, id: &str) -> PathBuf {
        let identity = self.certify(name, &node.name, name, &SpiffeId::gateway(&trust_domain(name), id));
        let cluster = &self.clusters[name];
        let (ip, extra, tunnel) = (node.ip, &cluster.extra, &cluster.tunnel);
        let store = match cluster.store {
            StoreKind::Embedded => format!("embedded: {{ path: {name}-gateway-state }}"),
            StoreKind::Etcd => {
                let members: Vec<String> = cluster.etcd.iter().map(|etcd| format!("'http://{etcd}:2379'")).collect();
                format!("etcd: {{ endpoints: [{}] }}", members.join(", "))
            }
        };
        let record = if cluster.recorded { format!(", record: {name}-relayed") } else { String::new() };
        let text = format!(
            "cluster: {name}\nregion: {name}\ngateway: {id}\nzones: {{ a: {{}}, b: {{}} }}\n{identity}\n\
             tunnel: {{ listen: '{ip}:15443'{record}{tunnel} }}\ndiscovery: {{ listen: '{ip}:15010' }}\nadmin: {{ listen: '{ip}:15000' }}\n\
             metrics: {{ listen: '{ip}:15020' }}\nstore: {{ {store} }}\nresources: [{name}-resources.yaml]\n{extra}"
        );
        self.write(&format!("{}.yaml", node.name), &text)
    }

    /// Writes the configuration of a sidecar that runs as `account`, and issues its certificate. `more` begins with
    /// what belongs under `workload`.
    pub fn configure(&self, cluster: &str, zone: &str, node: &LabNode, account: &str, more: &str) -> PathBuf {
        let id = SpiffeId::workload(&trust_domain(cluster), "shop", account);
        let identity = self.certify(cluster, &node.name, cluster, &id);
        let gateways = self.gateways(cluster).into_iter();
        let gateways = gateways
            .map(|gateway| format!("{{ discovery: '{}', tunnel: '{}' }}", gateway.at(15010), gateway.at(15443)));
        let gateways = gateways.collect::<Vec<_>>().join(", ");
        let (ip, name) = (node.ip, &node.name);
        let text = format!(
            "cluster: {cluster}\nzone: {zone}\n{identity}\ngateways: [{gateways}]\n\
             outbound: {{ proxy: '{ip}:15080', listeners: [{{ listen: '{ip}:19000', service: shop/payments, port: 9000 }}] }}\nadmin: {{ listen: '{ip}:15000' }}\nmetrics: {{ listen: '{ip}:15020' }}\n\
             state: {name}-state\nworkload:\n  name: {name}\n  namespace: shop\n{more}"
        );
        self.write(&format!("{name}.yaml"), &text)
    }

    /// Issues an identity by the CA of the cluster `authority`, as the files `name` of `cluster`, and answers the
    /// configuration line that names them.
    ///
    /// # Panics
    /// If a cluster was not planned.
    pub fn certify(&self, cluster: &str, name: &str, authority: &str, id: &SpiffeId) -> String {
        self.certify_with(cluster, name, &self.clusters[authority].authority, id, &IssueOptions::default())
    }

    /// The same, by any CA.
    ///
    /// # Panics
    /// If the CA cannot issue it.
    pub fn certify_with(&self, cluster: &str, name: &str, ca: &Ca, id: &SpiffeId, options: &IssueOptions) -> String {
        let issued = ca.issue(id, options).expect("a CA can issue for its own trust domain");
        issued.save(&self.identities(cluster), name, Overwrite::Force).expect("the lab's folder is writable");
        format!(
            "identity: {{ certificate: {cluster}-identities/{name}.crt, key: {cluster}-identities/{name}.key, bundle: {cluster}-ca/ca.crt }}"
        )
    }

    /// The folder of a cluster's certificates and keys.
    pub fn identities(&self, cluster: &str) -> PathBuf {
        self.path(&format!("{cluster}-identities"))
    }
}

/// What payments offers, and to whom, in every lab that does not say otherwise.
pub const PAYMENTS_SPEC: &str =
    "export: ['*'], ports: [{ port: 80 }, { port: 9000, protocol: tcp }, { port: 50051, protocol: grpc }]";

/// The resource of a service of the namespace shop.
pub fn service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: eastway.dev/v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\nspec: {{ {spec} }}\n"
    )
}

/// The trust domain of the cluster `name`.
pub fn trust_domain(name: &str) -> String {
    format!("{name}.mesh.internal")
}

/// The configuration of a sidecar that serves, for [`Lab::configure`].
pub(super) fn serving(node: &LabNode, service: &str, extra: &str) -> String {
    let (inbound, app) = (node.inbound(), node.app());
    format!("  service: {service}\ninbound: {{ listen: '{inbound}', app: '{app}' }}\n{extra}")
}
