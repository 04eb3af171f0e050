//! The mesh on its hosts: what runs where, and what is done to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eastway_core::SpiffeId;
use eastway_identity::{Ca, IssueOptions, Overwrite};

use super::fault::What;
use super::network::Network;
use super::plan::{Cluster, Host, Role, SERVICES};
use super::schedule::Schedule;
use crate::clock::FakeClock;
use crate::lab::{service, trust_domain};
use crate::process::{Process, eastway, required};
use crate::{client, eventually};

/// Three clusters that run. Dropping it ends all of it.
#[derive(Debug)]
pub(super) struct Mesh {
    processes: BTreeMap<Host, Vec<Process>>,
    clocks: BTreeMap<Host, FakeClock>,
    network: Network,
    folder: PathBuf,
}

/// Room on a disk that a schedule fills. A member allocates two files of 64 MiB in advance.
const GATEWAY_DISK: &str = "size=2m,mode=0755";
const MEMBER_DISK: &str = "size=192m,mode=0755";
/// The file that takes what room is left.
const FILLER: &str = "filler";

impl Mesh {
    /// Starts everything in `folder`, with clocks and disks of their own where `schedule` wants them, and waits until
    /// all is ready.
    ///
    /// # Panics
    /// If something does not start.
    pub(super) fn start(schedule: &Schedule, folder: &Path) -> Self {
        let network = Network::start();
        let clocks = schedule.clocks().into_iter();
        let clocks = clocks.map(|host| (host, FakeClock::new(folder.join(format!("{host}-clock"))))).collect();
        let mut mesh = Self { processes: BTreeMap::new(), clocks, network, folder: folder.to_owned() };
        for host in schedule.disks() {
            mesh.mount(host);
        }
        mesh.write_files();
        for role in [Role::Member, Role::Gateway, Role::Workload] {
            Host::of(role).into_iter().for_each(|host| mesh.run(host));
            for host in Host::of(role) {
                eventually(&format!("{host} is ready"), || mesh.ready(host));
            }
        }
        mesh
    }

    /// The hosts.
    pub(super) const fn network(&self) -> &Network {
        &self.network
    }

    /// Does what the fault of this number says.
    pub(super) fn inflict(&mut self, number: usize, what: &What) {
        let name = table(number);
        match what {
            What::Kill(host) => self.processes.remove(host).into_iter().flatten().for_each(Process::kill),
            What::Freeze(host) => self.signal(*host, "STOP"),
            What::Cut { from, to, both } => {
                to.iter().for_each(|host| self.network.deafen(&name, *host, from));
                if *both {
                    from.iter().for_each(|host| self.network.deafen(&name, *host, to));
                }
            }
            What::Loss(hosts) => hosts.iter().for_each(|host| self.network.lose(&name, *host)),
            What::Delay(between) => self.detour(*between, true),
            What::FullDisk(host) => self.fill(*host),
            What::Clock(host, seconds) => self.clocks[host].set(*seconds),
        }
    }

    /// Takes it back. What has ended by it is started again, and takes its time until it is [`Mesh::ready`].
    pub(super) fn heal(&mut self, number: usize, what: &What) {
        let name = table(number);
        match what {
            What::Kill(host) => self.run(*host),
            What::Freeze(host) => self.signal(*host, "CONT"),
            What::Cut { from, to, both } => {
                to.iter().for_each(|host| self.network.mend(&name, *host));
                if *both {
                    from.iter().for_each(|host| self.network.mend(&name, *host));
                }
            }
            What::Loss(hosts) => hosts.iter().for_each(|host| self.network.mend(&name, *host)),
            What::Delay(between) => self.detour(*between, false),
            What::FullDisk(host) => self.free(*host),
            What::Clock(host, _) => self.clocks[host].set(0),
        }
    }

