//! What the kernel is to do, in the words of nft(8) and ip(8).

use std::fmt::{Display, Write as _};

use serde_json::Value;

use crate::config::{Capture, CaptureBy, InboundMode, Unknown, Whose};

/// The network of captured names.
pub(super) const NETWORK: &str = "240.0.0.0/4";

/// The chain that every table of ours has. It does nothing: its only rule says by which configuration the table was written.
pub(super) const MARKED: &str = "eastway_captured";

/// The routing table that leads marked packets to this host, and the high bits of their marks.
pub(super) const ROUTES: u32 = 0xea57;

/// Hooks of nftables, with the priorities at which destinations are rewritten, marks are set, and packets are filtered.
const REWRITE_OUTPUT: &str = "type nat hook output priority -100";
const REWRITE_ARRIVING: &str = "type nat hook prerouting priority -100";
const MARK_OUTPUT: &str = "type route hook output priority -150";
const MARK_ARRIVING: &str = "type filter hook prerouting priority -150";
const FILTER_OUTPUT: &str = "type filter hook output priority 0";
const FILTER_INPUT: &str = "type filter hook input priority 0";

/// The mark of packets that are captured by TPROXY, for this table alone.
pub(super) fn mark(table: &str) -> u32 {
    // FNV-1a, folded.
    let hash = table.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (ROUTES << 16) | ((hash >> 16) ^ (hash & 0xffff))
}

/// The table as a whole: nft(8) puts it in the place of what was there, in one transaction.
pub(super) fn document(capture: &Capture) -> String {
    let (mut chains, rules) = Chains::of(capture).text();
    let comment = format!("{} {}", rules + 1, digest(&chains));
    let _ = writeln!(chains, "  chain {MARKED} {{\n    return comment \"{comment}\"\n  }}");
    let table = format!("table inet {}", capture.table);
    // What is there is added in vain, so that there is something to delete.
    format!("{table}\ndelete {table}\n{table} {{\n{chains}}}\n")
}

/// How many rules the table of this configuration has, and what tells it from those of others.
pub(super) fn fingerprint(capture: &Capture) -> String {
    let (chains, rules) = Chains::of(capture).text();
    format!("{} {}", rules + 1, digest(&chains))
}

/// The fingerprint among what nft(8) lists as JSON.
pub(super) fn found(items: &Value) -> Option<&str> {
    let rules = items.as_array()?.iter().map(|item| &item["rule"]);
    rules.filter(|rule| rule["chain"] == MARKED).find_map(|rule| rule["comment"].as_str())
}

/// What ip(8) is told, in order; each may be repeated.
pub(super) fn routes(capture: &Capture) -> Vec<String> {
    if capture.listen.is_none() {
        return Vec::new();
    }
    // Without a source, a host that has no address but that of its loopback interface would take none.
    let mut all = vec![format!("-4 route replace {NETWORK} dev lo src 127.0.0.1")];
    all.extend(capture.prefix.map(|prefix| format!("-6 route replace {prefix}/96 dev lo src ::1")));
    if capture.via == CaptureBy::Tproxy {
        all.push(format!("-4 route replace local 0.0.0.0/0 dev lo table {ROUTES}"));
        all.extend(capture.prefix.map(|_| format!("-6 route replace local ::/0 dev lo table {ROUTES}")));
    }
    all
}

/// The rules of routing by mark, each of which is to be there once.
pub(super) fn marks(capture: &Capture) -> Vec<String> {
    if capture.listen.is_none() || capture.via == CaptureBy::Redirect {
        return Vec::new();
    }
    let rule = |family| format!("{family} rule add fwmark {} lookup {ROUTES}", mark(&capture.table));
    [Some("-4"), capture.prefix.map(|_| "-6")].into_iter().flatten().map(rule).collect()
}

/// The chains of a table, which may refer to those before them.
#[derive(Default)]
struct Chains(Vec<(&'static str, Option<&'static str>, Vec<String>)>);

impl Chains {
    fn of(capture: &Capture) -> Self {
        let mut chains = Self::default();
        chains.outbound(capture);
        if capture.unknown == Unknown::Deny {
            chains.deny(capture);
        }
        chains.inbound(capture);
        chains
    }

