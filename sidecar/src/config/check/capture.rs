//! What is to be captured: whether it can be, and has an effect.

use std::net::{IpAddr, Ipv6Addr};

use eastway_documents::Checks;
use eastway_documents::check::is_stand_in;

use super::super::{Capture, CaptureInbound, Config, Whose};
use super::{DnsAddresses, InboundMode, RawCapture, RawCaptureInbound, RawExclude, RawWhose, Unknown};

/// The longest name of a table that nftables takes, with room for what is appended.
const MAX_TABLE: usize = 64;
/// The longest path of a control group.
const MAX_CGROUP: usize = 255;

pub(super) fn check(checks: &mut Checks<'_>, raw: Option<&RawCapture>, config: &Config) -> Option<Capture> {
    let is_wanted = config.dns.as_ref().is_some_and(|dns| dns.addresses == DnsAddresses::Captured);
    let Some(raw) = raw else {
        if is_wanted {
            let message =
                "names' addresses are to be captured, which needs `capture` (an empty one will do: `capture: {}`)";
            checks.problem("dns.addresses", message);
        }
        return None;
    };
    let why = "whoever reaches it acts with the workload's identity";
    let listen = checks.listen_locally("capture.listen", &raw.listen, why);
    if is_wanted && listen.is_ipv6() && !is_stand_in(listen) {
        checks
            .problem("capture.listen", "an IPv4 address is expected: `[::1]` is listened at as well with `dns.prefix`");
    }
    let inbound = raw.inbound.as_ref().map(|raw| inbound(checks, raw, config));
    if !is_wanted && inbound.is_none() && raw.unknown == Unknown::PassThrough {
        let message =
            "has no effect: nothing is captured without `dns.addresses: captured`, `unknown: deny` or `inbound`";
        checks.problem("capture", message);
    }
    if raw.unknown == Unknown::Deny && raw.user.is_none() {
        checks.problem(
            "capture.unknown",
            "`deny` would refuse the sidecar's own connections: say whose those are in `user`",
        );
    }
    let RawExclude { ports, addresses, users, groups, cgroups } = &raw.exclude;
    let excluded = RawWhose { users: users.clone(), groups: groups.clone(), cgroups: cgroups.clone() };
    let captured = Capture {
        listen: is_wanted.then_some(listen),
        via: raw.via,
        unknown: raw.unknown,
        table: table(checks, &raw.table),
        user: raw.user.as_ref().map(|user| account(checks, "capture.user", user)),
        only: whose(checks, "capture.only", &raw.only),
        excluded: whose(checks, "capture.exclude", &excluded),
        excluded_ports: ports_of(checks, "capture.exclude.ports", ports),
        excluded_networks: addresses
            .iter()
            .enumerate()
            .map(|(number, network)| self::network(checks, &format!("capture.exclude.addresses[{number}]"), network))
            .collect(),
        prefix: config.dns.as_ref().and_then(|dns| dns.prefix),
        inbound,
    };
    if let Some(user) = captured.user.as_ref().filter(|user| captured.only.users.contains(user)) {
        let message =
            format!("`{user}` is the sidecar's own user (`capture.user`), whose connections are never captured");
        checks.problem("capture.only.users", message);
    }
    Some(captured)
}

/// The first address of a /96, out of which captured names get an address.
pub(super) fn prefix(checks: &mut Checks<'_>, text: &str, addresses: DnsAddresses) -> Option<Ipv6Addr> {
    let prefix = text.parse::<Ipv6Addr>().ok().filter(|prefix| prefix.to_bits() as u32 == 0);
    match prefix {
        _ if addresses == DnsAddresses::Loopback => {
            let message = "has no effect with `addresses: loopback`: a host has one IPv6 loopback address, and no others for names";
            checks.problem("dns.prefix", message);
        }
        Some(prefix) if prefix.is_unspecified() || prefix.is_multicast() => {
            checks.problem("dns.prefix", format!("`{text}` is no prefix of a host's own, such as `fd00:ea57::`"));
        }
        Some(prefix) => return Some(prefix),
        None => {
            let message = format!("`{text}` is not the first address of a /96, such as `fd00:ea57::`");
            checks.problem("dns.prefix", message);
        }
    }
    None
}

