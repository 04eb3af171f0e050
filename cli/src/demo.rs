//! `eastway demo`: two regions on this machine, live traffic, the loss of a zone and of a region, and the return.
//!
//! Every node is a process of its own, so that a kill is a real kill. Nothing but loopback addresses is used.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

use load::Storefront;
use processes::Processes;
use report::{CallerReport, PhaseReport, Report, Summary, TunnelReport, shares_text};
use topology::{CLUSTERS, DemoNode, Role, Topology, URL, ZONES};

mod load;
mod processes;
mod record;
mod report;
mod topology;

/// The demo's phases and how long each lasts, in order.
const PHASES: [(&str, Duration); 6] = [
    ("steady", Duration::from_secs(4)),
    ("zone-loss", Duration::from_secs(6)),
    ("region-loss", Duration::from_secs(6)),
    ("return", Duration::from_secs(40)),
    ("gateway-restart", Duration::from_secs(8)),
    ("recovered", Duration::from_secs(5)),
];
/// Calls a second of the storefront in eu-west/a.
const OTHER_RATE: u32 = 50;
/// Where `--hold` says what runs.
const STATE_FILE: &str = "target/demo/state.json";

/// The demo's options.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoCommand {
    /// Calls a second of the storefront in us-east/a.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,
    /// Write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// One etcd per cluster (the `etcd` on PATH) instead of the gateways' embedded stores, and two gateways, of which one is
    /// killed when a region is lost.
    #[arg(long)]
    etcd: bool,
    /// After the last phase keep everything up, without load, and print commands to try.
    #[arg(long)]
    hold: bool,
    /// Judge failures and shares, but not times: for machines that are busy otherwise.
    #[arg(long)]
    no_timing: bool,
    /// Keep configuration, logs and records here instead of in a folder that is deleted at the end.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl DemoCommand {
    /// Runs the demo; answers whether every phase met its expectations.
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        let scratch = Scratch::new(self.folder.as_deref())?;
        let topology = Topology::plan(&scratch.path, self.etcd)?;
        topology.write()?;
        let mut stage = Stage::set(topology, self.rate)?;
        println!(
            "two regions are up: {} processes; {} requests/s from us-east/a",
            stage.topology.nodes.len(),
            self.rate
        );
        let report = stage.play()?;
        println!("\n{}", report.table());
        if let Some(path) = &self.report {
            report.write(path)?;
            println!("report: {}", path.display());
        }
        let complaints = report.complaints(!self.no_timing);
        for complaint in &complaints {
            println!("NOT AS EXPECTED: {complaint}");
        }
        if complaints.is_empty() {
            println!("every phase met its expectations");
        }
        if self.hold {
            stage.hold()?;
        }
        Ok(complaints.is_empty())
    }
}

/// The folder that the demo works in; deleted at the end unless the user named it.
struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    fn new(chosen: Option<&Path>) -> anyhow::Result<Self> {
        let keep = chosen.is_some();
        let path = match chosen {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("eastway-demo-{}", std::process::id())),
        };
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let path = path.canonicalize()?;
        let used = std::fs::read_dir(&path)?.next().is_some();
        anyhow::ensure!(!used, "{} is not empty: name a new folder", path.display());
        Ok(Self { path, keep })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The running demo.
struct Stage {
    // Dropped in this order: first the load, then the processes.
    storefront: Option<Storefront>,
    other: Option<Storefront>,
    processes: Processes,
    topology: Topology,
}

/// What is to be done in the course of a phase.
struct Later {
    /// So many seconds after its start.
    second: u32,
    node: DemoNode,
    what: What,
}

/// What is done to a node.
enum What {
    Kill,
    Start,
}

/// A phase's bounds, on both clocks.
struct Played {
    name: &'static str,
    from: Instant,
    to: Instant,
    from_us: u64,
    to_us: u64,
    tunnel: TunnelReport,
}