    /// Connections to names' addresses lead to the sidecar.
    fn outbound(&mut self, capture: &Capture) {
        let Some(listen) = capture.listen else { return };
        let (port, mark) = (listen.port(), mark(&capture.table));
        let (hook, take) = match capture.via {
            CaptureBy::Redirect => (REWRITE_OUTPUT, format!("redirect to :{port}")),
            CaptureBy::Tproxy => (MARK_OUTPUT, format!("meta mark set {mark}")),
        };
        let four = Some(format!("meta l4proto tcp ip daddr {NETWORK} {take}"));
        let six = capture.prefix.map(|prefix| format!("meta l4proto tcp ip6 daddr {prefix}/96 {take}"));
        self.chain("eastway_taken", None, four.into_iter().chain(six));
        let rules = guards(capture, "return").chain(concerned(capture, "eastway_taken"));
        self.chain("eastway_output", Some(hook), rules);
        if capture.via == CaptureBy::Tproxy {
            let families = [Some(("ip", "ipv4")), capture.prefix.map(|_| ("ip6", "ipv6"))];
            let arrived = families.into_iter().flatten().map(|(family, nfproto)| {
                format!("meta nfproto {nfproto} meta l4proto tcp meta mark {mark} tproxy {family} to :{port} accept")
            });
            self.chain("eastway_arrived", Some(MARK_ARRIVING), arrived);
        }
    }

    /// What leaves the host and is excluded by nothing is refused.
    fn deny(&mut self, capture: &Capture) {
        let refused = ["tcp counter reject with tcp reset", "udp counter reject with icmpx admin-prohibited"];
        self.chain("eastway_denied", None, refused.map(|rule| format!("meta l4proto {rule}")));
        let known = ["ct state established,related accept", "oifname \"lo\" accept"].map(str::to_owned);
        let rules = known.into_iter().chain(guards(capture, "accept")).chain(concerned(capture, "eastway_denied"));
        self.chain("eastway_deny", Some(FILTER_OUTPUT), rules);
    }

    /// Callers from other hosts to the application's own ports.
    fn inbound(&mut self, capture: &Capture) {
        let Some(inbound) = &capture.inbound else { return };
        let (port, arriving) = (inbound.listen.port(), format!("iifname != \"lo\" tcp dport {}", set(&inbound.ports)));
        let (hook, rules) = match (inbound.mode, capture.via) {
            (InboundMode::Strict, _) => (FILTER_INPUT, vec![format!("{arriving} counter reject with tcp reset")]),
            (InboundMode::Permissive, CaptureBy::Redirect) => {
                (REWRITE_ARRIVING, vec![format!("{arriving} counter redirect to :{port}")])
            }
            (InboundMode::Permissive, CaptureBy::Tproxy) => {
                let rule = |(family, nfproto)| {
                    format!("meta nfproto {nfproto} {arriving} counter tproxy {family} to :{port} accept")
                };
                (MARK_ARRIVING, [("ip", "ipv4"), ("ip6", "ipv6")].map(rule).into())
            }
        };
        self.chain("eastway_inbound", Some(hook), rules);
    }

    fn chain(&mut self, name: &'static str, hook: Option<&'static str>, rules: impl IntoIterator<Item = String>) {
        self.0.push((name, hook, rules.into_iter().collect()));
    }

    /// As nft(8) reads it, and how many rules there are.
    fn text(&self) -> (String, usize) {
        let mut text = String::new();
        for (name, hook, rules) in &self.0 {
            let _ = writeln!(text, "  chain {name} {{");
            if let Some(hook) = hook {
                let _ = writeln!(text, "    {hook}; policy accept;");
            }
            for rule in rules {
                let _ = writeln!(text, "    {rule}");
            }
            let _ = writeln!(text, "  }}");
        }
        (text, self.0.iter().map(|(_, _, rules)| rules.len()).sum())
    }
}

