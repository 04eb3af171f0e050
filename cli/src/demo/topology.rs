//! The demo's two regions: who runs where, and the configuration files that make them so.
//!
//! Every node has a loopback address of its own and Eastway's default ports on it, as it would on hosts of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use eastway_core::SpiffeId;
use eastway_identity::{Ca, IssueOptions, Overwrite};

/// The demo's clusters, which are also its regions.
pub(super) const CLUSTERS: [&str; 2] = ["us-east", "eu-west"];
/// The zones of each.
pub(super) const ZONES: [&str; 2] = ["a", "b"];
/// `payments` endpoints in a zone.
const PAYMENTS_PER_ZONE: u8 = 2;
/// What the storefronts call.
pub(super) const URL: &str = "http://payments.shop.mesh.internal/";

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Gateway,
    Sidecar,
    App,
    Etcd,
}

impl Role {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Sidecar => "sidecar",
            Self::App => "app",
            Self::Etcd => "etcd",
        }
    }
}

/// One process of the demo.
#[derive(Clone, Debug)]
pub(super) struct DemoNode {
    /// Unique; also the stem of its files.
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) cluster: &'static str,
    pub(super) zone: Option<&'static str>,
    pub(super) service: Option<&'static str>,
    pub(super) ip: Ipv4Addr,
}

impl DemoNode {
    /// `CLUSTER/ZONE`.
    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.cluster, self.zone.unwrap_or("-"))
    }

    pub(super) fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), port)
    }
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) nodes: Vec<DemoNode>,
    pub(super) folder: PathBuf,
}

impl Topology {
    /// Plans the demo in `folder`, on a free /24 of the loopback network.
    pub(super) fn plan(folder: &Path, etcd: bool) -> anyhow::Result<Self> {
        let prefix = free_prefix()?;
        let ip = |cluster: usize, host: u8| Ipv4Addr::new(127, prefix.0, prefix.1, cluster as u8 * 100 + host);
        let mut nodes = Vec::new();
        for (index, cluster) in CLUSTERS.into_iter().enumerate() {
            let node = |name: String, role, zone, service, host| DemoNode {
                name,
                role,
                cluster,
                zone,
                service,
                ip: ip(index, host),
            };
            if etcd {
                nodes.push(node(format!("{cluster}-etcd"), Role::Etcd, None, None, 1));
                nodes.push(node(format!("{cluster}-gateway-2"), Role::Gateway, None, None, 3));
            }
            nodes.push(node(format!("{cluster}-gateway-1"), Role::Gateway, None, None, 2));
            for (order, zone) in (0_u8..).zip(ZONES) {
                let base = 10 + order * 10;
                for copy in 1..=PAYMENTS_PER_ZONE {
                    let name = format!("{cluster}-{zone}-payments-{copy}");
                    nodes.push(node(format!("{name}-app"), Role::App, Some(zone), Some("payments"), base + copy));
                    nodes.push(node(name, Role::Sidecar, Some(zone), Some("payments"), base + copy));
                }
                let name = format!("{cluster}-{zone}-storefront");
                nodes.push(node(name, Role::Sidecar, Some(zone), Some("storefront"), base + 9));
            }
        }
        Ok(Self { nodes, folder: folder.to_owned() })
    }

    /// The node named `name`, which exists by construction.
    pub(super) fn find(
        &self,
        role: Role,
        cluster: &str,
        zone: Option<&str>,
        service: Option<&str>,
    ) -> Option<&DemoNode> {
        self.nodes.iter().find(|n| n.role == role && n.cluster == cluster && n.zone == zone && n.service == service)
    }

    /// The gateways of `cluster`: one, or two where they share an etcd.
    pub(super) fn gateways(&self, cluster: &str) -> impl Iterator<Item = &DemoNode> {
        self.nodes.iter().filter(move |node| node.role == Role::Gateway && node.cluster == cluster)
    }

    /// The file that configures `node`.
    pub(super) fn file(&self, node: &DemoNode) -> PathBuf {
        self.folder.join(format!("{}.yaml", node.name))
    }

    /// Where `node` writes what it logs.
    pub(super) fn log(&self, node: &DemoNode) -> PathBuf {
        self.folder.join(format!("{}.log", node.name))
    }

    /// Where a storefront's sidecar records its requests.
    pub(super) fn record(&self, node: &DemoNode) -> PathBuf {
        self.folder.join(format!("{}.requests.jsonl", node.name))
    }

