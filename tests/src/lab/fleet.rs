//! The gateways of a cluster, one or several, and its etcd, of one member or several.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Lab, LabNode, StoreKind};
use crate::process::{Process, required};
use crate::{client, eventually};

impl Lab {
    /// Plans further gateways of the cluster `name`, and further members of its etcd, until there are `size` of each. Who
    /// is configured afterwards knows all of them.
    ///
    /// # Panics
    /// If the cluster was not planned.
    pub fn enlarge(&mut self, name: &str, size: usize) -> &mut Self {
        while self.clusters[name].gateways.len() < size {
            let (gateway, etcd) = (self.host(), self.host());
            let cluster = self.clusters.get_mut(name).expect("a planned cluster");
            cluster.gateways.push(gateway);
            cluster.etcd.push(etcd);
        }
        self
    }

    /// The first gateway of the cluster `name`.
    ///
    /// # Panics
    /// If the cluster was not planned.
    pub fn gateway(&self, name: &str) -> LabNode {
        LabNode { name: format!("{name}-gateway"), ip: self.clusters[name].gateways[0] }
    }

    /// All gateways of the cluster `name`.
    ///
    /// # Panics
    /// If the cluster was not planned.
    pub fn gateways(&self, name: &str) -> Vec<LabNode> {
        let further = self.clusters[name].gateways.iter().zip(1..).skip(1);
        let further = further.map(|(ip, number)| LabNode { name: format!("{name}-gateway-{number}"), ip: *ip });
        std::iter::once(self.gateway(name)).chain(further).collect()
    }

    /// Starts the first gateway of the cluster `name` (and its etcd, if that does not run), and waits until it is ready.
    pub fn start_gateway(&mut self, name: &str) -> LabNode {
        let node = self.gateway(name);
        if self.clusters[name].store == StoreKind::Etcd {
            self.start_etcd(name);
        }
        // One that starts again finds what it left behind.
        if !self.path(&format!("{}.yaml", node.name)).exists() {
            self.configure_gateway(name);
        }
        self.start_role("gateway", &node.name);
        self.wait_ready(&node);
        node
    }

    /// Kills the first gateway of the cluster `name`, and starts it at another address. Who is configured afterwards knows that.
    ///
    /// # Panics
    /// If the cluster was not planned.
    pub fn move_gateway(&mut self, name: &str) -> LabNode {
        self.kill(&self.gateway(name).name);
        let ip = self.host();
        self.clusters.get_mut(name).expect("a planned cluster").gateways[0] = ip;
        self.configure_gateway(name);
        self.start_gateway(name)
    }

    /// Starts every planned gateway of the cluster `name`, which must be on etcd if there are several.
    pub fn start_gateways(&mut self, name: &str) {
        self.start_gateway(name);
        for (node, number) in self.gateways(name).into_iter().zip(1..).skip(1) {
            self.start_further(name, &node, number);
        }
    }

    /// Starts one more gateway of the cluster `name`, which must be on etcd, and waits until it is ready. Who is
    /// configured afterwards knows all.
    ///
    /// # Panics
    /// If the cluster was not planned.
    pub fn start_sibling(&mut self, name: &str) -> LabNode {
        let ip = self.host();
        self.clusters.get_mut(name).expect("a planned cluster").gateways.push(ip);
        let all = self.gateways(name);
        let node = all.last().expect("just planned").clone();
        self.start_further(name, &node, all.len());
        node
    }

    fn start_further(&mut self, name: &str, node: &LabNode, number: usize) {
        self.gateway_file(name, node, &format!("gateway-{number}"));
        self.start_role("gateway", &node.name);
        self.wait_ready(node);
    }

    /// Where the etcd of the cluster `name` answers its clients, by its first member.
    ///
    /// # Panics
    /// If the cluster was not planned.
    pub fn etcd(&self, name: &str) -> SocketAddr {
        clients(self.clusters[name].etcd[0])
    }