impl Stage {
    /// Starts every process and the storefronts' load.
    fn set(topology: Topology, rate: u32) -> anyhow::Result<Self> {
        let mut processes = Processes::new()?;
        // In the order of dependence, though any other would only take longer.
        for roles in [&[Role::Etcd][..], &[Role::Gateway], &[Role::App], &[Role::Sidecar]] {
            let nodes: Vec<&DemoNode> = topology.nodes.iter().filter(|node| roles.contains(&node.role)).collect();
            for node in &nodes {
                processes.start(&topology, node)?;
            }
            processes.wait_ready(&topology, &nodes)?;
        }
        let mut stage = Self { storefront: None, other: None, processes, topology };
        stage.settle()?;
        stage.storefront = Some(Storefront::start(stage.proxy("us-east")?, URL, rate)?);
        stage.other = Some(Storefront::start(stage.proxy("eu-west")?, URL, OTHER_RATE)?);
        Ok(stage)
    }

    /// Waits until both storefronts see what they may see: every zone of both regions.
    fn settle(&self) -> anyhow::Result<()> {
        for cluster in CLUSTERS {
            let proxy = self.proxy(cluster)?;
            let other = if cluster == CLUSTERS[0] { CLUSTERS[1] } else { CLUSTERS[0] };
            for url in [URL.to_owned(), URL.replace(".mesh.", &format!(".{other}.mesh."))] {
                let probe = Storefront::start(proxy, &url, 20)?;
                let deadline = Instant::now() + Duration::from_secs(20);
                while !probe.samples().iter().rev().take(3).all(|sample| sample.zone.is_ok())
                    || probe.samples().len() < 3
                {
                    let last = probe.samples().last().map(|sample| sample.zone.clone());
                    anyhow::ensure!(Instant::now() < deadline, "{url} cannot be reached from {cluster}: {last:?}");
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
        Ok(())
    }

    fn proxy(&self, cluster: &str) -> anyhow::Result<std::net::SocketAddr> {
        let storefront = self.topology.find(Role::Sidecar, cluster, Some("a"), Some("storefront"));
        Ok(storefront.context("every zone has a storefront")?.address(15080))
    }

    fn play(&mut self) -> anyhow::Result<Report> {
        let mut played: Vec<Played> = Vec::new();
        for (name, length) in PHASES {
            let before = self.tunnel()?;
            println!("\n== {name}");
            // Nothing is printed between the phase's start and its event: a slow terminal must not delay a kill.
            let (from, from_us) = (Instant::now(), record::now_us());
            let (words, later) = self.event(name)?;
            println!("{words}");
            let (to, to_us) = (from + length, from_us + length.as_micros() as u64);
            self.watch(from, to, later)?;
            let after = self.tunnel()?;
            let tunnel = TunnelReport { bytes: after.bytes.saturating_sub(before.bytes), ..after };
            played.push(Played { name, from, to, from_us, to_us, tunnel });
        }
        self.report(&played)
    }

    /// What happens at the start of a phase; answers it in words, and what is to be done later.
    fn event(&mut self, phase: &str) -> anyhow::Result<(&'static str, Vec<Later>)> {
        match phase {
            "zone-loss" => {
                self.kill_all(payments(&["a"]))?;
                Ok(("SIGKILL to us-east/a's payments, apps and sidecars", Vec::new()))
            }
            "region-loss" => {
                self.kill_all(payments(&["b"]))?;
                Ok(self.gateway_of_several())
            }
            "return" => {
                println!("us-east's payments start again");
                let nodes: Vec<DemoNode> = self.topology.nodes.iter().filter(payments(&ZONES)).cloned().collect();
                for node in &nodes {
                    self.processes.start(&self.topology, node)?;
                }
                Ok(("us-east's payments start again", Vec::new()))
            }
            "gateway-restart" => {
                let gateways: Vec<DemoNode> = self.topology.gateways("eu-west").cloned().collect();
                self.processes.kill(&gateways)?;
                let starts = |node| Later { second: 1, node, what: What::Start };
                let words = "SIGKILL to eu-west's gateways, all of them; they start again after a second";
                Ok((words, gateways.into_iter().map(starts).collect()))
            }
            _ => Ok(("all is well", Vec::new())),
        }
    }

    /// What happens after a region was lost: where eu-west has two gateways, one of them is killed and starts again, while
    /// all traffic goes there.
    fn gateway_of_several(&self) -> (&'static str, Vec<Later>) {
        let gateways: Vec<&DemoNode> = self.topology.gateways("eu-west").collect();
        let [node, _, ..] = gateways[..] else {
            return ("SIGKILL to us-east/b's payments too: the region is lost", Vec::new());
        };
        let later = |second, what| Later { second, node: node.clone(), what };
        let words = "SIGKILL to us-east/b's payments too: the region is lost; and after two seconds to one of eu-west's \
                     gateways, which starts again two seconds later";
        (words, vec![later(2, What::Kill), later(4, What::Start)])
    }

    fn kill_all(&mut self, which: impl Fn(&&DemoNode) -> bool) -> anyhow::Result<()> {
        let nodes: Vec<DemoNode> = self.topology.nodes.iter().filter(which).cloned().collect();
        self.processes.kill(&nodes)
    }

    /// Prints a line a second until `to`, and does what is to be done `later`.
    fn watch(&mut self, from: Instant, to: Instant, later: Vec<Later>) -> anyhow::Result<()> {
        println!("{:>6}{:>10}{:>10}{:>9}{:>9}  level     shares", "t", "requests", "failures", "p50 ms", "p99 ms");
        let mut second = from;
        let mut seconds = 0;
        while second < to {
            let next = (second + Duration::from_secs(1)).min(to);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            seconds += 1;
            for Later { node, what, .. } in later.iter().filter(|later| later.second == seconds) {
                match what {
                    What::Kill => self.processes.kill([node])?,
                    What::Start => self.processes.start(&self.topology, node)?,
                }
            }
            let samples = self.storefront.as_ref().map(Storefront::samples).unwrap_or_default();
            let summary = Summary::of(&samples, second, next);
            println!(
                "{:>5.0}s{:>10}{:>10}{:>9.2}{:>9.2}  {:<8}  {}",
                next.duration_since(from).as_secs_f64(),
                summary.requests,
                summary.failures,
                summary.quantile_ms(0.5),
                summary.quantile_ms(0.99),
                level(&summary),
                shares_text(&summary.shares()),
            );
            second = next;
        }
        Ok(())
    }

    /// Stops the load and computes the report.
    fn report(&mut self, played: &[Played]) -> anyhow::Result<Report> {
        let finish =
            |storefront: &mut Option<Storefront>| storefront.take().map(Storefront::finish).unwrap_or_default();
        let (samples, other) = (finish(&mut self.storefront), finish(&mut self.other));
        let storefront = self.topology.find(Role::Sidecar, "us-east", Some("a"), Some("storefront"));
        let attempts =
            record::first_attempts(&self.topology.record(storefront.context("us-east/a has a storefront")?))?;
        let mut phases = Vec::new();
        for phase in played {
            let mut report = PhaseReport::new(phase.name, &samples, phase.from, phase.to);
            let killed: &[&str] = match phase.name {
                "zone-loss" => &["us-east/a"],
                "region-loss" => &["us-east/a", "us-east/b"],
                _ => &[],
            };
            if !killed.is_empty() {
                report.shift_ms = record::shift(&attempts, killed, phase.from_us, phase.to_us).map(report::millis);
            }
            if phase.name == "return" {
                report.home_ms = report::home(&samples, "us-east", phase.from, phase.to).map(report::millis);
            }
            phases.push(report);
        }
        let bytes = |name: Option<&str>| -> u64 {
            played.iter().filter(|p| name.is_none_or(|name| p.name == name)).map(|p| p.tunnel.bytes).sum()
        };
        let tunnel = TunnelReport {
            protocol: "quic",
            streams: played.last().map_or(0, |phase| phase.tunnel.streams),
            bytes: bytes(None),
            region_loss_bytes: bytes(Some("region-loss")),
        };
        let caller = CallerReport::new(&other);
        Ok(Report { phases, callers: [("eu-west/a".to_owned(), caller)].into(), tunnel })
    }

    /// Streams and bytes of the tunnel so far, as us-east's gateways, which live through all phases, count them.
    fn tunnel(&self) -> anyhow::Result<TunnelReport> {
        let mut metrics = String::new();
        for gateway in self.topology.gateways("us-east") {
            metrics += &processes::body(gateway, 15020, "/metrics").context("us-east's gateway serves no metrics")?;
        }
        let sum = |name: &str| -> u64 {
            let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains("protocol=\"quic\""));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
        };
        Ok(TunnelReport {
            protocol: "quic",
            streams: sum("eastway_tunnel_streams_total"),
            bytes: sum("eastway_tunnel_sent_bytes_total") + sum("eastway_tunnel_received_bytes_total"),
            region_loss_bytes: 0,
        })
    }

    /// Keeps everything up until SIGINT or SIGTERM.
    fn hold(&mut self) -> anyhow::Result<()> {
        let proxy = self.proxy("us-east")?;
        println!("\neverything stays up; try:");
        println!("  curl -x http://{proxy} {URL}");
        println!("  curl -x http://{proxy} {}", URL.replace(".mesh.", ".eu-west.mesh."));
        for node in self.topology.nodes.iter().filter(|n| n.role == Role::Gateway) {
            println!("  curl http://{}/metrics    # {}", node.address(15020), node.name);
        }
        let state = self.state();
        report::write_json(Path::new(STATE_FILE), &state)?;
        println!("processes and addresses: {STATE_FILE}; Ctrl-C ends the demo");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::select! {
                outcome = tokio::signal::ctrl_c() => outcome?,
                _ = terminate.recv() => {}
            }
            std::fs::remove_file(STATE_FILE).ok();
            Ok(())
        })
    }