fn inbound(checks: &mut Checks<'_>, raw: &RawCaptureInbound, config: &Config) -> CaptureInbound {
    let listen = checks.listen("capture.inbound.listen", &raw.listen);
    let mut ports = ports_of(checks, "capture.inbound.ports", &raw.ports);
    match &config.inbound {
        None => checks.problem("capture.inbound", "has no effect: the workload serves nothing (`inbound`)"),
        Some(inbound) => {
            if ports.is_empty() {
                ports.push(inbound.app.port());
            }
            let own = [
                ("inbound.listen", inbound.listen.port()),
                ("admin.listen", config.admin.port()),
                ("metrics.listen", config.metrics.port()),
                ("capture.inbound.listen", listen.port()),
            ];
            for (path, port) in own.into_iter().filter(|(_, port)| *port != 0 && ports.contains(port)) {
                checks.problem("capture.inbound.ports", format!("{port} is the port of {path}, not the application's"));
            }
        }
    }
    if raw.mode == InboundMode::Permissive && listen.ip().is_loopback() && !is_stand_in(listen) {
        let message =
            "a loopback address is not reached by what comes from other hosts: `0.0.0.0` or `[::]` is expected";
        checks.problem("capture.inbound.listen", message);
    }
    CaptureInbound { mode: raw.mode, listen, ports }
}

fn table(checks: &mut Checks<'_>, table: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if table.len() > MAX_TABLE || !table.starts_with(|c: char| c.is_ascii_alphabetic()) || !table.chars().all(is_name) {
        let message = format!(
            "`{table}` is no name of a table: a letter, then letters, digits, `_`, `-` and `.`, {MAX_TABLE} at most"
        );
        checks.problem("capture.table", message);
    }
    table.to_owned()
}

fn whose(checks: &mut Checks<'_>, path: &str, raw: &RawWhose) -> Whose {
    let mut accounts = |what: &str, names: &[String]| -> Vec<String> {
        let named = names.iter().enumerate();
        named.map(|(number, name)| account(checks, &format!("{path}.{what}[{number}]"), name)).collect()
    };
    let (users, groups) = (accounts("users", &raw.users), accounts("groups", &raw.groups));
    let cgroups = raw.cgroups.iter().enumerate().map(|(number, cgroup)| {
        let trimmed = cgroup.trim_matches('/');
        let is_path = trimmed.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
        if trimmed.is_empty() || trimmed.len() > MAX_CGROUP || !is_path || trimmed.split('/').any(|part| part == "..") {
            let message = format!("`{cgroup}` is no path of a control group, such as `system.slice/payments.service`");
            checks.problem(&format!("{path}.cgroups[{number}]"), message);
        }
        trimmed.to_owned()
    });
    Whose { users, groups, cgroups: cgroups.collect() }
}

/// A user or group: what useradd(8) takes for a name, or a number.
fn account(checks: &mut Checks<'_>, path: &str, name: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > 32 || !name.chars().all(is_name) {
        checks.problem(path, format!("`{name}` is no user or group"));
    }
    name.to_owned()
}

fn ports_of(checks: &mut Checks<'_>, path: &str, ports: &[u16]) -> Vec<u16> {
    if ports.contains(&0) {
        checks.problem(path, "there is no port 0");
    }
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn network(checks: &mut Checks<'_>, path: &str, network: &str) -> String {
    let (address, length) =
        network.split_once('/').map_or((network, None), |(address, length)| (address, Some(length)));
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => {
            checks.problem(path, format!("`{network}` is no address or network, such as `10.0.0.0/8`"));
            return network.to_owned();
        }
    };
    if length.is_some_and(|length| length.parse::<u8>().map_or(true, |length| length > most)) {
        checks.problem(path, format!("`{network}`: 0 to {most} expected behind the `/`"));
    }
    network.to_owned()
}
