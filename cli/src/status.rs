//! `eastway status`: how a cluster stands with itself and with the others, and what is wrong.

use std::fmt::{self, Write};

use anyhow::Context as _;
use serde_json::Value;

use crate::division::{list, text};
use crate::operator::{Node, Table};
use crate::peers::{with_tunnels, write_paths};

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusCommand {
    #[command(flatten)]
    node: Node,
}

impl StatusCommand {
    /// Prints the status; whether all is well.
    ///
    /// # Errors
    /// There is no such node, or it is of a version that does not judge.
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        let status = self.node.ask("/status").context("cannot tell the status")?;
        let version = text(&status["version"]);
        let problems = status["problems"].as_array().with_context(|| {
            let own = env!("CARGO_PKG_VERSION");
            format!(
                "the node at {} is of version {version}, and does not say what is wrong: bring it to {own}",
                self.node.target
            )
        })?;
        self.node.print(&status, |out, status| match status["federation"].is_object() {
            true => write_gateway(out, status),
            false => write_sidecar(out, status),
        })?;
        Ok(problems.is_empty())
    }
}

fn write_gateway(out: &mut String, status: &Value) -> fmt::Result {
    let (federation, cluster) = (&status["federation"], &status["cluster"]);
    let (name, gateway) = (text(&cluster["name"]), text(&status["gateway"]));
    writeln!(out, "{name} (region {}, uid {})", text(&cluster["region"]), text(&cluster["uid"]))?;
    let draining = if status["draining"] == true { ", DRAINING" } else { "" };
    writeln!(
        out,
        "gateway {gateway}, version {}, epoch {}{draining}",
        text(&status["version"]),
        text(&federation["epoch"])
    )?;
    write_identity(out, status)?;
    writeln!(out, "{} services, endpoints here: {}", text(&federation["services"]), census(&federation["endpoints"]))?;
    let peers: Vec<Value> = list(&federation["peers"]).iter().map(|peer| with_tunnels(peer, status)).collect();
    if peers.is_empty() {
        writeln!(out, "\nno peers")?;
    } else {
        writeln!(out, "\nfrom {name} to:")?;
        write_paths(out, &peers)?;
    }
    write_gateways(out, &gateway, federation)?;
    write_store(out, &federation["store"])?;
    write_problems(out, list(&status["problems"]))
}

fn write_sidecar(out: &mut String, status: &Value) -> fmt::Result {
    let (name, cluster) = (text(&status["name"]), text(&status["cluster"]));
    let draining = if status["draining"] == true { ", DRAINING" } else { "" };
    writeln!(
        out,
        "sidecar of {name} in {cluster}/{}, version {}{draining}",
        text(&status["zone"]),
        text(&status["version"])
    )?;
    write_identity(out, status)?;
    let (discovery, registration) = (&status["discovery"], &status["registration"]);
    writeln!(
        out,
        "discovery: {} services, from the gateway {}",
        text(&discovery["known"]),
        text(&discovery["gateway"])
    )?;
    match registration.is_null() {
        true => writeln!(out, "registration: none, it only calls")?,
        false => writeln!(out, "registration: at the gateway {}", text(&registration["gateway"]))?,
    }
    writeln!(
        out,
        "\na sidecar knows neither peers nor gateways nor the store: for those, `eastway status` on the machine of a gateway of {cluster}"
    )?;
    write_problems(out, list(&status["problems"]))
}

fn write_identity(out: &mut String, status: &Value) -> fmt::Result {
    let days = status["certificate"]["days_left"].as_f64();
    let left = days.map_or_else(|| "unknown".to_owned(), |days| format!("{days:.1} days left"));
    writeln!(out, "{}: {left}", text(&status["identity"]))
}

