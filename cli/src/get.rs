//! `eastway get`: the resources that count, and whose each is.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use eastway_documents::to_yaml;
use serde_json::Value;

use crate::delete::kind_of;
use crate::division::{list, text};
use crate::operator::{self, Table, Target};
use crate::resources::named;

/// How resources are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// Names and owners.
    #[default]
    Table,
    /// Documents, as they can be applied.
    Yaml,
    /// For programs.
    Json,
}

/// The command's options.
#[derive(Debug, clap::Args)]
pub(crate) struct GetCommand {
    /// Only those of this kind.
    kind: Option<String>,
    /// Only the one of this name, NAME or NAMESPACE/NAME.
    name: Option<String>,
    /// Only those of this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    target: Target,
    /// How to print them.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

impl GetCommand {
    /// Prints the resources.
    ///
    /// # Errors
    /// There is no such gateway, or not the resource that is named.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let kind = self.kind.as_deref().map(kind_of).transpose()?;
        let all = self.target.ask("/resources").context("cannot get the resources: is it a gateway?")?;
        let meant: Vec<&Value> = list(&all)
            .iter()
            .filter(|one| kind.is_none_or(|kind| text(&one["kind"]) == kind.as_str()) && self.means(one))
            .collect();
        if let (Some(name), true) = (&self.name, meant.is_empty()) {
            bail!("there is no {} `{name}`: see `eastway get`", kind.map_or("resource", |kind| kind.as_str()));
        }
        let mut out = String::new();
        match self.output {
            Form::Json => out = serde_json::to_string_pretty(&meant)? + "\n",
            Form::Yaml => {
                let documents: Vec<String> = meant.iter().map(|one| to_yaml(&one["document"])).collect();
                out = documents.join("---\n");
            }
            Form::Table if meant.is_empty() => {
                writeln!(out, "there are none: declare some with `eastway apply -f FILE`")?
            }
            Form::Table => {
                let mut table = Table::new(&["resource", "owner"]);
                for one in meant {
                    table.row(vec![named(one), text(&one["owner"])]);
                }
                table.write(&mut out, "")?;
            }
        }
        operator::print(&out)
    }

    fn means(&self, resource: &Value) -> bool {
        let (namespace, name) = (text(&resource["namespace"]), text(&resource["name"]));
        let wanted =
            self.name.as_deref().map(|name| name.split_once('/').map_or((None, name), |(n, name)| (Some(n), name)));
        let in_namespace = wanted.and_then(|(namespace, _)| namespace).or(self.namespace.as_deref());
        in_namespace.is_none_or(|wanted| wanted == namespace) && wanted.is_none_or(|(_, wanted)| wanted == name)
    }
}