    /// Makes the certificates and writes the configuration of every node.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        for cluster in CLUSTERS {
            self.certificates(cluster)?;
            std::fs::write(self.folder.join(format!("{cluster}-resources.yaml")), self.resources(cluster))?;
        }
        for node in &self.nodes {
            let text = match node.role {
                Role::Gateway => self.gateway(node),
                Role::Sidecar => self.sidecar(node)?,
                Role::App | Role::Etcd => continue,
            };
            let file = self.file(node);
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    fn certificates(&self, cluster: &str) -> anyhow::Result<()> {
        let trust_domain = format!("{cluster}.mesh.internal");
        let authority = Ca::create(&trust_domain, Duration::from_secs(24 * 3600))?;
        authority.save(&self.folder.join(format!("{cluster}-ca")), Overwrite::Never)?;
        let folder = self.folder.join(format!("{cluster}-identities"));
        let gateways = self.gateways(cluster).map(gateway_id).map(|id| (id, SpiffeId::gateway(&trust_domain, id)));
        let accounts = ["payments", "storefront"];
        let workloads = accounts.map(|account| (account, SpiffeId::workload(&trust_domain, "shop", account)));
        for (name, id) in gateways.chain(workloads) {
            // The folder is the demo's own; the bundle beside the certificates is the same for each.
            authority.issue(&id, &IssueOptions::default())?.save(&folder, name, Overwrite::Force)?;
        }
        Ok(())
    }

    fn resources(&self, cluster: &str) -> String {
        let mut text = "apiVersion: eastway.dev/v1\nkind: Service\nmetadata: { name: payments, namespace: shop }\nspec:\n  export: ['*']\n"
            .to_owned();
        for peer in CLUSTERS.into_iter().filter(|peer| *peer != cluster) {
            let gateways: Vec<String> =
                self.gateways(peer).map(|gateway| format!("'{}'", gateway.address(15443))).collect();
            text.push_str(&format!(
                "---\napiVersion: eastway.dev/v1\nkind: Peer\nmetadata: {{ name: {peer} }}\nspec:\n  gateways: [{}]\n  trustBundle: {peer}-ca/ca.crt\n  imports: ['shop/*']\n",
                gateways.join(", "),
            ));
        }
        text
    }

    fn gateway(&self, node: &DemoNode) -> String {
        let cluster = node.cluster;
        let store = match self.find(Role::Etcd, cluster, None, None) {
            Some(etcd) => format!("etcd: {{ endpoints: ['http://{}'] }}", etcd.address(2379)),
            None => format!("embedded: {{ path: {}-state }}", node.name),
        };
        let (ip, id) = (node.ip, gateway_id(node));
        // Roughly Virginia and Dublin.
        let (latitude, longitude) = if cluster == "us-east" { (38.13, -78.45) } else { (53.3498, -6.2603) };
        format!(
            "cluster: {cluster}\nregion: {cluster}\ngateway: {id}\nzones:\n  a: {{ latitude: {latitude}, longitude: {longitude} }}\n  b: {{ latitude: {latitude}, longitude: {longitude} }}\n\
             identity: {{ certificate: {cluster}-identities/{id}.crt, key: {cluster}-identities/{id}.key, bundle: {cluster}-ca/ca.crt }}\n\
             tunnel: {{ listen: '{ip}:15443' }}\ndiscovery: {{ listen: '{ip}:15010' }}\nadmin: {{ listen: '{ip}:15000' }}\nmetrics: {{ listen: '{ip}:15020' }}\n\
             store: {{ {store} }}\nresources: [{cluster}-resources.yaml]\n"
        )
    }

    fn sidecar(&self, node: &DemoNode) -> anyhow::Result<String> {
        let (cluster, ip, name) = (node.cluster, node.ip, &node.name);
        let zone = node.zone.context("a sidecar has a zone")?;
        let account = node.service.context("a sidecar has a service")?;
        let gateways = self.gateways(cluster).map(|gateway| {
            format!("{{ discovery: '{}', tunnel: '{}' }}", gateway.address(15010), gateway.address(15443))
        });
        let gateways = gateways.collect::<Vec<_>>().join(", ");
        let role = if account == "payments" {
            format!(
                "  service: payments\ninbound: {{ listen: '{ip}:15008', app: '{ip}:8080' }}\nhealth: {{ http: {{ path: /healthz }}, interval: 500ms }}\n"
            )
        } else {
            format!("telemetry: {{ accessLog: {{ path: {name}.requests.jsonl }} }}\n")
        };
        Ok(format!(
            "cluster: {cluster}\nzone: {zone}\nidentity: {{ certificate: {cluster}-identities/{account}.crt, key: {cluster}-identities/{account}.key, bundle: {cluster}-ca/ca.crt }}\n\
             gateways: [{gateways}]\noutbound: {{ proxy: '{ip}:15080' }}\n\
             admin: {{ listen: '{ip}:15000' }}\nmetrics: {{ listen: '{ip}:15020' }}\nstate: {name}-state\n\
             workload:\n  name: {name}\n  namespace: shop\n{role}"
        ))
    }
}

/// A gateway's id within its cluster.
fn gateway_id(node: &DemoNode) -> &str {
    node.name.strip_prefix(node.cluster).and_then(|rest| rest.strip_prefix('-')).unwrap_or(&node.name)
}

/// A /24 of the loopback network on which nothing of an earlier or concurrent demo listens.
fn free_prefix() -> anyhow::Result<(u8, u8)> {
    let mut rng = fastrand::Rng::new();
    for _ in 0..64 {
        let prefix = (rng.u8(80..=250), rng.u8(1..=250));
        let probe = |host| TcpListener::bind((Ipv4Addr::new(127, prefix.0, prefix.1, host), 15443));
        if probe(2).is_ok() && probe(102).is_ok() {
            return Ok(prefix);
        }
    }
    anyhow::bail!("no free loopback addresses: is another program listening on port 15443 of all addresses?")
}
