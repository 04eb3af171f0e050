//! A laboratory of clusters: gateways, sidecars and applications as real processes, on loopback addresses of its own.
//!
//! ```no_run
//! use eastway_tests::{client, lab::{Lab, StoreKind}};
//!
//! let mut lab = Lab::new();
//! lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
//! lab.payments("eu-west", "a", "payments-1");
//! let storefront = lab.storefront("us-east", "a");
//! let answer = client::get(storefront.proxy(), "http://payments.shop.mesh.internal/");
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use eastway_core::SpiffeId;
use eastway_identity::{Ca, IssueOptions, Overwrite};
use tempfile::TempDir;

use crate::process::{Process, eastway, required};
use crate::{client, eventually};

/// The name that every scenario calls.
pub const PAYMENTS: &str = "http://payments.shop.mesh.internal/";

/// Where a cluster's gateway keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// In the gateway's process, on disk.
    Embedded,
    /// A real etcd.
    Etcd,
}

/// Clusters under test. Dropping it ends every process and deletes its folder.
#[derive(Debug)]
pub struct Lab {
    processes: BTreeMap<String, Process>,
    clusters: BTreeMap<String, Cluster>,
    hosts: u8,
    prefix: (u8, u8),
    folder: TempDir,
}

#[derive(Debug)]
struct Cluster {
    authority: Ca,
    gateway: Ipv4Addr,
    etcd: Ipv4Addr,
    store: StoreKind,
    extra: String,
}

/// A node of the lab: where it is, and under which name its process runs.
#[derive(Clone, Debug)]
pub struct Node {
    /// The process's name.
    pub name: String,
    /// Its loopback address.
    pub ip: Ipv4Addr,
}

