//! YAML into a tree that knows the line of everything in it.
//!
//! The subset that configuration needs: mappings with text keys, sequences, and scalars as YAML 1.2's core schema reads
//! them (`no` is a text). Anchors, aliases and tags are refused rather than expanded, so that no small file becomes a large
//! tree, and what a reader sees is what is meant. Every fault is collected; only broken syntax ends the reading.

use std::collections::BTreeMap;
use std::path::Path;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use serde_json::{Map, Number, Value};

use super::problem::Problem;

/// Nesting beyond this is refused; the deepest setting lies at about 6.
const MAX_DEPTH: usize = 32;

/// What is in a file.
#[derive(Debug)]
pub struct Parsed {
    /// Its documents, as far as they could be read.
    pub documents: Vec<YamlNode>,
    /// What is wrong with them.
    pub faults: Vec<Fault>,
    /// Whether the syntax holds to the end of the file.
    pub complete: bool,
}

/// A value, and the line where it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct YamlNode {
    /// The line, from 1.
    pub line: usize,
    /// The value.
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// A sequence.
    List(Vec<YamlNode>),
    /// A mapping.
    Map(Vec<YamlEntry>),
    /// Something that was refused where it stands; nothing more is to be said about it.
    Refused,
}

/// A key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct YamlEntry {
    /// The key.
    pub key: String,
    /// The line of the key, from 1.
    pub line: usize,
    /// Its value.
    pub value: YamlNode,
}

/// A problem that does not know its file yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The place within the document.
    pub path: String,
    /// What is wrong, and how to put it right.
    pub message: String,
}

impl Fault {
    /// The problem, in this file.
    pub fn at(&self, file: &Path) -> Problem {
        Problem::new(file, self.line, self.path.clone(), self.message.clone())
    }
}

impl YamlNode {
    /// The value as JSON. Mappings have no duplicate keys any more.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null | Kind::Refused => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(value) => Value::Number(value.clone()),
            Kind::Text(value) => Value::String(value.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Kind::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// The value of a mapping's key.
    pub fn find(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }
}

/// The path of `key` within `path`.
pub fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_');
    match (path, plain) {
        ("", true) => key.to_owned(),
        (_, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{key:?}]"),
    }
}

/// The lines of everything in a document, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// The lines of `document`: of keys in mappings, of values in sequences.
    pub fn of(document: &YamlNode) -> Self {
        let mut lines = Self::default();
        lines.0.insert(String::new(), document.line);
        lines.add("", document);
        lines
    }

    fn add(&mut self, path: &str, node: &YamlNode) {
        match &node.kind {
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.0.insert(path.clone(), item.line);
                    self.add(&path, item);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    let path = join(path, &entry.key);
                    self.0.insert(path.clone(), entry.line);
                    self.add(&path, &entry.value);
                }
            }
            _ => {}
        }
    }

    /// The line of `path`, or of the nearest part of it that is in the document.
    pub fn line(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return *line;
            }
            let Some(end) = path.rfind(['.', '[']) else { return self.0.get("").copied().unwrap_or_default() };
            path = &path[..end];
        }
    }
}

/// Reads all documents of `text`.
pub fn parse(text: &str) -> Parsed {
    let mut reader = Reader { events: Parser::new_from_str(text), faults: Vec::new() };
    let mut documents = Vec::new();
    let complete = reader.documents(&mut documents).is_ok();
    Parsed { documents, faults: reader.faults, complete }
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    faults: Vec<Fault>,
}

/// The syntax is broken; the fault is recorded.
struct Broken;

impl<'a> Reader<'a> {
    fn documents(&mut self, documents: &mut Vec<YamlNode>) -> Result<(), Broken> {
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => {
                    let node = self.node(event, span, "", 0)?;
                    // A document without content, such as after a last `---`, says nothing.
                    if node.kind != Kind::Null {
                        documents.push(node);
                    }
                }
            }
        }
        Ok(())
    }

    /// The next event that is not a comment.
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Broken> {
        loop {
            match self.events.next() {
                None => return Ok(None),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(next)) => return Ok(Some(next)),
                Some(Err(error)) => {
                    self.fault(error.marker().line(), "", format!("not YAML: {error}"));
                    return Err(Broken);
                }
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, path: &str, depth: usize) -> Result<YamlNode, Broken> {
        let line = span.start.line();
        if depth > MAX_DEPTH {
            self.fault(line, path, format!("nested deeper than {MAX_DEPTH} levels"));
            return Err(Broken);
        }
        let (kind, anchored, tagged) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style), anchor != 0, tag.is_some()),
            Event::SequenceStart(_, anchor, tag) => (Kind::List(self.list(path, depth)?), anchor != 0, tag.is_some()),
            Event::MappingStart(_, anchor, tag) => (Kind::Map(self.map(path, depth)?), anchor != 0, tag.is_some()),
            Event::Alias(_) => (Kind::Refused, true, false),
            // No other event stands for a node.
            _ => (Kind::Refused, false, false),
        };
        if anchored {
            self.fault(line, path, "anchors and aliases are not supported: write the value where it is used");
        }
        if tagged {
            self.fault(line, path, "tags are not supported");
        }
        let kind = if anchored || tagged { Kind::Refused } else { kind };
        Ok(YamlNode { line, kind })
    }

    fn list(&mut self, path: &str, depth: usize) -> Result<Vec<YamlNode>, Broken> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            items.push(self.node(event, span, &format!("{path}[{}]", items.len()), depth + 1)?);
        }
        Ok(items)
    }

    fn map(&mut self, path: &str, depth: usize) -> Result<Vec<YamlEntry>, Broken> {
        let mut entries: Vec<YamlEntry> = Vec::new();
        let mut first_lines: BTreeMap<String, usize> = BTreeMap::new();
        while let Some((event, span)) = self.next()? {
            let line = span.start.line();
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(ref text, _, 0, None) => Some(text.to_string()),
                event => {
                    self.node(event, span, path, depth + 1)?;
                    self.fault(line, path, "a key must be a text");
                    None
                }
            };
            let Some((event, span)) = self.next()? else { break };
            let inner = key.as_deref().map_or_else(|| path.to_owned(), |key| join(path, key));
            let value = self.node(event, span, &inner, depth + 1)?;
            let Some(key) = key else { continue };
            match first_lines.get(&key) {
                Some(first) => self.fault(line, &inner, format!("given twice: first on line {first}")),
                None => {
                    first_lines.insert(key.clone(), line);
                    entries.push(YamlEntry { key, line, value });
                }
            }
        }
        Ok(entries)
    }

    fn fault(&mut self, line: usize, path: &str, message: impl Into<String>) {
        self.faults.push(Fault { line, path: path.to_owned(), message: message.into() });
    }
}

/// What a scalar means by YAML 1.2's core schema.
fn scalar(text: &str, style: ScalarStyle) -> Kind {
    if style != ScalarStyle::Plain {
        return Kind::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        _ => {}
    }
    number(text).map_or_else(|| Kind::Text(text.to_owned()), Kind::Number)
}

fn number(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    // Rust reads `inf`, `nan` and `infinity` as numbers, which are texts here.
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    if !text.chars().all(numeric) || !text.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if let Ok(value) = unsigned.parse::<u64>() {
        return Some(value.into());
    }
    if let Ok(value) = unsigned.parse::<i64>() {
        return Some(value.into());
    }
    unsigned.parse::<f64>().ok().and_then(Number::from_f64)
}

#[cfg(test)]
mod tests;
