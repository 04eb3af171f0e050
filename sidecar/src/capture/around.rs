//! Ways around the sidecar: what `eastway sidecar capture check` finds.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use eastway_node::problem::Problem;

use super::{CaptureError, HostCapture, Standing};
use crate::config::{Capture, Config, InboundMode};

/// The state of a listening socket in proc(5).
const LISTENING: &str = "0A";

/// A socket of this network namespace that takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listening {
    address: SocketAddr,
    user: u32,
}

/// What can get around a sidecar on this host.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    config: &'a Config,
    capture: &'a Capture,
}

impl<'a> Around<'a> {
    /// By this configuration.
    pub const fn new(config: &'a Config, capture: &'a Capture) -> Self {
        Self { config, capture }
    }

    /// Everything that is wrong on the host whose files are below `root`.
    ///
    /// # Errors
    /// [`CaptureError`] if the host does not say.
    pub fn problems(&self, root: &Path) -> Result<Vec<Problem>, CaptureError> {
        let host = HostCapture::new(self.capture);
        let standing = host.standing()?;
        let listening = listening(root);
        let mut problems: Vec<Problem> = self.standing(standing).into_iter().collect();
        if standing != Standing::Absent && self.capture.listen.is_some() && !host.has_route() {
            problems.push(Problem::error(
                "no_route",
                "packets to names' addresses have no way: connections fail with `Network is unreachable`".to_owned(),
                "somebody has removed the route to 240.0.0.0/4",
                "`eastway sidecar capture install` sets it again",
            ));
        }
        problems.extend(self.silent(&listening));
        problems.extend(self.reachable(&listening, &users(root), standing));
        problems.sort_by_key(|problem| problem.severity);
        Ok(problems)
    }

    fn standing(&self, standing: Standing) -> Option<Problem> {
        let table = &self.capture.table;
        let next = "`eastway sidecar capture install --config FILE`, and `show` tells what is set";
        match standing {
            Standing::Current => None,
            Standing::Absent => Some(Problem::error(
                "not_installed",
                format!("nothing is captured: there is no table `inet {table}`"),
                "capture was not installed in this network namespace, or the host was restarted",
                next,
            )),
            Standing::Outdated => Some(Problem::error(
                "outdated",
                format!("the rules of `inet {table}` are those of another configuration"),
                "the configuration was changed after they were installed",
                next,
            )),
            Standing::Altered => Some(Problem::error(
                "altered",
                format!("rules of `inet {table}` were added or removed by hand"),
                "somebody has changed them with nft",
                next,
            )),
        }
    }

    /// What is captured leads to nobody while the sidecar does not run.
    fn silent(&self, listening: &[Listening]) -> Option<Problem> {
        let listen =
            self.capture.listen.filter(|listen| !listening.iter().any(|found| takes(found.address, *listen)))?;
        Some(Problem::error(
            "sidecar_absent",
            format!("nobody listens at {listen} (`capture.listen`): connections to names are refused"),
            "the sidecar does not run in this network namespace",
            "start it, or see its log",
        ))
    }

    /// Ports of the application that other hosts reach without the sidecar.
    fn reachable(&self, listening: &[Listening], users: &[(String, u32)], standing: Standing) -> Vec<Problem> {
        let own_users: Vec<u32> = self
            .capture
            .only
            .users
            .iter()
            .filter_map(|name| name.parse().ok().or_else(|| Some(users.iter().find(|(known, _)| known == name)?.1)))
            .collect();
        let app = self.config.inbound.map(|inbound| inbound.app.port());
        let inbound = self.capture.inbound.as_ref().filter(|_| standing != Standing::Absent);
        let mut problems = Vec::new();
        let mut told = Vec::new();
        for found in listening.iter().filter(|found| !found.address.ip().to_canonical().is_loopback()) {
            let port = found.address.port();
            let is_the_apps = app == Some(port) || own_users.contains(&found.user);
            let mode = inbound.filter(|inbound| inbound.ports.contains(&port)).map(|inbound| inbound.mode);
            if !is_the_apps || told.contains(&port) || mode == Some(InboundMode::Strict) {
                continue;
            }
            told.push(port);
            let at = found.address;
            problems.push(match mode {
                Some(_) => Problem::warning(
                    "plaintext_accepted",
                    format!("the application at {at} takes callers in plain text, by way of its sidecar (`permissive`)"),
                    "`capture.inbound.mode` is `permissive`, for as long as callers have still to be moved into the mesh",
                    "`eastway status` at the sidecar lists who they are; then `mode: strict`, and install again",
                ),
                None => Problem::error(
                    "reachable_around",
                    format!("the application at {at} can be reached from other hosts around its sidecar"),
                    "it listens on an address that is not loopback, and `capture.inbound` does not cover the port",
                    format!(
                        "have it listen on 127.0.0.1:{port}, or set `capture: {{ inbound: {{ ports: [{port}] }} }}` and install again"
                    ),
                ),
            });
        }
        problems
    }
}

/// Whether who listens at `address` takes what is sent to `wanted`.
fn takes(address: SocketAddr, wanted: SocketAddr) -> bool {
    address.port() == wanted.port() && (address.ip() == wanted.ip() || address.ip().is_unspecified())
}

/// The users of the host, by name.
fn users(root: &Path) -> Vec<(String, u32)> {
    let text = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    let user = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(user).collect()
}

/// Everything that listens for TCP in this network namespace.
fn listening(root: &Path) -> Vec<Listening> {
    let mut all = Vec::new();
    for file in ["proc/net/tcp", "proc/net/tcp6"] {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        all.extend(text.lines().filter_map(read));
    }
    all
}

/// A line of `/proc/net/tcp` or `tcp6`, if it is a listening socket.
fn read(line: &str) -> Option<Listening> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, LISTENING, _, _, _, user, ..] = columns[..] else { return None };
    let (address, port) = local.split_once(':')?;
    let words: Vec<u32> = (0..address.len() / 8)
        .map(|at| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok())
        .collect::<Option<_>>()?;
    // Each word as this machine stores it.
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    let address = SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?);
    Some(Listening { address, user: user.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn listening_sockets_are_read_as_the_kernel_lists_them() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 5234 1 0 100 0 0 10 0";
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        assert_eq!(read(line), Some(Listening { address: loopback, user: 1000 }));
        let any = "   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0";
        assert_eq!(read(any).map(|found| found.address), Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 80))));
        let open = line.replace(" 0A ", " 01 ");
        assert_eq!(read(&open), None, "a connection");
        assert_eq!(read("  sl  local_address rem_address   st tx_queue rx_queue"), None);
        let found = listening(Path::new("/"));
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let (address, after) = (socket.local_addr().expect("bound"), listening(Path::new("/")));
        assert!(!found.iter().any(|found| found.address == address), "{found:?}");
        assert!(after.iter().any(|found| found.address == address), "{after:?}");
    }
}
