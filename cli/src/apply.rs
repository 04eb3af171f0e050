//! `eastway apply`: makes the cluster's resources be as files say.

use crate::operator::Node;
use crate::resources::{self, Given};

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct ApplyCommand {
    #[command(flatten)]
    given: Given,
    /// Delete what was applied before and is not among them.
    #[arg(long)]
    prune: bool,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    node: Node,
}

impl ApplyCommand {
    /// Applies the resources, all of them or none.
    ///
    /// # Errors
    /// What is wrong with them, or why the gateway did not take them.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let outcome = resources::change(&self.node, self.given.apply(self.prune)?, self.dry_run)?;
        self.node.print(&outcome, |out, outcome| resources::tell(out, outcome, self.dry_run))
    }
}
