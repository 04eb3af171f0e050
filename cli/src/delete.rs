//! `eastway delete`: takes applied resources away.

use anyhow::bail;
use eastway_core::resource::Kind;
use serde_json::{Value, json};

use crate::division::{list, text};
use crate::operator::Node;
use crate::resources::{self, Given};

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteCommand {
    /// The kind, for example service.
    #[arg(required_unless_present_any = ["file", "all"], requires = "name")]
    kind: Option<String>,
    /// The names.
    #[arg(conflicts_with_all = ["file", "all"])]
    name: Vec<String>,
    /// The namespace, for kinds that lie in one.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    given: Option<Given>,
    /// Everything that was applied.
    #[arg(long, conflicts_with = "file")]
    all: bool,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    node: Node,
}

impl DeleteCommand {
    /// Deletes the resources, all of them or none.
    ///
    /// # Errors
    /// One of them was not applied, or why the gateway did not do it.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let resources = self.resources()?;
        let change = json!({ "change": "delete", "resources": resources });
        let outcome = resources::change(&self.node, change, self.dry_run)?;
        self.node.print(&outcome, |out, outcome| resources::tell(out, outcome, self.dry_run))
    }

    fn resources(&self) -> anyhow::Result<Vec<Value>> {
        if self.all {
            let all = self.node.ask("/resources")?;
            let applied = list(&all).iter().filter(|one| text(&one["owner"]) == "applied");
            return Ok(applied
                .map(|one| id(&text(&one["kind"]), &text(&one["namespace"]), &text(&one["name"])))
                .collect());
        }
        if let Some(given) = &self.given {
            return given.names()?.iter().map(|(kind, namespace, name)| find(kind, namespace, name)).collect();
        }
        let kind = self.kind.as_deref().unwrap_or_default();
        self.name.iter().map(|name| find(kind, &self.namespace, name)).collect()
    }
}

fn id(kind: &str, namespace: &str, name: &str) -> Value {
    json!({ "kind": kind, "namespace": namespace, "name": name })
}

/// What tells a resource apart, of a kind as people write it.
fn find(kind: &str, namespace: &str, name: &str) -> anyhow::Result<Value> {
    let found = kind_of(kind)?;
    let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
    Ok(id(found.as_str(), if found.is_namespaced() { namespace } else { "default" }, name))
}

/// The kind called so.
///
/// # Errors
/// There is none: with those that there are.
pub(crate) fn kind_of(text: &str) -> anyhow::Result<Kind> {
    match Kind::find(text) {
        Some(kind) => Ok(kind),
        None => {
            let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
            bail!("`{text}` is no kind of resource: there are {}", known.join(", "))
        }
    }
}
