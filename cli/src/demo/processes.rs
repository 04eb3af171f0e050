//! The demo's child processes: started, watched, killed for real, and never left behind.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::topology::{DemoNode, Role, Topology};

/// How long a node may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The most that is read of a node's answer.
const MAX_ANSWER: u64 = 4 << 20;
/// How long a node may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The running children, by the name of their node. Dropping it ends them all.
#[derive(Debug)]
pub(super) struct Processes {
    program: std::path::PathBuf,
    children: BTreeMap<String, Child>,
}

impl Processes {
    /// None yet.
    pub(super) fn new() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the running program's own file")?;
        Ok(Self { program, children: BTreeMap::new() })
    }

    /// Starts `node`, without waiting until it is ready.
    pub(super) fn start(&mut self, topology: &Topology, node: &DemoNode) -> anyhow::Result<()> {
        let mut command = self.command(topology, node);
        let log = File::options().create(true).append(true).open(topology.log(node))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", node.name))?;
        self.children.insert(node.name.clone(), child);
        Ok(())
    }

    fn command(&self, topology: &Topology, node: &DemoNode) -> Command {
        let mut command = Command::new(&self.program);
        match node.role {
            Role::Gateway => command.args(["gateway", "--config"]).arg(topology.file(node)),
            Role::Sidecar => command.args(["sidecar", "--config"]).arg(topology.file(node)),
            Role::App => {
                let listen = node.address(8080).to_string();
                command.args(["app", "--listen", &listen, "--name", &node.name, "--zone", &node.place()])
            }
            Role::Etcd => {
                // It does not know that it must end with the demo, so it takes over a process that does.
                command.args(["instead", "etcd", "--"]);
                etcd_arguments(&mut command, node, &topology.folder)
            }
        };
        // A demo that is itself killed must not leave its children behind.
        command.env("EASTWAY_PARENT", std::process::id().to_string());
        command
    }

    /// Kills `nodes` as a power cut would: all at once, and only then waits for the kernel to clean up.
    pub(super) fn kill<'a>(&mut self, nodes: impl IntoIterator<Item = &'a DemoNode>) -> anyhow::Result<()> {
        let mut killed = Vec::new();
        for node in nodes {
            if let Some(mut child) = self.children.remove(&node.name) {
                child.kill().with_context(|| format!("cannot kill {}", node.name))?;
                killed.push(child);
            }
        }
        for mut child in killed {
            child.wait()?;
        }
        Ok(())
    }

    /// The process id of `node`, if it runs.
    pub(super) fn pid(&mut self, node: &DemoNode) -> Option<u32> {
        let child = self.children.get_mut(&node.name)?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// Waits until every one of `nodes` is ready.
    ///
    /// # Errors
    /// The first node that ended or took too long, with the end of its log.
    pub(super) fn wait_ready(&mut self, topology: &Topology, nodes: &[&DemoNode]) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        for node in nodes {
            while !is_ready(node) {
                let ended = self.pid(node).is_none();
                if ended || Instant::now() > deadline {
                    let what = if ended { "ended" } else { "is not ready in time" };
                    anyhow::bail!("{} {what}; the end of its log:\n{}", node.name, tail(&topology.log(node)));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            terminate(child);
        }
        let deadline = Instant::now() + STOP_LIMIT;
        for child in self.children.values_mut() {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Tells `child` to end; answers whether it was still there. The id of one that has ended may belong to somebody else by
/// now.
fn terminate(child: &mut Child) -> bool {
    let runs = matches!(child.try_wait(), Ok(None));
    // It cannot be anybody else's between the two: nobody but this thread waits for it.
    runs && kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).is_ok()
}

fn etcd_arguments<'a>(command: &'a mut Command, node: &DemoNode, folder: &Path) -> &'a mut Command {
    let client = format!("http://{}", node.address(2379));
    let peer = format!("http://{}", node.address(2380));
    command
        .arg("--data-dir")
        .arg(folder.join(format!("{}-data", node.name)))
        .args(["--name", &node.name])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("{}={peer}", node.name)])
}

fn is_ready(node: &DemoNode) -> bool {
    match node.role {
        Role::Gateway | Role::Sidecar => get(node, 15020, "/ready").is_some_and(|status| status == 200),
        Role::App => get(node, 8080, "/healthz").is_some_and(|status| status == 200),
        Role::Etcd => get(node, 2379, "/health").is_some_and(|status| status == 200),
    }
}

fn get(node: &DemoNode, port: u16, path: &str) -> Option<u16> {
    answer(node, port, path)?.split(' ').nth(1)?.parse().ok()
}

/// The body that `node` answers to a GET.
pub(super) fn body(node: &DemoNode, port: u16, path: &str) -> Option<String> {
    let answer = answer(node, port, path)?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// A whole answer to a plain GET, by hand: it is asked of processes that may not answer yet.
fn answer(node: &DemoNode, port: u16, path: &str) -> Option<String> {
    let mut stream = std::net::TcpStream::connect_timeout(&node.address(port), Duration::from_millis(200)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", node.address(port)).ok()?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_child_that_runs_gets_a_signal() {
        let mut ended = Command::new("true").spawn().expect("`true` starts");
        ended.wait().expect("it ends");
        assert!(!terminate(&mut ended), "its id may be somebody else's by now");
        let mut running = Command::new("sleep").arg("600").spawn().expect("`sleep` starts");
        assert!(terminate(&mut running));
        assert!(!running.wait().expect("it ends").success());
    }
}
