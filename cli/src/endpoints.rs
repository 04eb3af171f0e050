//! `eastway endpoints`: each endpoint of the own cluster, who says how it does, and the zones of other clusters in sum.

use std::fmt::{self, Write};

use anyhow::Context as _;
use serde_json::Value;

use crate::division::{list, percent, text};
use crate::operator::{self, Node, Table};

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct EndpointsCommand {
    /// NAMESPACE/SERVICE, SERVICE.NAMESPACE, or SERVICE; without it, all services.
    service: Option<String>,
    #[command(flatten)]
    node: Node,
}

impl EndpointsCommand {
    /// Prints the endpoints.
    ///
    /// # Errors
    /// There is no such node or service, or the node is a sidecar.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let path = match &self.service {
            None => "/view/endpoints".to_owned(),
            Some(service) => format!("/view/endpoints/{}", operator::service(service, &self.node.target)?),
        };
        let services = self.node.ask(&path).context("cannot list the endpoints")?;
        self.node.print(&services, |out, services| write(out, list(services), &self.node.target.to_string()))
    }
}

fn write(out: &mut impl Write, services: &[Value], admin: &str) -> fmt::Result {
    if services.is_empty() {
        return writeln!(out, "{admin} knows no service: workloads have to register at a gateway, or peers to export");
    }
    let columns = [
        "service",
        "endpoint",
        "zone",
        "address",
        "health",
        "age s",
        "weight",
        "capacity",
        "active",
        "used",
        "gateway",
        "incarnation",
        "why",
    ];
    let (mut table, mut found) = (Table::new(&columns), false);
    for service in services {
        for endpoint in list(&service["endpoints"]) {
            table.row(row(&service["service"], endpoint));
            found = true;
        }
    }
    if found {
        table.write(out, "")?
    } else {
        writeln!(out, "no endpoints in this cluster")?
    }
    write_remote(out, services)
}

fn row(service: &Value, endpoint: &Value) -> Vec<String> {
    let text = |name: &str| text(&endpoint[name]);
    vec![
        crate::division::text(service),
        text("id"),
        text("zone"),
        text("address"),
        text("health"),
        tenths(&endpoint["age_seconds"]),
        text("weight"),
        // What does not say its capacity has 0.
        if endpoint["capacity"] == 0 { "-".to_owned() } else { text("capacity") },
        text("active_requests"),
        share(&endpoint["utilisation"]),
        text("gateway"),
        text("incarnation"),
        text("why"),
    ]
}

/// The zones of other clusters.
fn write_remote(out: &mut impl Write, services: &[Value]) -> fmt::Result {
    let columns = ["service", "cluster/zone", "total", "ready", "degraded", "draining", "capacity", "used"];
    let (mut table, mut found) = (Table::new(&columns), false);
    for service in services {
        for cluster in list(&service["remote"]) {
            for zone in list(&cluster["zones"]) {
                let number = |name: &str| text(&zone[name]);
                table.row(vec![
                    text(&service["service"]),
                    format!("{}/{}", text(&cluster["cluster"]), text(&zone["zone"])),
                    number("total"),
                    number("ready"),
                    number("degraded"),
                    number("draining"),
                    if zone["capacity"].as_f64() == Some(0.0) { "-".to_owned() } else { number("capacity") },
                    share(&zone["utilisation"]),
                ]);
                found = true;
            }
        }
    }
    if !found {
        return Ok(());
    }
    writeln!(out, "\nin other clusters, in sum:")?;
    table.write(out, "")
}

/// A part of 1 in percent; nothing where it is unknown.
fn share(value: &Value) -> String {
    if value.is_null() { "-".to_owned() } else { percent(value) }
}

/// Seconds, to a tenth.
fn tenths(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"))
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
    fn an_endpoint_is_a_line_and_so_is_a_zone_of_another_cluster() {
        let services = json!([{
            "service": "shop/payments",
            "endpoints": [{
                "id": "payments-1", "zone": "a", "address": "10.0.0.7:15008", "health": "ready", "why": "its sidecar says so",
                "age_seconds": 0.42, "weight": 1.0, "capacity": 0, "active_requests": 3, "utilisation": 0.5,
                "gateway": "gateway-1", "incarnation": 1_790_000_000_000_000_u64,
            }],
            "remote": [{
                "cluster": "eu-west",
                "zones": [{
                    "zone": "b", "total": 4, "ready": 3, "degraded": 1, "draining": 0, "capacity": 64.0, "utilisation": null,
                }],
            }],
        }]);
        let text = told(&services);
        let cells = |line: &str| {
            let line = text.lines().find(|told| told.contains(line)).expect("a line").to_owned();
            line.split("  ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
        };
        let own = [
            "shop/payments",
            "payments-1",
            "a",
            "10.0.0.7:15008",
            "ready",
            "0.4",
            "1",
            "-",
            "3",
            "50 %",
            "gateway-1",
            "1790000000000000",
            "its sidecar says so",
        ];
        assert_eq!(cells("payments-1"), own);
        assert_eq!(cells("eu-west/b"), ["shop/payments", "eu-west/b", "4", "3", "1", "0", "64", "-"]);
    }

    #[test]
    fn a_service_without_endpoints_here_is_told_so() {
        assert_eq!(
            told(&json!([{ "service": "shop/payments", "endpoints": [], "remote": [] }])),
            "no endpoints in this cluster\n"
        );
        assert!(told(&json!([])).contains("knows no service"));
    }
}
