//! `eastway peers`: each path to another cluster, how it does, and how old the word of the gateway at its end is.

use std::fmt::{self, Write};

use anyhow::Context as _;
use serde_json::Value;

use crate::division::{list, percent, text};
use crate::operator::{Node, Table};

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct PeersCommand {
    #[command(flatten)]
    node: Node,
}

impl PeersCommand {
    /// Prints the paths.
    ///
    /// # Errors
    /// There is no such node, or it is a sidecar.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let status = self.node.ask_gateway("peers").context("cannot list the peers")?;
        let peers =
            Value::Array(list(&status["federation"]["peers"]).iter().map(|peer| with_tunnels(peer, &status)).collect());
        self.node.print(&peers, |out, peers| write(out, list(peers)))
    }
}

/// A peer, with its open tunnels among what is known of it.
pub(crate) fn with_tunnels(peer: &Value, status: &Value) -> Value {
    let tunnels = list(&status["tunnels"]).iter().filter(|tunnel| tunnel["peer"] == peer["cluster"]).cloned();
    let mut peer = peer.clone();
    peer["tunnels"] = tunnels.collect();
    peer
}

fn write(out: &mut impl Write, peers: &[Value]) -> fmt::Result {
    if peers.is_empty() {
        return writeln!(out, "no peers: declare a `Peer` among the resources of the gateway to reach another cluster");
    }
    write_paths(out, peers)?;
    writeln!(
        out,
        "\nstreams: open now, to and from all gateways of the peer; word: how old what the peer said last is; version: \
         epoch.number of that;\nca: until its pinned CA expires; imports: of the services that it offers, those taken here"
    )
}

/// A line for each path.
pub(crate) fn write_paths(out: &mut impl Write, peers: &[Value]) -> fmt::Result {
    let mut table = Table::new(&[
        "cluster",
        "gateway",
        "address",
        "state",
        "rtt ms",
        "loss",
        "streams",
        "transport",
        "word",
        "age s",
        "version",
        "ca",
        "exports",
        "imports",
        "cut",
    ]);
    for peer in peers {
        for path in list(&peer["paths"]) {
            table.row(row(peer, path));
        }
        if list(&peer["paths"]).is_empty() {
            table.row(row(peer, &Value::Null));
        }
    }
    table.write(out, "")
}

fn row(peer: &Value, path: &Value) -> Vec<String> {
    let state = match () {
        () if peer["idle"] == true => "idle".to_owned(),
        () if path["draining"] == true => format!("{}, draining", text(&path["state"])),
        () => text(&path["state"]),
    };
    let rtt = [&path["rtt_ms"], &path["min_rtt_ms"]].into_iter().find(|rtt| !rtt.is_null());
    let streams = list(&peer["tunnels"]).iter().filter_map(|tunnel| tunnel["streams"].as_i64()).sum::<i64>();
    let version = match path["epoch"].is_null() {
        true => "-".to_owned(),
        false => format!("{}.{}", text(&path["epoch"]), text(&path["seq"])),
    };
    let days = peer["bundle"]["days_left"].as_f64();
    vec![
        text(&peer["cluster"]),
        text(&path["gateway"]),
        text(&path["address"]),
        state,
        rtt.and_then(Value::as_f64).map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1}")),
        if path["loss"].is_null() { "-".to_owned() } else { percent(&path["loss"]) },
        streams.to_string(),
        text(&path["transport"]),
        rung(&peer["staleness"]),
        path["age_seconds"].as_f64().map_or_else(|| "-".to_owned(), |age| format!("{age:.1}")),
        version,
        days.map_or_else(|| "-".to_owned(), |days| format!("{days:.0} d")),
        text(&peer["exported"]),
        format!("{}/{}", text(&peer["imported"]), text(&peer["offered"])),
        cut(&peer["cut"]),
    ]
}

/// A rung of the ladder of age, as documents write it.
fn rung(staleness: &Value) -> String {
    match staleness.as_str() {
        Some(text) => text.replace("stale", "stale-"),
        None => "never".to_owned(),
    }
}

/// What was left out of what the peer said, and how often.
fn cut(cut: &Value) -> String {
    let cut: Vec<String> =
        cut.as_object().into_iter().flatten().map(|(what, count)| format!("{what} ({})", text(count))).collect();
    if cut.is_empty() { "-".to_owned() } else { cut.join(", ") }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A peer with a path that is up and one that is down.
    pub(crate) fn peer() -> Value {
        json!({
            "cluster": "eu-west", "staleness": "stale1", "exported": 2, "offered": 3, "imported": 1,
            "bundle": { "certificates": 1, "days_left": 3649.4, "days": 3650.0 },
            "cut": { "zones": 4 },
            "paths": [
                {
                    "gateway": "gateway-1", "address": "10.2.0.1:15443", "state": "up", "draining": true, "rtt_ms": 81.26,
                    "min_rtt_ms": 80.0, "loss": 0.025, "transport": "quic", "epoch": 1_790_000_000_000_u64, "seq": 7,
                    "age_seconds": 4.21,
                },
                { "gateway": null, "address": "10.2.0.2:15443", "state": "down", "draining": false },
            ],
        })
    }

    #[test]
    fn a_path_is_a_line() {
        let status = json!({ "tunnels": [
            { "peer": "eu-west", "transport": "quic", "streams": 5 },
            { "peer": "ap-south", "transport": "quic", "streams": 9 },
        ] });
        let mut text = String::new();
        write(&mut text, &[with_tunnels(&peer(), &status)]).expect("written");
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        let up = [
            "eu-west",
            "gateway-1",
            "10.2.0.1:15443",
            "up, draining",
            "81.3",
            "2.5 %",
            "5",
            "quic",
            "stale-1",
            "4.2",
            "1790000000000.7",
            "3649 d",
            "2",
            "1/3",
            "zones (4)",
        ];
        assert_eq!(lines[1], up);
        assert_eq!(lines[2][..8], ["eu-west", "-", "10.2.0.2:15443", "down", "-", "-", "5", "-"]);
        assert!(text.contains("pinned CA expires"), "{text}");
    }

    #[test]
    fn a_peer_without_a_path_and_a_gateway_without_peers_are_told() {
        let mut text = String::new();
        write(&mut text, &[json!({ "cluster": "eu-west", "paths": [], "cut": {} })]).expect("written");
        assert!(
            text.lines().nth(1).is_some_and(|line| line.starts_with("eu-west") && line.contains("never")),
            "{text}"
        );
        let mut none = String::new();
        write(&mut none, &[]).expect("written");
        assert!(none.starts_with("no peers: declare a `Peer`"), "{none}");
    }
}