    /// Starts the members of the etcd of the cluster `name` that do not run, and waits until each answers. The name of the
    /// first one's process is returned.
    pub fn start_etcd(&mut self, name: &str) -> String {
        let members = self.clusters[name].etcd.clone();
        let names: Vec<String> = (1..=members.len()).map(|number| member_name(name, number)).collect();
        let peers = members.iter().zip(&names).map(|(ip, process)| format!("{process}=http://{ip}:2380"));
        let together = peers.collect::<Vec<_>>().join(",");
        for (ip, process) in members.iter().zip(&names) {
            if !self.processes.contains_key(process) {
                self.start_member(process, *ip, &together, "new");
            }
        }
        for (ip, process) in members.iter().zip(&names) {
            eventually(&format!("{process} answers"), || match client::get(clients(*ip), "/health") {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
        member_name(name, 1)
    }

    /// Puts an empty member in the place of the member `number` (from 1) of the etcd of the cluster `name`, which was killed.
    ///
    /// # Panics
    /// If the others do not agree.
    pub fn replace_member(&mut self, name: &str, number: usize) {
        let (process, ip) = (member_name(name, number), self.clusters[name].etcd[number - 1]);
        let peers = format!("http://{ip}:2380");
        std::fs::remove_dir_all(self.path(&format!("{process}-data"))).expect("it had data");
        // Their leader may have been the one that is gone.
        eventually(&format!("{process} is removed"), || {
            let listed = self.etcdctl(name, &["member", "list"])?;
            match listed.lines().find(|line| line.contains(&process)).and_then(|line| line.split(',').next()) {
                Some(id) => {
                    self.etcdctl(name, &["member", "remove", id]).and_then(|_| Err("it was asked for".to_owned()))
                }
                None => Ok(()),
            }
        });
        eventually(&format!("{process} is a member again"), || {
            self.etcdctl(name, &["member", "add", &process, "--peer-urls", &peers])
        });
        let members = self.clusters[name].etcd.iter().zip(1..);
        let together: Vec<String> =
            members.map(|(ip, number)| format!("{}=http://{ip}:2380", member_name(name, number))).collect();
        self.start_member(&process, ip, &together.join(","), "existing");
        eventually(&format!("{process} answers"), || match client::get(clients(ip), "/health") {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// Writes a snapshot of the etcd of the cluster `name`.
    pub fn snapshot(&self, name: &str) -> PathBuf {
        let file = self.path(&format!("{name}.snapshot"));
        self.etcdctl(name, &["snapshot", "save", &file.to_string_lossy()]).expect("a snapshot");
        file
    }

    /// Puts the etcd of the cluster `name`, of one member that was killed, back to a snapshot, and starts it.
    ///
    /// # Panics
    /// If it had no data.
    pub fn restore(&mut self, name: &str, snapshot: &Path) {
        let (process, ip) = (member_name(name, 1), self.clusters[name].etcd[0]);
        let data = self.path(&format!("{process}-data"));
        std::fs::remove_dir_all(&data).expect("it had data");
        let (peers, together) = (format!("http://{ip}:2380"), format!("{process}=http://{ip}:2380"));
        let (snapshot, data) = (snapshot.to_string_lossy(), data.to_string_lossy());
        let arguments = ["snapshot", "restore", &*snapshot, "--data-dir", &*data, "--name", &*process];
        let cluster = ["--initial-cluster", &*together, "--initial-advertise-peer-urls", &*peers];
        self.etcdctl(name, &[&arguments[..], &cluster[..]].concat()).expect("restored");
        self.start_etcd(name);
    }

    /// What `etcdctl` says of the etcd of the cluster `name`.
    fn etcdctl(&self, name: &str, arguments: &[&str]) -> Result<String, String> {
        let members = self.clusters[name].etcd.iter().zip(1..);
        let alive = members.filter(|(_, number)| self.processes.contains_key(&member_name(name, *number)));
        let endpoints: Vec<String> = alive.map(|(ip, _)| format!("http://{ip}:2379")).collect();
        let mut command = Command::new(required("etcdctl", "etcd-client"));
        command.env("ETCDCTL_API", "3").args(arguments);
        // To restore, nobody is asked.
        if let Some(first) = endpoints.first() {
            command.args(["--endpoints", first]);
        }
        let output = command.output().expect("etcdctl starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn start_member(&mut self, process: &str, ip: Ipv4Addr, together: &str, state: &str) {
        let (clients, peers) = (format!("http://{ip}:2379"), format!("http://{ip}:2380"));
        let mut command = Command::new(required("etcd", "etcd-server"));
        command
            .args(["--name", process, "--data-dir"])
            .arg(self.path(&format!("{process}-data")))
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", together, "--initial-cluster-state", state]);
        let log = self.path(&format!("{process}.log"));
        self.processes.insert(process.to_owned(), Process::start(process, command, &log));
    }
}

fn clients(ip: Ipv4Addr) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(ip), 2379)
}

/// The process of a member of an etcd, by its number from 1.
fn member_name(cluster: &str, number: usize) -> String {
    if number == 1 { format!("{cluster}-etcd") } else { format!("{cluster}-etcd-{number}") }
}
