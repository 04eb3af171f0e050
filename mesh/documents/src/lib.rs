//! Reading configuration files: YAML, checked as a whole, with every problem reported at once and where it is.
//!
//! A file goes through three steps. [`load`] reads it into a tree that knows its lines, compares the tree with the JSON
//! schema of the raw type, and deserializes it. The role then turns the raw value into its validated type with
//! [`Checks`], which collects what no schema can say. Only the validated type travels further. Nothing here reads the
//! environment, and nothing is half-loaded: either there is a value, or there are [`Problems`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

pub mod check;
mod problem;
pub mod reference;
pub mod schema;
mod suggest;
mod write;
pub mod yaml;

pub use check::Checks;
pub use eastway_core::text::{AddressText, DurationText, FileText};
pub use problem::{Problem, Problems, Severity};
pub use suggest::nearest;
pub use write::to_yaml;

use yaml::{Lines, YamlNode};

/// The largest file that is read. Configuration is written by people.
const MAX_FILE: u64 = 4 << 20;

/// A file that has the shape of `Raw`.
#[derive(Debug)]
pub struct Loaded<Raw> {
    /// What the file says.
    pub value: Raw,
    /// Where it says it.
    pub source: Source,
}

/// A file, and the lines of everything in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    file: PathBuf,
    lines: Lines,
}

/// Reads the file at `path`, which holds one document with the shape of `Raw`.
///
/// # Errors
/// Every problem that the file has with its syntax and shape: unknown and missing keys, wrong types, duplicate keys.
pub fn load<Raw: DeserializeOwned + JsonSchema>(path: &Path) -> Result<Loaded<Raw>, Problems> {
    let text = read(path).map_err(|error| Problem::new(path, 0, "", format!("cannot be read: {error}")))?;
    parse(path, &text)
}

/// As [`load`], for a text that stands for the file at `path`.
///
/// # Errors
/// As [`load`].
pub fn parse<Raw: DeserializeOwned + JsonSchema>(path: &Path, text: &str) -> Result<Loaded<Raw>, Problems> {
    let parsed = yaml::parse(text);
    let mut problems = Problems::default();
    problems.extend(parsed.faults.iter().map(|fault| fault.at(path)));
    let mut documents = parsed.documents.into_iter();
    let Some(mut document) = documents.next() else {
        if problems.is_empty() {
            problems.push(Problem::new(path, 0, "", "the file is empty"));
        }
        return Err(problems);
    };
    if let Some(second) = documents.next() {
        problems.push(Problem::new(path, second.line, "", "there must be only one document in this file"));
    }
    if parsed.complete {
        let root = schema::of::<Raw>();
        schema::rename_former(&root, &mut document);
        problems.extend(schema::check(&root, &document).iter().map(|fault| fault.at(path)));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    into_value(path, &document).map_err(Problems::from)
}

/// The typed value of a tree that fits the type's schema.
///
/// # Errors
/// What serde refuses although the schema accepts it.
pub fn into_value<Raw: DeserializeOwned>(path: &Path, document: &YamlNode) -> Result<Loaded<Raw>, Problem> {
    // The schema has accepted the tree; what serde still refuses has no better place than the document.
    let value = serde_json::from_value(document.to_json())
        .map_err(|error| Problem::new(path, document.line, "", error.to_string()))?;
    Ok(Loaded { value, source: Source::of(path, document) })
}

impl Source {
    /// The document of the file at `file`.
    pub fn of(file: &Path, document: &YamlNode) -> Self {
        Self { file: file.to_owned(), lines: Lines::of(document) }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The line of `path`, or of the nearest part of it that is in the file.
    pub fn line(&self, path: &str) -> usize {
        self.lines.line(path)
    }

    /// A path that the file names: relative ones start at the file's folder.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or_else(|| Path::new("")).join(path)
    }
}

/// Reads a file with a bound: a path that points at a device or a log must not fill the memory.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
