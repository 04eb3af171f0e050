//! What `apply`, `diff`, `delete`, `get` and `rollback` share: reading what is given, asking for changes, telling what became of
//! it.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use eastway_admission as admission;
use eastway_documents::yaml;
use eastway_documents::{Problem, Problems, Severity};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::division::{list, text};
use crate::operator::Node;

/// The largest text that is read from standard input.
const MAX_INPUT: u64 = 4 << 20;

/// Documents that are given on the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Given {
    /// A file of resources, a folder whose *.yaml and *.yml are read, or `-` for standard input. May be given several times.
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    file: Vec<PathBuf>,
}

impl Given {
    /// The change that makes resources be as they are given.
    ///
    /// # Errors
    /// What cannot be read.
    pub(crate) fn apply(&self, prune: bool) -> anyhow::Result<Value> {
        let (texts, beside) = self.texts()?;
        let texts: Vec<Value> =
            texts.iter().map(|text| json!({ "file": text.file.to_string_lossy(), "text": text.text })).collect();
        Ok(json!({ "change": "apply", "texts": texts, "beside": beside, "prune": prune }))
    }

    /// The names of the resources that are given: kind, namespace and name.
    ///
    /// # Errors
    /// What cannot be read.
    pub(crate) fn names(&self) -> anyhow::Result<Vec<(String, String, String)>> {
        let mut names = Vec::new();
        for given in self.texts()?.0 {
            for document in yaml::parse(&given.text).documents {
                let document = document.to_json();
                let metadata = &document["metadata"];
                let namespace = metadata["namespace"].as_str().unwrap_or("default").to_owned();
                names.push((text(&document["kind"]), namespace, text(&metadata["name"])));
            }
        }
        Ok(names)
    }

    /// The texts, and the files that they name.
    fn texts(&self) -> anyhow::Result<(Vec<admission::Text>, BTreeMap<String, String>)> {
        let mut all = Vec::new();
        for path in &self.file {
            if path.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin().take(MAX_INPUT).read_to_string(&mut text).context("cannot read the standard input")?;
                all.push(admission::Text { file: PathBuf::from("standard input"), text });
                continue;
            }
            let (texts, problems) = admission::texts(std::slice::from_ref(path));
            if !problems.is_empty() {
                return Err(problems.into());
            }
            all.extend(texts);
        }
        let beside = all.iter().flat_map(bundles).collect();
        Ok((all, beside))
    }
}

/// The bundles that a text names as files and that can be read. What cannot be is told by who judges the text, with its line.
fn bundles(text: &admission::Text) -> Vec<(String, String)> {
    let documents = yaml::parse(&text.text).documents.into_iter().map(|document| document.to_json());
    let named = documents.filter_map(|document| document["spec"]["trustBundle"].as_str().map(str::to_owned));
    let folder = text.file.parent().unwrap_or_else(|| Path::new(""));
    let paths = named.filter(|named| !named.contains('\n')).map(|named| folder.join(named));
    paths.filter_map(|path| Some((path.to_string_lossy().into_owned(), eastway_documents::read(&path).ok()?))).collect()
}

/// Asks a gateway for a change, and tells its warnings.
///
/// # Errors
/// [`Problems`] if what is wanted is not sound, or why the gateway did not do it.
pub(crate) fn change(node: &Node, mut change: Value, dry_run: bool) -> anyhow::Result<Value> {
    change["by"] = Value::String(who());
    change["dryRun"] = Value::Bool(dry_run);
    let (status, body) = node.target.post("/resources", &change)?;
    refused_by_sidecar(node, status, &body)?;
    if status == 422 {
        let answer: Value = serde_json::from_slice(&body)?;
        let problems: Problems = serde_json::from_value(answer["problems"].clone())?;
        return Err(problems.into());
    }
    let outcome: Value = node.target.answer(status, &body)?;
    for warning in list(&outcome["warnings"]) {
        if let Ok(warning) = serde_json::from_value::<Problem>(warning.clone())
            && warning.severity == Severity::Warning
        {
            eprintln!("{warning}");
        }
    }
    Ok(outcome)
}

/// Says so if who answered knows no such request.
///
/// # Errors
/// It is a sidecar, or of an earlier release.
pub(crate) fn refused_by_sidecar(node: &Node, status: StatusCode, body: &[u8]) -> anyhow::Result<()> {
    if status == StatusCode::NOT_FOUND && body.starts_with(b"there are /status") {
        anyhow::bail!("{} is a sidecar, or a gateway of an earlier release: name a gateway with --admin", node.target);
    }
    Ok(())
}

/// Who changes something, for the history.
pub(crate) fn who() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let user = user.unwrap_or_else(|_| format!("uid {}", nix::unistd::getuid()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
}

/// A resource's name as people write it.
pub(crate) fn named(resource: &Value) -> String {
    let (kind, namespace, name) = (text(&resource["kind"]), text(&resource["namespace"]), text(&resource["name"]));
    match eastway_core::resource::Kind::find(&kind) {
        Some(kind) if !kind.is_namespaced() => format!("{kind} {name}"),
        _ => format!("{kind} {namespace}/{name}"),
    }
}

/// Tells what became of resources.
pub(crate) fn tell(out: &mut impl Write, outcome: &Value, dry_run: bool) -> fmt::Result {
    let changes = list(&outcome["changes"]);
    for change in changes {
        let would = if dry_run { "would be " } else { "" };
        writeln!(out, "{} {would}{}", named(change), text(&change["became"]))?;
    }
    match (changes.is_empty(), dry_run) {
        (true, _) => writeln!(out, "nothing differs: generation {} stays", outcome["generation"]),
        (false, true) => writeln!(out, "nothing was changed: generation {} stays", outcome["generation"]),
        (false, false) => writeln!(out, "generation {}", outcome["generation"]),
    }
}
