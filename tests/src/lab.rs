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
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::RwLockReadGuard;
use std::time::Duration;

use eastway_identity::{Ca, Overwrite};
use tempfile::TempDir;

use crate::process::{Process, eastway, eastway_command};
use crate::{client, eventually, machine};

mod files;
mod fleet;
mod node;

pub use files::{PAYMENTS_SPEC, service, trust_domain};
pub use node::LabNode;

use files::serving;

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
    environment: Vec<(String, String)>,
    descriptors: Option<u32>,
    hosts: u8,
    prefix: (u8, u8),
    folder: TempDir,
    _machine: RwLockReadGuard<'static, ()>,
}

#[derive(Debug)]
struct Cluster {
    authority: Ca,
    /// One or more.
    gateways: Vec<Ipv4Addr>,
    /// The members of its etcd, one or more.
    etcd: Vec<Ipv4Addr>,
    store: StoreKind,
    extra: String,
    recorded: bool,
    /// What else the gateways' configuration says of their tunnels.
    tunnel: String,
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Who looks into a failure wants to see what the nodes have left behind.
        if std::thread::panicking() && std::env::var_os("EASTWAY_KEEP").is_some() {
            self.folder.disable_cleanup(true);
            eprintln!("--- the lab is kept in {}", self.folder.path().display());
        }
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
        Self {
            processes: BTreeMap::new(),
            clusters: BTreeMap::new(),
            environment: Vec::new(),
            descriptors: None,
            hosts: 1,
            prefix: free_prefix(),
            folder,
            _machine: machine::shared(),
        }
    }

    /// The smallest mesh: one cluster with a payments application in zone a, called from the same zone. Answers the
    /// application's node and the caller's.
    pub fn one_cluster() -> (Self, LabNode, LabNode) {
        let mut lab = Self::new();
        lab.clusters(&["us-east"], StoreKind::Embedded);
        let payments = lab.payments("us-east", "a", "payments-1");
        let storefront = lab.storefront("us-east", "a");
        reaches(storefront.proxy(), "us-east/a");
        (lab, payments, storefront)
    }

    /// Two clusters: payments in zone a of eu-west, called from zone a of us-east. Answers the application's node and
    /// the caller's.
    pub fn two_clusters() -> (Self, LabNode, LabNode) {
        let mut lab = Self::new();
        lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
        let payments = lab.payments("eu-west", "a", "payments-1");
        let storefront = lab.storefront("us-east", "a");
        reaches(storefront.proxy(), "eu-west/a");
        (lab, payments, storefront)
    }

    /// Sets a variable in the environment of every role that is started from now on.
    pub fn environment(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// The most descriptors that a role which is started from now on may have.
    pub fn descriptors(&mut self, limit: Option<u32>) -> &mut Self {
        self.descriptors = limit;
        self
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
        let authority = Ca::create(&trust_domain(name), Duration::from_secs(86_400)).expect("a CA can be made");
        authority.save(&self.path(&format!("{name}-ca")), Overwrite::Never).expect("the lab's folder is writable");
        let (gateways, etcd) = (vec![self.host()], vec![self.host()]);
        self.clusters.insert(
            name.to_owned(),
            Cluster {
                authority,
                gateways,
                etcd,
                store,
                extra: extra.to_owned(),
                recorded: false,
                tunnel: String::new(),
            },
        );
        self
    }

    /// Has the gateway of the cluster `name`, when it is started, record every byte that it relays, and answers the
    /// folder.
    ///
    /// # Panics
    /// If the cluster was not planned.
    pub fn record(&mut self, name: &str) -> PathBuf {
        self.clusters.get_mut(name).expect("a planned cluster").recorded = true;
        self.path(&format!("{name}-relayed"))
    }

    /// Has the gateways of the cluster `name`, when they are started, configure their tunnels by `more` as well.
    ///
    /// # Panics
    /// If the cluster was not planned.
    pub fn tunnel(&mut self, name: &str, more: &str) -> &mut Self {
        self.clusters.get_mut(name).expect("a planned cluster").tunnel = format!(", {more}");
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

    /// Starts a payments application with its sidecar in a zone, and waits until both are ready.
    pub fn payments(&mut self, cluster: &str, zone: &str, name: &str) -> LabNode {
        let ip = self.host();
        self.workload(cluster, zone, name, "payments", ip)
    }

    /// Starts an application of `service`, with its sidecar, at `ip`, and waits until both are ready.
    pub fn workload(&mut self, cluster: &str, zone: &str, name: &str, service: &str, ip: Ipv4Addr) -> LabNode {
        let node = LabNode { name: format!("{cluster}-{name}"), ip };
        let health = "health: { http: { path: /healthz }, interval: 200ms }\n";
        self.configure(cluster, zone, &node, service, &serving(&node, service, health));
        self.start_app(cluster, zone, &node);
        self.start_role("sidecar", &node.name);
        self.wait_ready(&node);
        node
    }

    /// Starts the sidecar of a payments application that the test itself plays at [`LabNode::app`] of the host `ip`, and
    /// waits until it is ready. `extra` goes into its configuration.
    pub fn beside(&mut self, cluster: &str, zone: &str, ip: Ipv4Addr, extra: &str) -> LabNode {
        let node = LabNode { name: format!("{cluster}-{zone}-payments-{}", ip.octets()[3]), ip };
        let extra = format!("health: {{ tcp: {{}}, interval: 200ms }}\n{extra}");
        self.configure(cluster, zone, &node, "payments", &serving(&node, "payments", &extra));
        self.start_role("sidecar", &node.name);
        self.wait_ready(&node);
        node
    }

    /// The same of an application of `service`.
    pub fn workload_of(&mut self, cluster: &str, zone: &str, service: &str, ip: Ipv4Addr) -> LabNode {
        let node = LabNode { name: format!("{cluster}-{zone}-{service}-{}", ip.octets()[3]), ip };
        let health = "health: { tcp: {}, interval: 200ms }\n";
        self.configure(cluster, zone, &node, service, &serving(&node, service, health));
        self.start_role("sidecar", &node.name);
        self.wait_ready(&node);
        node
    }

    /// Starts a caller's sidecar in a zone, and waits until it is ready.
    pub fn storefront(&mut self, cluster: &str, zone: &str) -> LabNode {
        self.storefront_with(cluster, zone, "")
    }

    /// The same, with more lines of configuration.
    pub fn storefront_with(&mut self, cluster: &str, zone: &str, extra: &str) -> LabNode {
        let ip = self.host();
        let node = LabNode { name: format!("{cluster}-{zone}-storefront-{}", ip.octets()[3]), ip };
        self.configure(cluster, zone, &node, "storefront", extra);
        self.start_role("sidecar", &node.name);
        self.wait_ready(&node);
        node
    }

    /// The CA of a cluster, for certificates that no sidecar should have.
    pub fn authority(&self, cluster: &str) -> &Ca {
        &self.clusters[cluster].authority
    }

    /// Starts the sample application of a workload.
    pub fn start_app(&mut self, cluster: &str, zone: &str, node: &LabNode) {
        let name = app_name(node);
        let mut command = eastway_command();
        let listen = node.app().to_string();
        command.args(["app", "--listen", &listen, "--name", &node.name, "--zone", &format!("{cluster}/{zone}")]);
        let log = self.path(&format!("{name}.log"));
        self.processes.insert(name.clone(), Process::start(&name, command, &log));
        eventually(&format!("{name} answers"), || client::get(node.app(), "/healthz").map(drop));
    }

    /// Starts `eastway ROLE` with the configuration file of `name`, without waiting.
    pub fn start_role(&mut self, role: &str, name: &str) {
        let mut command = match self.descriptors {
            Some(limit) => {
                let mut limited = Command::new("sh");
                limited.arg("-c").arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\"")).arg(eastway());
                limited
            }
            None => eastway_command(),
        };
        command.arg(role).arg("--config").arg(self.path(&format!("{name}.yaml")));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let log = self.path(&format!("{name}.log"));
        self.processes.insert(name.to_owned(), Process::start(name, command, &log));
    }

    /// Waits until a gateway or sidecar says that it is ready.
    pub fn wait_ready(&mut self, node: &LabNode) {
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
    pub fn kill_workload(&mut self, node: &LabNode) {
        self.kill(&app_name(node));
        self.kill(&node.name);
    }

    /// Starts a workload again that was killed, and waits until it is ready.
    pub fn restart_workload(&mut self, cluster: &str, zone: &str, node: &LabNode) {
        self.start_app(cluster, zone, node);
        self.start_role("sidecar", &node.name);
        self.wait_ready(node);
    }

    /// Checks the configuration file of `name` by `eastway ROLE --check`.
    ///
    /// # Panics
    /// If the binary cannot be started.
    pub fn check(&self, role: &str, name: &str) -> Output {
        let file = self.path(&format!("{name}.yaml"));
        let output = eastway_command().args([role, "--check", "--config"]).arg(file).output();
        output.expect("the binary starts")
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
pub fn app_name(node: &LabNode) -> String {
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