    fn state(&mut self) -> Vec<NodeState> {
        let nodes = self.topology.nodes.clone();
        nodes
            .iter()
            .filter(|node| node.role != Role::Etcd)
            .filter_map(|node| Some(NodeState::new(node, self.processes.pid(node)?)))
            .collect()
    }
}

/// An entry of `target/demo/state.json`.
#[derive(Debug, Serialize)]
struct NodeState {
    role: &'static str,
    cluster: &'static str,
    zone: Option<&'static str>,
    service: Option<&'static str>,
    pid: u32,
    proxy: Option<String>,
    admin: Option<String>,
    metrics: Option<String>,
    name: String,
    /// Where an application listens.
    listen: Option<String>,
}

impl NodeState {
    fn new(node: &DemoNode, pid: u32) -> Self {
        let at = |port, roles: &[Role]| roles.contains(&node.role).then(|| node.address(port).to_string());
        Self {
            role: node.role.as_str(),
            cluster: node.cluster,
            zone: node.zone,
            service: node.service,
            pid,
            proxy: at(15080, &[Role::Sidecar]),
            admin: at(15000, &[Role::Sidecar, Role::Gateway]),
            metrics: at(15020, &[Role::Sidecar, Role::Gateway]),
            name: node.name.clone(),
            listen: at(8080, &[Role::App]),
        }
    }
}

/// Selects the nodes of us-east's payments in `zones`.
fn payments(zones: &'static [&'static str]) -> impl Fn(&&DemoNode) -> bool {
    move |node| {
        node.cluster == "us-east"
            && node.service == Some("payments")
            && node.zone.is_some_and(|zone| zones.contains(&zone))
    }
}

/// How far traffic had to go: the furthest failover level that served at least 1 %.
fn level(summary: &Summary) -> &'static str {
    let shares = summary.shares();
    let serves = |test: &dyn Fn(&str) -> bool| shares.iter().any(|(zone, share)| *share >= 0.01 && test(zone));
    if serves(&|zone| !zone.starts_with("us-east/")) {
        "2 beyond"
    } else if serves(&|zone| zone != "us-east/a") {
        "1 region"
    } else {
        "0 zone"
    }
}