    /// Whether what should run on a host says that it is ready.
    ///
    /// # Errors
    /// In words, if not.
    pub(super) fn ready(&self, host: Host) -> Result<(), String> {
        let (address, path) = match host.role {
            Role::Member => (host.at(2379), "/health"),
            Role::Gateway | Role::Workload => (([127, 0, 0, 1], 15020).into(), "/ready"),
        };
        // A member that answers is back, whether or not there are enough of them.
        let well = |status| status == 200 || host.role == Role::Member;
        match self.network.at(host).inside(|| client::get(address, path)) {
            Ok(answer) if well(answer.status) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    /// What should run and has ended by itself.
    pub(super) fn ended(&mut self) -> Vec<(Host, String)> {
        let mut ended = Vec::new();
        for (host, processes) in &mut self.processes {
            let found = processes.iter_mut().filter_map(Process::ended);
            ended.extend(found.map(|status| (*host, format!("{host} ended by itself: {status}"))));
        }
        ended
    }

    /// Runs `eastway status` at a gateway, as its operator would.
    ///
    /// # Errors
    /// With what it printed, if all is not well.
    pub(super) fn status(&self, gateway: Host) -> Result<(), String> {
        let output = self.network.at(gateway).command(eastway()).arg("status").output();
        let output = output.map_err(|error| error.to_string())?;
        let words = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("{}{words}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    fn signal(&self, host: Host, signal: &str) {
        self.processes[&host].iter().for_each(|process| process.signal(signal));
    }

    fn detour(&self, [one, other]: [Cluster; 2], on: bool) {
        for (from, to) in [(one, other), (other, one)] {
            from.hosts(Role::Gateway).into_iter().for_each(|gateway| self.network.detour(gateway, to, on));
        }
    }

    fn run(&mut self, host: Host) {
        let started = match host.role {
            Role::Member => vec![self.process(host, "", &required("etcd", "etcd-server"), &member(host, &self.folder))],
            Role::Gateway => vec![self.role(host, "gateway")],
            Role::Workload => {
                let zone = format!("{}/{}", host.cluster.name(), host.zone());
                let words = ["app", "--service", host.service(), "--name", &host.to_string(), "--zone", &zone];
                let app = self.process(host, "-app", eastway(), &words.map(str::to_owned));
                vec![app, self.role(host, "sidecar")]
            }
        };
        self.processes.insert(host, started);
    }

    fn role(&self, host: Host, role: &str) -> Process {
        let file = self.path(host, ".yaml").display().to_string();
        self.process(host, "", eastway(), &[role.to_owned(), "--config".to_owned(), file])
    }

    fn process(&self, host: Host, suffix: &str, program: &Path, words: &[String]) -> Process {
        let mut command = self.network.at(host).command(program);
        command.args(words).envs(self.clocks.get(&host).into_iter().flat_map(FakeClock::environment));
        Process::start(&format!("{host}{suffix}"), command, &self.path(host, &format!("{suffix}.log")))
    }

    fn path(&self, host: Host, suffix: &str) -> PathBuf {
        self.folder.join(format!("{host}{suffix}"))
    }

    fn mount(&self, host: Host) {
        let (folder, room) = match host.role {
            Role::Member => (self.path(host, "-data"), MEMBER_DISK),
            Role::Gateway | Role::Workload => (self.path(host, "-state"), GATEWAY_DISK),
        };
        std::fs::create_dir_all(&folder).expect("the folder is writable");
        let folder = folder.display().to_string();
        self.network.at(host).run("mount", "mount", &["-t", "tmpfs", "-o", room, "tmpfs", &folder], "");
    }

    fn filler(&self, host: Host) -> PathBuf {
        let folder = if host.role == Role::Member { "-data" } else { "-state" };
        self.network.at(host).outside(&self.path(host, folder)).join(FILLER)
    }

    fn fill(&self, host: Host) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.filler(host)).expect("the disk has room for a name");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&mut self, host: Host) {
        std::fs::remove_file(self.filler(host)).expect("it was filled");
        let gone = self.processes.get_mut(&host).is_none_or(|all| all.iter_mut().any(|one| one.ended().is_some()));
        if gone {
            self.run(host);
        }
    }

    fn write_files(&self) {
        let write = |name: String, text: String| std::fs::write(self.folder.join(name), text);
        for cluster in Cluster::ALL {
            let (name, domain) = (cluster.name(), trust_domain(cluster.name()));
            let authority = Ca::create(&domain, Duration::from_secs(86_400)).expect("a CA can be made");
            authority.save(&self.folder.join(format!("{name}-ca")), Overwrite::Never).expect("the folder is writable");
            let offered = "export: ['*'], ports: [{ port: 80 }]";
            let services = SERVICES.map(|offers| service(offers, offered)).into_iter();
            let resources: Vec<String> = services.chain(cluster.others().map(peer)).collect();
            write(format!("{name}-resources.yaml"), resources.join("---\n")).expect("the folder is writable");
            let gateways = cluster.hosts(Role::Gateway).into_iter();
            let gateways = gateways
                .map(|host| (host, SpiffeId::gateway(&domain, &format!("gateway-{}", host.number)), gateway(host)));
            let workloads = cluster.hosts(Role::Workload).into_iter();
            let workloads =
                workloads.map(|host| (host, SpiffeId::workload(&domain, "shop", host.service()), workload(host)));
            for (host, id, text) in gateways.chain(workloads) {
                let issued = authority.issue(&id, &IssueOptions::default()).expect("a CA issues for its own domain");
                issued
                    .save(&self.folder.join(format!("{name}-identities")), &host.to_string(), Overwrite::Force)
                    .expect("the folder is writable");
                write(format!("{host}.yaml"), text).expect("the folder is writable");
            }
        }
    }
}

/// The name of the rules of a fault.
fn table(number: usize) -> String {
    format!("fault{number}")
}

fn identity(host: Host) -> String {
    let cluster = host.cluster.name();
    let files = format!("certificate: {cluster}-identities/{host}.crt, key: {cluster}-identities/{host}.key");
    format!("identity: {{ {files}, bundle: {cluster}-ca/ca.crt }}")
}

fn peer(cluster: Cluster) -> String {
    let name = cluster.name();
    let gateways = cluster.hosts(Role::Gateway).into_iter().map(|gateway| format!("'{}'", gateway.at(15443)));
    let gateways = gateways.collect::<Vec<_>>().join(", ");
    let spec = format!("gateways: [{gateways}], trustBundle: {name}-ca/ca.crt, imports: ['shop/*']");
    format!("apiVersion: eastway.dev/v1\nkind: Peer\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n")
}

fn gateway(host: Host) -> String {
    let (name, number, identity) = (host.cluster.name(), host.number, identity(host));
    let members = host.cluster.hosts(Role::Member).into_iter().map(|member| format!("'http://{}'", member.at(2379)));
    let members = members.collect::<Vec<_>>().join(", ");
    format!(
        "cluster: {name}\nregion: {name}\ngateway: gateway-{number}\nzones: {{ a: {{}}, b: {{}} }}\n{identity}\nstate: {host}-state\n\
         tunnel: {{ listen: '{}' }}\ndiscovery: {{ listen: '{}' }}\nmetrics: {{ listen: '127.0.0.1:15020' }}\n\
         store: {{ etcd: {{ endpoints: [{members}] }} }}\nresources: [{name}-resources.yaml]\n",
        host.at(15443),
        host.at(15010)
    )
}

fn workload(host: Host) -> String {
    let (cluster, zone, identity, service) = (host.cluster.name(), host.zone(), identity(host), host.service());
    let gateways = host.cluster.hosts(Role::Gateway).into_iter();
    let gateways = gateways.map(|at| format!("{{ discovery: '{}', tunnel: '{}' }}", at.at(15010), at.at(15443)));
    let gateways = gateways.collect::<Vec<_>>().join(", ");
    format!(
        "cluster: {cluster}\nzone: {zone}\n{identity}\nstate: {host}-state\ngateways: [{gateways}]\n\
         metrics: {{ listen: '127.0.0.1:15020' }}\nworkload: {{ name: {host}, namespace: shop, service: {service} }}\n\
         inbound: {{ listen: '{}', app: '127.0.0.1:8080' }}\nhealth: {{ http: {{ path: /healthz }} }}\n",
        host.at(15008)
    )
}

/// The arguments of etcd.
fn member(host: Host, folder: &Path) -> Vec<String> {
    let url = |host: Host, port| format!("http://{}", host.at(port));
    let all = host.cluster.hosts(Role::Member).into_iter();
    let together = all.map(|member| format!("{member}={}", url(member, 2380))).collect::<Vec<_>>().join(",");
    let (name, data) = (host.to_string(), folder.join(format!("{host}-data")).display().to_string());
    let (clients, peers) = (url(host, 2379), url(host, 2380));
    let words = [
        ["--name", &name],
        ["--data-dir", &data],
        ["--listen-client-urls", &clients],
        ["--advertise-client-urls", &clients],
        ["--listen-peer-urls", &peers],
        ["--initial-advertise-peer-urls", &peers],
        ["--initial-cluster", &together],
    ];
    words.concat().into_iter().map(str::to_owned).collect()
}
