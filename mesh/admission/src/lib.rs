//! Whether what an operator declares can be taken: documents, the cluster's facts and what there is now, to problems or to a
//! set of resources that is whole in itself.
//!
//! Files, `eastway apply` and the administration API go this way, and no other: what one refuses, all do.
//!
//! 1. [`read`] takes texts apart, compares each document with the schema of its kind, and checks it by itself and with the
//!    others. Bundles that documents name as files become part of them.
//! 2. [`judge`] compares the set with the cluster, and, where that is known, with the services and peers that there are.
//!
//! Each kind has a file here with what is checked of it; what may be declared is in `eastway_core::resource`. What can have
//! no effect is an error, in whatever document or in the set as a whole; what hardly has one, or none for now, is a warning.
//! Warnings are among what [`judge`] finds, also those about one document alone. `tests/inert` has a document for each rule.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use eastway_core::resource::{Resource, ResourceId};
use eastway_documents::yaml::{self, YamlNode};
use eastway_documents::{Checks, Problem, Problems, Source, schema};
use serde_json::Value;

mod check;
mod cluster;
mod common;
mod judge;
mod mesh;
mod peer;
mod policy;
mod residency;
mod service;
mod weights;
mod world;

pub use cluster::{Cluster, Live, LivePeer, LiveService};
pub use judge::judge;
pub use peer::is_import_rule;

/// A text with any number of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The file that it comes from, or stands for: what problems name.
    pub file: PathBuf,
    /// What it says.
    pub text: String,
}

/// A resource, and where it was declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// What is declared. Bundles are in it, not beside it.
    pub resource: Resource,
    /// The same as it was written, by its present names: what is left out stays left out.
    pub document: Value,
    /// The file and the lines of everything in it.
    pub source: Source,
}

impl Declared {
    /// A document that was admitted before, perhaps by a later release, and comes from no file that anybody reads. Fields that this
    /// release does not know are passed over. `None` for a kind that it does not know, or a resource that is none.
    pub fn stored(document: &Value) -> Option<Self> {
        let mut known = document.clone();
        schema::prune(&SCHEMA, &mut known);
        let resource: Resource = serde_json::from_value(known).ok()?;
        let origin = format!("{}, as applied", resource.id());
        let source = Source::of(Path::new(&origin), &YamlNode { line: 0, kind: yaml::Kind::Null });
        Some(Self { resource, document: document.clone(), source })
    }

    /// The file, and the line where its document starts if it has lines.
    pub fn place(&self) -> String {
        let (file, line) = (self.source.file().display(), self.source.line(""));
        if line == 0 { file.to_string() } else { format!("{file}:{line}") }
    }
}

/// How files are read that documents name. The path is as it is written.
pub type ReadBeside<'a> = &'a dyn Fn(&Source, &str) -> io::Result<String>;

/// Reads the resources in `paths`: files, or folders whose `*.yaml` and `*.yml` are read in the order of their names.
///
/// # Errors
/// Every problem in any of the files.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Declared>, Problems> {
    let (texts, mut problems) = texts(paths);
    let declared = read_all(&texts, &|source, path| eastway_documents::read(&source.resolve(path)), &mut problems);
    problems.or(declared)
}

/// Takes `texts` apart. Files that documents name are read by `beside`.
///
/// # Errors
/// Every problem in any of them.
pub fn read(texts: &[Text], beside: ReadBeside<'_>) -> Result<Vec<Declared>, Problems> {
    let mut problems = Problems::default();
    let declared = read_all(texts, beside, &mut problems);
    problems.or(declared)
}

/// How resources fit together, wherever each is declared. [`read`] has looked at those that it has read.
pub fn fit(declared: &[Declared]) -> Problems {
    let mut problems = Problems::default();
    once(declared, &mut problems);
    check::together(declared, &mut problems);
    problems
}

/// Made once, because it is needed for every resource.
static SCHEMA: LazyLock<Value> = LazyLock::new(schema);

/// The published schema of a resource.
pub fn schema() -> Value {
    schema::of::<Resource>()
}

/// The texts of `paths`, as [`load`] reads them, and what cannot be read.
pub fn texts(paths: &[PathBuf]) -> (Vec<Text>, Problems) {
    let (mut texts, mut problems) = (Vec::new(), Problems::default());
    for path in paths {
        let files = inside(path).unwrap_or_else(|error| {
            problems.push(Problem::new(path, 0, "", format!("cannot be read: {error}")));
            Vec::new()
        });
        for file in files {
            match eastway_documents::read(&file) {
                Ok(text) => texts.push(Text { file, text }),
                Err(error) => problems.push(Problem::new(&file, 0, "", format!("cannot be read: {error}"))),
            }
        }
    }
    (texts, problems)
}

/// The file itself, or the resource files in a folder.
fn inside(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_all(texts: &[Text], beside: ReadBeside<'_>, problems: &mut Problems) -> Vec<Declared> {
    let mut declared = Vec::new();
    for text in texts {
        read_one(text, &SCHEMA, beside, &mut declared, problems);
    }
    problems.extend(fit(&declared));
    declared
}

fn read_one(
    Text { file, text }: &Text,
    schema: &Value,
    beside: ReadBeside<'_>,
    declared: &mut Vec<Declared>,
    problems: &mut Problems,
) {
    let parsed = yaml::parse(text);
    problems.extend(parsed.faults.iter().map(|fault| fault.at(file)));
    if !parsed.complete {
        return;
    }
    for mut document in parsed.documents {
        schema::rename_former(schema, &mut document);
        let faults = schema::check(schema, &document);
        problems.extend(faults.iter().map(|fault| fault.at(file)));
        if !faults.is_empty() || !parsed.faults.is_empty() {
            continue;
        }
        match eastway_documents::into_value::<Resource>(file, &document) {
            Ok(loaded) => {
                let (mut resource, source) = (loaded.value, loaded.source);
                let mut checks = Checks::new(&source);
                check::alone(&mut checks, &mut resource, &|path| beside(&source, path));
                if let Err(found) = checks.finish(()) {
                    problems.extend(found);
                }
                let mut document = document.to_json();
                if let Resource::Peer(peer) = &resource {
                    document["spec"]["trustBundle"] = Value::String(peer.spec.trust_bundle.clone());
                }
                declared.push(Declared { resource, document, source });
            }
            Err(problem) => problems.push(problem),
        }
    }
}

/// Each name is declared once.
fn once(declared: &[Declared], problems: &mut Problems) {
    let mut first: BTreeMap<ResourceId, &Declared> = BTreeMap::new();
    for one in declared {
        let id = one.resource.id();
        if let Some(first) = first.get(&id) {
            let message = format!("{id} is declared twice: first at {}", first.place());
            problems.push(Problem::new(one.source.file(), one.source.line(""), "metadata.name", message));
        } else {
            first.insert(id, one);
        }
    }
}

#[cfg(test)]
mod docs;
#[cfg(test)]
mod tests;