/// How many endpoints there are, by health.
fn census(endpoints: &Value) -> String {
    let counts = endpoints.as_object().into_iter().flatten();
    let counts: Vec<String> = counts.map(|(health, count)| format!("{} {health}", text(count))).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

/// The gateways of the own cluster.
fn write_gateways(out: &mut String, own: &str, federation: &Value) -> fmt::Result {
    let mut table = Table::new(&["gateway", "registered", "speaks", "epoch"]);
    table.row(vec![own.to_owned(), "this one".to_owned(), "this one".to_owned(), text(&federation["epoch"])]);
    let yes = |value: &Value| if *value == true { "yes" } else { "NO" }.to_owned();
    for (gateway, sibling) in federation["siblings"].as_object().into_iter().flatten() {
        let (registered, speaks) = (yes(&sibling["registered"]), yes(&sibling["speaks"]));
        table.row(vec![gateway.clone(), registered, speaks, text(&sibling["epoch"])]);
    }
    writeln!(out)?;
    table.write(out, "")
}

fn write_store(out: &mut String, store: &Value) -> fmt::Result {
    let health = if store["healthy"] == true { "healthy" } else { "FAILS" };
    let age = store["age_seconds"].as_f64().map_or_else(String::new, |age| format!(", answered {age:.1} s ago"));
    writeln!(out, "\nstore {}: {health}{age}", text(&store["kind"]))?;
    let mut table = Table::new(&["member", "failures", "last failure"]);
    for member in list(&store["members"]) {
        table.row(vec![text(&member["address"]), text(&member["failures"]), text(&member["last_error"])]);
    }
    table.write(out, "  ")
}

pub(crate) fn write_problems(out: &mut String, problems: &[Value]) -> fmt::Result {
    match problems.len() {
        0 => return writeln!(out, "\nall is well"),
        1 => writeln!(out, "\n1 problem:")?,
        count => writeln!(out, "\n{count} problems:")?,
    }
    for problem in problems {
        let mark = text(&problem["severity"]).to_uppercase();
        writeln!(out, "{mark}: {}", text(&problem["what"]))?;
        writeln!(out, "  likely cause: {}", text(&problem["cause"]))?;
        writeln!(out, "  next: {}", text(&problem["next"]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::peers::tests::peer;

    fn gateway(problems: &Value) -> Value {
        json!({
            "role": "gateway", "gateway": "gateway-1", "version": "1.2.3", "draining": false,
            "identity": "spiffe://us-east.mesh.internal/eastway/gateway/gateway-1",
            "certificate": { "days_left": 59.96, "days": 90.0 },
            "cluster": { "name": "us-east", "region": "us", "uid": "0f3e" },
            "tunnels": [{ "peer": "eu-west", "transport": "quic", "connections": 1, "streams": 5 }],
            "federation": {
                "epoch": 7, "services": 3, "endpoints": { "ready": 2, "down": 1 }, "peers": [peer()],
                "siblings": { "gateway-2": { "registered": true, "speaks": false, "epoch": 6 } },
                "store": {
                    "kind": "etcd", "healthy": true, "age_seconds": 0.13,
                    "members": [{ "address": "http://10.0.0.1:2379", "failures": 0, "last_error": null }],
                },
            },
            "problems": problems,
        })
    }

    fn told(write: impl FnOnce(&mut String, &Value) -> fmt::Result, status: &Value) -> String {
        let mut text = String::new();
        write(&mut text, status).expect("written");
        text
    }

    #[test]
    fn a_gateway_tells_head_matrix_gateways_store_and_that_all_is_well() {
        let text = told(write_gateway, &gateway(&json!([])));
        for part in [
            "us-east (region us, uid 0f3e)\n",
            "gateway gateway-1, version 1.2.3, epoch 7\n",
            "gateway/gateway-1: 60.0 days left\n",
            "3 services, endpoints here: 1 down, 2 ready\n",
            "\nfrom us-east to:\ncluster",
            "10.2.0.1:15443  up, draining",
            "gateway-2  yes         NO            6\n",
            "store etcd: healthy, answered 0.1 s ago\n",
            "http://10.0.0.1:2379         0             -\n",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
        assert!(text.ends_with("\nall is well\n"), "{text}");
    }

    #[test]
    fn each_problem_has_its_cause_and_the_next_step() {
        let problem =
            json!({ "severity": "error", "kind": "k", "what": "it is dark", "cause": "night", "next": "`wait`" });
        let text = told(write_gateway, &gateway(&json!([problem])));
        assert!(text.ends_with("\n1 problem:\nERROR: it is dark\n  likely cause: night\n  next: `wait`\n"), "{text}");
    }

    #[test]
    fn a_sidecar_tells_what_it_knows_and_where_the_rest_is() {
        let sidecar = json!({
            "role": "sidecar", "name": "storefront-1", "cluster": "us-east", "zone": "a", "version": "1.2.3",
            "identity": "spiffe://us-east.mesh.internal/ns/shop/sa/storefront", "certificate": { "days_left": 9.0, "days": 90.0 },
            "discovery": { "gateway": "10.1.0.1:15010", "known": 2 }, "registration": null, "problems": [],
        });
        let text = told(write_sidecar, &sidecar);
        for part in [
            "sidecar of storefront-1 in us-east/a, version 1.2.3\n",
            "2 services, from the gateway 10.1.0.1:15010\n",
            "it only calls\n",
            "`eastway status` on the machine of a gateway of us-east\n",
            "all is well\n",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
    }
}
