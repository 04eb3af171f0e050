//! `eastway services`: what can be called, on which ports, and in which clusters it is served.

use std::fmt::{self, Write};

use anyhow::Context as _;
use serde_json::Value;

use crate::division::{list, text};
use crate::operator::{Node, Table};

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct ServicesCommand {
    #[command(flatten)]
    node: Node,
}

impl ServicesCommand {
    /// Prints the services.
    ///
    /// # Errors
    /// There is no such node.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let services = self.node.ask("/view/services").context("cannot list the services")?;
        self.node.print(&services, |out, services| write(out, list(services), &self.node.target.to_string()))
    }
}

fn write(out: &mut impl Write, services: &[Value], admin: &str) -> fmt::Result {
    if services.is_empty() {
        return writeln!(
            out,
            "{admin} knows no service: workloads have to register at a gateway, or peers to export; a sidecar knows those that it \
             calls or lists under `services`"
        );
    }
    let mut table = Table::new(&["service", "ports", "ready here", "clusters", "exported to", "declared"]);
    for service in services {
        table.row(vec![
            text(&service["name"]),
            joined(&service["ports"], |port| format!("{} {}", text(&port["port"]), text(&port["protocol"]))),
            ready(&service["endpoints"]),
            joined(&service["clusters"], |cluster| format!("{} {}", text(&cluster["cluster"]), ready(cluster))),
            joined(&service["exported_to"], text),
            declared(service),
        ]);
    }
    table.write(out, "")?;
    if services.iter().any(|service| service["declared"].is_null()) {
        writeln!(
            out,
            "\n{admin} is a sidecar's: it knows the services that it calls, and not which are declared; ask a gateway for all of them"
        )?;
    }
    Ok(())
}

/// Of all endpoints, those that are ready; and those that are so to a degree.
fn ready(counts: &Value) -> String {
    let mut told = format!("{}/{}", text(&counts["ready"]), text(&counts["total"]));
    for part in ["degraded", "draining"] {
        if counts[part].as_u64().is_some_and(|count| count > 0) {
            told += &format!(" ({} {part})", text(&counts[part]));
        }
    }
    told
}

/// Who says that there is such a service: this cluster's operator, its workloads, or another cluster.
fn declared(service: &Value) -> String {
    let clusters = list(&service["clusters"]);
    let own = clusters.iter().any(|cluster| cluster["own"] == true);
    match service["declared"].as_bool() {
        Some(true) => "yes".to_owned(),
        Some(false) if own => "no, registered".to_owned(),
        Some(false) => {
            format!("no, by {}", clusters.first().map_or_else(|| "nobody".to_owned(), |first| text(&first["cluster"])))
        }
        None => "-".to_owned(),
    }
}

fn joined(values: &Value, each: impl Fn(&Value) -> String) -> String {
    match list(values) {
        [] => "-".to_owned(),
        values => values.iter().map(each).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(services: &Value) -> String {
        let mut text = String::new();
        write(&mut text, list(services), "127.0.0.1:15000").expect("written");
        text
    }

    #[test]
    fn a_service_is_a_line() {
        let cluster = |name: &str, own: bool, ready: u32, degraded: u32| json!({ "cluster": name, "own": own, "total": 3, "ready": ready, "degraded": degraded, "draining": 0 });
        let service = |name: &str, declared: Value, clusters: Vec<Value>| {
            json!({
                "name": name,
                "ports": [{ "port": 80, "protocol": "http" }, { "port": 9000, "protocol": "tcp" }],
                "declared": declared,
                "exported_to": if declared == true { vec!["*"] } else { vec![] },
                "endpoints": { "total": 3, "ready": 2, "degraded": 0, "draining": 1 },
                "clusters": clusters,
            })
        };
        let here = cluster("us-east", true, 2, 0);
        let there = cluster("eu-west", false, 1, 2);
        let services = json!([
            service("shop/payments", json!(true), vec![here.clone(), there.clone()]),
            service("shop/ledger", json!(false), vec![here]),
            service("shop/orders", json!(false), vec![there]),
        ]);
        let text = told(&services);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(lines[0], ["service", "ports", "ready here", "clusters", "exported to", "declared"]);
        let expected = [
            "shop/payments",
            "80 http, 9000 tcp",
            "2/3 (1 draining)",
            "us-east 2/3, eu-west 1/3 (2 degraded)",
            "*",
            "yes",
        ];
        assert_eq!(lines[1], expected);
        assert_eq!(lines[2].last(), Some(&"no, registered"));
        assert_eq!(lines[3].last(), Some(&"no, by eu-west"));
        assert_eq!(lines.len(), 4, "{text}");
    }

    #[test]
    fn what_a_sidecar_does_not_know_is_told() {
        let text = told(&json!([{ "name": "shop/payments", "declared": null, "clusters": [] }]));
        assert!(text.contains("it knows the services that it calls"), "{text}");
        assert!(told(&json!([])).contains("127.0.0.1:15000 knows no service"));
    }
}
