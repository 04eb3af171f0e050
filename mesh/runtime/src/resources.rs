//! Resource files: what an operator declares to a gateway, read at start and at SIGHUP.
//!
//! A file holds any number of documents, a folder any number of files. Everything is checked together, and either all of
//! it is taken or none.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eastway_core::resource::Resource;

use crate::config::yaml::{self, Lines, YamlNode};
use crate::config::{self, Checks, Problem, Problems, Source, schema};

mod check;

/// A resource, and where it was declared.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedResource {
    /// What is declared. Files that it names are absolute or relative to the process, no longer to the file.
    pub resource: Resource,
    /// The file.
    pub file: PathBuf,
    /// The line where its document starts.
    pub line: usize,
}

/// The kind, namespace and name of a resource: there is one of each.
type Name = (&'static str, String, String);

/// Reads the resources in `paths`: files, or folders whose `*.yaml` and `*.yml` are read in the order of their names.
///
/// # Errors
/// Every problem in any of the files.
pub fn load(paths: &[PathBuf]) -> Result<Vec<LoadedResource>, Problems> {
    let mut problems = Problems::default();
    let mut loaded = Vec::new();
    let mut places: BTreeMap<Name, String> = BTreeMap::new();
    for file in files(paths, &mut problems) {
        match config::read(&file) {
            Ok(text) => read(&file, &text, &mut loaded, &mut places, &mut problems),
            Err(error) => problems.push(Problem::new(&file, 0, "", format!("cannot be read: {error}"))),
        }
    }
    check::together(&loaded, &mut problems);
    problems.or(loaded)
}

/// The published schema of a resource.
pub fn schema() -> serde_json::Value {
    schema::of::<Resource>()
}

fn files(paths: &[PathBuf], problems: &mut Problems) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in paths {
        match inside(path) {
            Ok(found) => files.extend(found),
            Err(error) => problems.push(Problem::new(path, 0, "", format!("cannot be read: {error}"))),
        }
    }
    files
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

fn read(
    file: &Path,
    text: &str,
    loaded: &mut Vec<LoadedResource>,
    places: &mut BTreeMap<Name, String>,
    problems: &mut Problems,
) {
    let parsed = yaml::parse(text);
    problems.extend(parsed.faults.iter().map(|fault| fault.at(file)));
    if !parsed.complete {
        return;
    }
    let schema = schema();
    for mut document in parsed.documents {
        schema::rename_former(&schema, &mut document);
        let faults = schema::check(&schema, &document);
        problems.extend(faults.iter().map(|fault| fault.at(file)));
        if !faults.is_empty() || !parsed.faults.is_empty() {
            continue;
        }
        if let Some(resource) = one(file, &document, problems) {
            let place = format!("{}:{}", file.display(), document.line);
            if let Some(first) = places.get(&name(&resource)) {
                let (kind, namespace, name) = name(&resource);
                let message = format!("{kind} {namespace}/{name} is declared twice: first at {first}");
                problems.push(Problem::new(file, document.line, "metadata.name", message));
            } else {
                places.insert(name(&resource), place);
            }
            loaded.push(LoadedResource { resource, file: file.to_owned(), line: document.line });
        }
    }
}

fn one(file: &Path, document: &YamlNode, problems: &mut Problems) -> Option<Resource> {
    let source = Source { file: file.to_owned(), lines: Lines::of(document) };
    let mut resource = match serde_json::from_value(document.to_json()) {
        Ok(resource) => resource,
        Err(error) => {
            problems.push(Problem::new(file, document.line, "", error.to_string()));
            return None;
        }
    };
    let mut checks = Checks::new(&source);
    check::alone(&mut checks, &mut resource);
    match checks.finish(()) {
        Ok(()) => {}
        Err(found) => problems.extend(found),
    }
    Some(resource)
}

fn name(resource: &Resource) -> Name {
    let (kind, metadata) = match resource {
        Resource::Peer(document) => ("Peer", &document.metadata),
        Resource::Service(document) => ("Service", &document.metadata),
    };
    (kind, metadata.namespace.clone(), metadata.name.clone())
}

#[cfg(test)]
mod tests;
