//! `eastway rollback`: makes what is applied be as it was.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::division::{list, text};
use crate::operator::{Node, Table};
use crate::resources;

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct RollbackCommand {
    /// The number of the generation; the one before the latest if not given.
    generation: Option<u64>,
    /// Only list the generations that are kept.
    #[arg(long, conflicts_with_all = ["generation", "dry_run"])]
    list: bool,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    node: Node,
}

impl RollbackCommand {
    /// Rolls back, or lists the generations.
    ///
    /// # Errors
    /// The generation is not kept, or why the gateway did not do it.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if self.list {
            let generations = self.node.ask("/generations")?;
            return self.node.print(&generations, |out, generations| {
                let mut table = Table::new(&["generation", "at", "by", "changes"]);
                list(generations).iter().for_each(|generation| table.row(row(generation)));
                table.write(out, "")
            });
        }
        let change = json!({ "change": "rollback", "generation": self.generation });
        let outcome = resources::change(&self.node, change, self.dry_run)?;
        self.node.print(&outcome, |out, outcome| resources::tell(out, outcome, self.dry_run))
    }
}

fn row(generation: &Value) -> Vec<String> {
    let at = UNIX_EPOCH + Duration::from_millis(generation["at"].as_u64().unwrap_or_default());
    let first = list(&generation["changes"]).iter().take(3);
    let mut changes: Vec<String> =
        first.map(|change| format!("{} {}", resources::named(change), text(&change["became"]))).collect();
    let all = generation["changed"].as_u64().unwrap_or_default();
    if all > changes.len() as u64 {
        changes.push(format!("{} more", all - changes.len() as u64));
    }
    vec![
        text(&generation["number"]),
        humantime::format_rfc3339_seconds(at).to_string(),
        text(&generation["by"]),
        changes.join(", "),
    ]
}
