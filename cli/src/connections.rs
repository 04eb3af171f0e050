//! `eastway connections`: the streams of bytes that are open through a sidecar.

use std::fmt::{self, Write};

use anyhow::Context as _;
use serde_json::Value;

use crate::division::{list, text};
use crate::operator::{self, Node, Table};

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct ConnectionsCommand {
    /// NAMESPACE/SERVICE, SERVICE.NAMESPACE, or SERVICE; without it, all services.
    service: Option<String>,
    #[command(flatten)]
    node: Node,
}

impl ConnectionsCommand {
    /// Prints the streams.
    ///
    /// # Errors
    /// There is no such node or service, or the node is a gateway.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut streams = self.node.ask("/view/connections").context("cannot list the connections")?;
        if let (Some(service), Some(streams)) = (&self.service, streams.as_array_mut()) {
            let service = operator::service(service, &self.node.target)?.to_string();
            streams.retain(|stream| stream["service"] == *service);
        }
        self.node.print(&streams, |out, streams| write(out, list(streams)))
    }
}

fn write(out: &mut impl Write, streams: &[Value]) -> fmt::Result {
    if streams.is_empty() {
        return writeln!(
            out,
            "no connection is open: requests of HTTP are none, they are counted in `eastway_requests_in_flight`"
        );
    }
    let columns = [
        "direction",
        "service",
        "port",
        "from",
        "zone",
        "endpoint",
        "level",
        "age s",
        "silent s",
        "idle s",
        "sent",
        "received",
    ];
    let mut table = Table::new(&columns);
    for stream in streams {
        let text = |name: &str| text(&stream[name]);
        let seconds = |name: &str| stream[name].as_f64().map_or_else(|| "-".to_owned(), |s| format!("{s:.0}"));
        table.row(vec![
            text("direction"),
            text("service"),
            text("port"),
            text("from"),
            text("zone"),
            text("endpoint"),
            text("level"),
            seconds("age_seconds"),
            seconds("silent_seconds"),
            if stream["idle_seconds"].is_null() { "off".to_owned() } else { text("idle_seconds") },
            text("sent_bytes"),
            text("received_bytes"),
        ]);
    }
    table.write(out, "")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn streams_are_a_row_each() {
        let mut out = String::new();
        let stream = json!({
            "direction": "outbound", "service": "shop/db", "port": 5432, "from": "127.0.0.1:9", "zone": "eu-west/a", "endpoint": "db-1",
            "level": 2, "age_seconds": 7.2, "silent_seconds": 1.9, "idle_seconds": null, "sent_bytes": 3, "received_bytes": 4
        });
        write(&mut out, &[stream]).expect("text");
        let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected =
            ["outbound", "shop/db", "5432", "127.0.0.1:9", "eu-west/a", "db-1", "2", "7", "2", "off", "3", "4"];
        assert_eq!(rows[1], expected);
    }
}
