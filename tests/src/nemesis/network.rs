//! Hosts as network namespaces on a switch of their own, and the rules that drop their packets.

use std::collections::BTreeMap;

use super::delay::Delays;
use super::fault::ONE_WAY;
use super::namespace::Namespace;
use super::plan::{Cluster, Host};

/// All hosts of a run.
#[derive(Debug)]
pub(super) struct Network {
    hosts: BTreeMap<Host, Namespace>,
    _switch: Namespace,
    /// What passes here takes longer.
    _detour: Namespace,
    _delays: Delays,
}

/// Where packets that are to take longer are sent.
const DETOUR: &str = "10.77.0.1";

impl Network {
    /// Every host of the plan, reached by every other.
    ///
    /// # Panics
    /// Without root.
    pub(super) fn start() -> Self {
        let (switch, detour) = (Namespace::new(), Namespace::new());
        let hosts: BTreeMap<Host, Namespace> = Host::all().into_iter().map(|host| (host, Namespace::new())).collect();
        switch.run(
            "ip",
            "iproute2",
            &["-batch", "-"],
            "link add switch type bridge forward_delay 0\nlink set switch up\n",
        );
        let plug = |port: String, namespace: &Namespace, address: &str| {
            let holder = namespace.pid();
            let cable = format!(
                "link add {port} type veth peer name eth0 netns {holder}\nlink set {port} master switch\nlink set {port} up\n"
            );
            switch.run("ip", "iproute2", &["-batch", "-"], &cable);
            let up = format!("addr add {address}/16 dev eth0\nlink set eth0 up\n");
            namespace.run("ip", "iproute2", &["-batch", "-"], &up);
        };
        for (number, (host, namespace)) in hosts.iter().enumerate() {
            plug(format!("port{number}"), namespace, &host.ip().to_string());
        }
        plug("detour".to_owned(), &detour, DETOUR);
        let delays = Delays::start(&detour, ONE_WAY);
        Self { hosts, _switch: switch, _detour: detour, _delays: delays }
    }

    /// A host's namespace.
    pub(super) fn at(&self, host: Host) -> &Namespace {
        &self.hosts[&host]
    }

    /// Drops what arrives at `to` from any of `from`, until [`Network::mend`] with the same name. Who sends is told nothing.
    pub(super) fn deafen(&self, name: &str, to: Host, from: &[Host]) {
        let senders = from.iter().map(|host| host.ip().to_string()).collect::<Vec<_>>().join(", ");
        self.drop_at(name, to, &format!("ip saddr {{ {senders} }}"));
    }

    /// Drops 5 % of what arrives at `to` from other hosts, until [`Network::mend`] with the same name.
    pub(super) fn lose(&self, name: &str, to: Host) {
        self.drop_at(name, to, "iifname \"eth0\" numgen random mod 100 < 5");
    }

    fn drop_at(&self, name: &str, to: Host, which: &str) {
        // At the input hook the sender has sent already, and sees nothing of what happens here.
        let rules = format!(
            "table ip {name} {{ chain input {{ type filter hook input priority -10; policy accept; {which} drop; }}; }}"
        );
        self.at(to).run("nft", "nftables", &["-f", "-"], &rules);
    }

    /// Takes back what was done under `name` at `host`.
    pub(super) fn mend(&self, name: &str, host: Host) {
        self.at(host).run("nft", "nftables", &["delete", "table", "ip", name], "");
    }

    /// Sends what goes from `host` to `cluster` by the detour, or straight again.
    pub(super) fn detour(&self, host: Host, cluster: Cluster, on: bool) {
        let network = cluster.network();
        let words = if on { vec!["route", "add", &network, "via", DETOUR] } else { vec!["route", "del", &network] };
        self.at(host).run("ip", "iproute2", &words, "");
    }
}