impl Node {
    /// Its address at `port`.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), port)
    }

    /// The sidecar's HTTP proxy.
    pub fn proxy(&self) -> SocketAddr {
        self.at(15080)
    }

    /// The sidecar's inbound listener.
    pub fn inbound(&self) -> SocketAddr {
        self.at(15008)
    }

    /// The node's metrics, as text.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn metrics(&self) -> Result<String, String> {
        let answer = client::get(self.at(15020), "/metrics")?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// The sum of all samples of the metric `name` whose labels contain all of `labels`.
    ///
    /// # Errors
    /// If the metrics cannot be read.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64, String> {
        let metrics = self.metrics()?;
        let named = metrics.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        Ok(named.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// An empty lab on a free part of the loopback network.
    ///
    /// # Panics
    /// If there is none.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("eastway-lab-").tempdir().expect("a temporary folder");
        Self { processes: BTreeMap::new(), clusters: BTreeMap::new(), hosts: 1, prefix: free_prefix(), folder }
    }

    /// The lab's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new loopback address.
    pub fn host(&mut self) -> Ipv4Addr {
        self.hosts += 1;
        Ipv4Addr::new(127, self.prefix.0, self.prefix.1, self.hosts)
    }

    /// Plans a cluster without starting anything: its CA exists afterwards. `extra` goes into the gateway's configuration.
    ///
    /// # Panics
    /// If the folder cannot be written.
    pub fn plan(&mut self, name: &str, store: StoreKind, extra: &str) -> &mut Self {
        let trust_domain = format!("{name}.mesh.internal");
        let authority = Ca::create(&trust_domain, std::time::Duration::from_secs(86_400)).expect("a CA can be made");
        authority.save(&self.path(&format!("{name}-ca")), Overwrite::Never).expect("the lab's folder is writable");
        let (gateway, etcd) = (self.host(), self.host());
        self.clusters.insert(name.to_owned(), Cluster { authority, gateway, etcd, store, extra: extra.to_owned() });
        self
    }

    /// Plans the clusters `names`, each a peer of all others with everything of the namespace shop exported and
    /// imported, and starts their gateways.
    pub fn clusters(&mut self, names: &[&str], store: StoreKind) -> &mut Self {
        for name in names {
            self.plan(name, store, "");
        }
        for name in names {
            let peers: Vec<&str> = names.iter().copied().filter(|peer| peer != name).collect();
            self.resources(name, &peers);
            self.start_gateway(name);
        }
        self
    }

    /// Writes the resources of the cluster `name`: payments, exported to all, and its peers.
    ///
    /// # Panics
    /// If a cluster was not planned.
    pub fn resources(&self, name: &str, peers: &[&str]) {
        let mut text = "apiVersion: eastway.dev/v1\nkind: Service\nmetadata: { name: payments, namespace: shop }\nspec: { export: ['*'], ports: [{ port: 80 }, { port: 9000, protocol: tcp }, { port: 50051, protocol: grpc }] }\n".to_owned();
        for peer in peers {
            let gateway = self.gateway(peer).at(15443);
            text.push_str(&format!(
                "---\napiVersion: eastway.dev/v1\nkind: Peer\nmetadata: {{ name: {peer} }}\nspec: {{ gateways: ['{gateway}'], trustBundle: {peer}-ca/ca.crt, imports: ['shop/*'] }}\n"
            ));
        }
        self.write(&format!("{name}-resources.yaml"), &text);
    }

    /// The gateway of the cluster `name`.
    ///
    /// # Panics
    /// If the cluster was not planned.
    pub fn gateway(&self, name: &str) -> Node {
        Node { name: format!("{name}-gateway"), ip: self.clusters[name].gateway }
    }

    /// Starts the gateway of the cluster `name` (and its etcd, if that does not run), and waits until it is ready.
    pub fn start_gateway(&mut self, name: &str) -> Node {
        let identity = self.issue(name, "gateway", &SpiffeId::gateway(&format!("{name}.mesh.internal"), "gateway-1"));
        let (ip, etcd, store) = (self.clusters[name].gateway, self.clusters[name].etcd, self.clusters[name].store);
        let store = match store {
            StoreKind::Embedded => format!("embedded: {{ path: {name}-gateway-state }}"),
            StoreKind::Etcd => {
                self.start_etcd(name);
                format!("etcd: {{ endpoints: ['http://{etcd}:2379'] }}")
            }
        };
        let text = format!(
            "cluster: {name}\nregion: {name}\ngateway: gateway-1\nzones: {{ a: {{}}, b: {{}} }}\n{identity}\n\
             tunnel: {{ listen: '{ip}:15443' }}\ndiscovery: {{ listen: '{ip}:15010' }}\nadmin: {{ listen: '{ip}:15000' }}\n\
             metrics: {{ listen: '{ip}:15020' }}\nstore: {{ {store} }}\nresources: [{name}-resources.yaml]\n{}",
            self.clusters[name].extra
        );
        self.write(&format!("{name}-gateway.yaml"), &text);
        let node = self.gateway(name);
        self.start_role("gateway", &node.name);
        self.wait_ready(&node);
        node
    }

    /// Starts the etcd of the cluster `name`, unless it runs, and waits until it answers.
    pub fn start_etcd(&mut self, name: &str) -> String {
        let process = format!("{name}-etcd");
        if self.processes.contains_key(&process) {
            return process;
        }
        let ip = self.clusters[name].etcd;
        let (clients, peers) = (format!("http://{ip}:2379"), format!("http://{ip}:2380"));
        let mut command = Command::new(required("etcd", "etcd-server"));
        command
            .args(["--name", &process, "--data-dir"])
            .arg(self.path(&format!("{process}-data")))
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("{process}={peers}")]);
        let log = self.path(&format!("{process}.log"));
        self.processes.insert(process.clone(), Process::start(&process, command, &log));
        let address = SocketAddr::new(IpAddr::V4(ip), 2379);
        eventually(&format!("{process} answers"), || match client::get(address, "/health") {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        process
    }

    /// Starts a payments application with its sidecar in a zone, and waits until both are ready.
    pub fn payments(&mut self, cluster: &str, zone: &str, name: &str) -> Node {
        let ip = self.host();
        self.workload(cluster, zone, name, "payments", ip)
    }

    /// Starts an application of `service`, with its sidecar, at `ip`, and waits until both are ready.
    pub fn workload(&mut self, cluster: &str, zone: &str, name: &str, service: &str, ip: Ipv4Addr) -> Node {
        let node = Node { name: format!("{cluster}-{name}"), ip };
        let more = format!(
            "  service: {service}\ninbound: {{ listen: '{ip}:15008', app: '{ip}:8080' }}\nhealth: {{ http: {{ path: /healthz }}, interval: 200ms }}\n"
        );
        self.write_sidecar(cluster, zone, &node, service, &more);
        self.start_app(cluster, zone, &node);
        self.start_role("sidecar", &node.name);
        self.wait_ready(&node);
        node
    }

    /// Starts a caller's sidecar in a zone, and waits until it is ready.
    pub fn storefront(&mut self, cluster: &str, zone: &str) -> Node {
        self.storefront_with(cluster, zone, "")
    }

    /// The same, with more lines of configuration.
    pub fn storefront_with(&mut self, cluster: &str, zone: &str, extra: &str) -> Node {
        let ip = self.host();
        let node = Node { name: format!("{cluster}-{zone}-storefront-{}", ip.octets()[3]), ip };
        self.write_sidecar(cluster, zone, &node, "storefront", extra);
        self.start_role("sidecar", &node.name);
        self.wait_ready(&node);
        node
    }

    fn write_sidecar(&self, cluster: &str, zone: &str, node: &Node, account: &str, more: &str) {
        let id = SpiffeId::workload(&format!("{cluster}.mesh.internal"), "shop", account);
        let identity = self.issue(cluster, account, &id);
        let gateway = self.gateway(cluster);
        let (ip, name) = (node.ip, &node.name);
        let text = format!(
            "cluster: {cluster}\nzone: {zone}\n{identity}\ngateways: [{{ discovery: '{}', tunnel: '{}' }}]\n\
             outbound: {{ proxy: '{ip}:15080' }}\nadmin: {{ listen: '{ip}:15000' }}\nmetrics: {{ listen: '{ip}:15020' }}\n\
             state: {name}-state\nworkload:\n  name: {name}\n  namespace: shop\n{more}",
            gateway.at(15010),
            gateway.at(15443),
        );
        self.write(&format!("{name}.yaml"), &text);
    }

    /// Issues an identity and answers the configuration line that names its files.
    ///
    /// # Panics
    /// If the cluster was not planned.
    pub fn issue(&self, cluster: &str, account: &str, id: &SpiffeId) -> String {
        let issued = self.clusters[cluster].authority.issue(id, &IssueOptions::default()).expect("a CA can issue");
        let folder = self.path(&format!("{cluster}-identities"));
        issued.save(&folder, account, Overwrite::Force).expect("the lab's folder is writable");
        format!(
            "identity: {{ certificate: {cluster}-identities/{account}.crt, key: {cluster}-identities/{account}.key, bundle: {cluster}-ca/ca.crt }}"
        )
    }

    /// The CA of a cluster, for certificates that no sidecar should have.
    pub fn authority(&self, cluster: &str) -> &Ca {
        &self.clusters[cluster].authority
    }

    /// Starts the sample application of a workload.
    pub fn start_app(&mut self, cluster: &str, zone: &str, node: &Node) {
        let name = app_name(node);
        let mut command = Command::new(eastway());
        let listen = node.at(8080).to_string();
        command.args(["app", "--listen", &listen, "--name", &node.name, "--zone", &format!("{cluster}/{zone}")]);
        let log = self.path(&format!("{name}.log"));
        self.processes.insert(name.clone(), Process::start(&name, command, &log));
        eventually(&format!("{name} answers"), || client::get(node.at(8080), "/healthz").map(drop));
    }

    /// Starts `eastway ROLE` with the configuration file of `name`, without waiting.
    pub fn start_role(&mut self, role: &str, name: &str) {
        let mut command = Command::new(eastway());
        command.arg(role).arg("--config").arg(self.path(&format!("{name}.yaml")));
        let log = self.path(&format!("{name}.log"));
        self.processes.insert(name.to_owned(), Process::start(name, command, &log));
    }

    /// Waits until a gateway or sidecar says that it is ready.
    pub fn wait_ready(&mut self, node: &Node) {
        let process = self.processes.get_mut(&node.name).expect("the node was started");
        eventually(&format!("{} is ready", node.name), || {
            if let Some(status) = process.ended() {
                panic!("{} ended with {status}:\n{}", node.name, process.log());
            }
            match client::get(node.at(15020), "/ready") {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// The process named `name`.
    ///
    /// # Panics
    /// If there is none.
    pub fn process(&mut self, name: &str) -> &mut Process {
        self.processes.get_mut(name).unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// Kills the process named `name` as a power cut would.
    pub fn kill(&mut self, name: &str) {
        self.take(name).kill();
    }

    /// Kills a workload: its application and its sidecar.
    pub fn kill_workload(&mut self, node: &Node) {
        self.kill(&app_name(node));
        self.kill(&node.name);
    }

    /// Takes the process out of the lab.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn take(&mut self, name: &str) -> Process {
        self.processes.remove(name).unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// A path in the lab's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the lab's folder.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the lab's folder is writable");
        path
    }
}

/// The name of the application's process beside the sidecar `node`.
pub fn app_name(node: &Node) -> String {
    format!("{}-app", node.name)
}

/// Calls payments through `proxy` until it answers from the zone `zone`.
pub fn reaches(proxy: SocketAddr, zone: &str) {
    eventually(&format!("payments answers from {zone}"), || {
        let answer = client::get(proxy, PAYMENTS)?;
        let from = (answer.status == 200).then(|| answer.json()["zone"].as_str().map(str::to_owned)).flatten();
        if from.as_deref() == Some(zone) { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}

/// A /24 of the loopback network on which no other lab runs: its ports 15443 are free, and one is taken for good by
/// the lock that the kernel keeps for this process.
fn free_prefix() -> (u8, u8) {
    let mut seed = u64::from(std::process::id()) ^ (std::ptr::from_ref(&PAYMENTS) as u64);
    for _ in 0..512 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let prefix = (1 + (seed >> 40) as u8 % 78, 1 + (seed >> 50) as u8 % 250);
        // Port 14999 of the lab's first address is the claim: whoever binds it owns the prefix until its process ends.
        if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(127, prefix.0, prefix.1, 1), 14_999)) {
            std::mem::forget(claim);
            return prefix;
        }
    }
    panic!("no free part of the loopback network")
}