/// What is never concerned: the sidecar's own connections, and all that is excluded.
fn guards(capture: &Capture, verdict: &str) -> impl Iterator<Item = String> {
    let own = Whose { users: capture.user.iter().cloned().collect(), ..Whose::default() };
    let mut all = matches(&own);
    all.extend(matches(&capture.excluded));
    if !capture.excluded_ports.is_empty() {
        all.push(format!("meta l4proto {{ tcp, udp }} th dport {}", set(&capture.excluded_ports)));
    }
    all.extend(capture.excluded_networks.iter().map(|network| {
        let family = if network.contains(':') { "ip6" } else { "ip" };
        format!("{family} daddr {network}")
    }));
    all.into_iter().map(move |matched| format!("{matched} {verdict}"))
}

/// What is concerned goes to the chain `to`.
fn concerned(capture: &Capture, to: &str) -> impl Iterator<Item = String> {
    let mut whose = matches(&capture.only);
    if whose.is_empty() {
        whose.push(String::new());
    }
    whose.into_iter().map(move |matched| format!("{matched} goto {to}").trim_start().to_owned())
}

/// One expression for each of users, groups and control groups; any of them is enough.
fn matches(whose: &Whose) -> Vec<String> {
    let accounts = |names: &[String]| set(&names.iter().map(|name| account(name)).collect::<Vec<_>>());
    let mut all = Vec::new();
    if !whose.users.is_empty() {
        all.push(format!("meta skuid {}", accounts(&whose.users)));
    }
    if !whose.groups.is_empty() {
        all.push(format!("meta skgid {}", accounts(&whose.groups)));
    }
    all.extend(
        whose.cgroups.iter().map(|path| format!("socket cgroupv2 level {} \"{path}\"", path.split('/').count())),
    );
    all
}

fn account(name: &str) -> String {
    if name.bytes().all(|b| b.is_ascii_digit()) { name.to_owned() } else { format!("\"{name}\"") }
}

fn set<T: Display>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", values.join(", "))
}

/// 64 bits of FNV-1a, in hexadecimal: it tells texts of our own apart, not forgeries.
fn digest(text: &str) -> String {
    let hash =
        text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture() -> Capture {
        Capture {
            listen: Some(([127, 0, 0, 1], 15_001).into()),
            via: CaptureBy::Redirect,
            unknown: Unknown::PassThrough,
            table: "eastway".to_owned(),
            user: None,
            only: Whose::default(),
            excluded: Whose::default(),
            excluded_ports: Vec::new(),
            excluded_networks: Vec::new(),
            prefix: None,
            inbound: None,
        }
    }

    #[test]
    fn what_is_excluded_comes_before_what_is_captured() {
        let capture = Capture {
            user: Some("eastway".to_owned()),
            only: Whose { users: vec!["app".to_owned(), "1000".to_owned()], ..Whose::default() },
            excluded: Whose { cgroups: vec!["system.slice/backup.service".to_owned()], ..Whose::default() },
            excluded_ports: vec![22, 81],
            excluded_networks: vec!["10.0.0.0/8".to_owned(), "2001:db8::1".to_owned()],
            ..capture()
        };
        let text = document(&capture);
        let rules: Vec<&str> =
            text.lines().map(str::trim).skip_while(|line| !line.contains("eastway_output")).collect();
        assert_eq!(
            rules[1..9],
            [
                "type nat hook output priority -100; policy accept;",
                "meta skuid { \"eastway\" } return",
                "socket cgroupv2 level 2 \"system.slice/backup.service\" return",
                "meta l4proto { tcp, udp } th dport { 22, 81 } return",
                "ip daddr 10.0.0.0/8 return",
                "ip6 daddr 2001:db8::1 return",
                "meta skuid { \"app\", 1000 } goto eastway_taken",
                "}",
            ],
            "{text}"
        );
    }

    #[test]
    fn a_table_says_by_which_configuration_it_was_written() {
        let (one, other) = (capture(), Capture { excluded_ports: vec![81], ..capture() });
        assert_ne!(fingerprint(&one), fingerprint(&other));
        assert!(document(&one).contains(&format!("return comment \"{}\"", fingerprint(&one))));
        assert!(fingerprint(&one).starts_with("3 "), "its own rule among them: {}", fingerprint(&one));
        assert_ne!(mark("eastway"), mark("eastway-2"));
        assert_eq!(mark("eastway") >> 16, ROUTES);
    }
}
