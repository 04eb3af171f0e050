//! `eastway diff`: what `eastway apply` would change.

use std::fmt::{self, Write};

use eastway_documents::to_yaml;
use serde_json::Value;
use similar::TextDiff;

use crate::division::list;
use crate::operator::Node;
use crate::resources::{self, Given, named};

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffCommand {
    #[command(flatten)]
    given: Given,
    /// As if what was applied before and is not among them were deleted.
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    node: Node,
}

impl DiffCommand {
    /// Prints the differences; whether there are any.
    ///
    /// # Errors
    /// What is wrong with the resources, or why the gateway does not say.
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        let outcome = resources::change(&self.node, self.given.apply(self.prune)?, true)?;
        self.node.print(&outcome, |out, outcome| write(out, list(&outcome["changes"])))?;
        Ok(!list(&outcome["changes"]).is_empty())
    }
}

fn write(out: &mut impl Write, changes: &[Value]) -> fmt::Result {
    for change in changes {
        let (before, after) = (written(&change["before"]), written(&change["after"]));
        let diff = TextDiff::from_lines(&before, &after);
        let name = named(change);
        write!(out, "{}", diff.unified_diff().header(&format!("{name} as applied"), &format!("{name} as given")))?;
    }
    Ok(())
}

fn written(document: &Value) -> String {
    if document.is_null() { String::new() } else { to_yaml(document) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_told_by_lines() {
        let document = |port: u16| json!({ "kind": "Service", "spec": { "ports": [{ "port": port }] } });
        let changed = json!({
            "kind": "Service", "namespace": "shop", "name": "pay", "before": document(80), "after": document(81),
        });
        let gone = json!({ "kind": "Peer", "namespace": "default", "name": "eu", "before": { "kind": "Peer" }, "after": null });
        let mut out = String::new();
        write(&mut out, &[changed, gone]).expect("written");
        let expected = "\
--- Service shop/pay as applied
+++ Service shop/pay as given
@@ -1,4 +1,4 @@
 kind: Service
 spec:
   ports:
-    - port: 80
+    - port: 81
--- Peer eu as applied
+++ Peer eu as given
@@ -1 +0,0 @@
-kind: Peer
";
        assert_eq!(out, expected);
    }
}
