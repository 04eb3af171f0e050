//! The reference of a raw type: its JSON schema as published, and tables in Markdown, both made from the fields' own
//! documentation. The tests that keep `docs/` current call this; the processes do not.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

use schemars::JsonSchema;
use serde_json::Value;

use super::schema::{self, branches, definition, shared_tag, types};

/// The published JSON schema of a `T`, keys in alphabetical order, so that it is the same in every build.
pub fn schema_of<T: JsonSchema>(title: &str) -> String {
    let mut schema = schema::of::<T>();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_owned(), title.into());
    }
    let mut text = serde_json::to_string_pretty(&sorted(&schema)).unwrap_or_default();
    text.push('\n');
    text
}

/// The tables of a `T`: one for its plain keys, one for each section or, where `kind` tells variants apart, for each kind.
pub fn tables_of<T: JsonSchema>() -> String {
    let root = schema::of::<T>();
    let mut tables = Tables { root: &root, text: String::new() };
    match branches(&root) {
        Some(kinds) => kinds.iter().for_each(|kind| tables.kind(kind)),
        None => tables.document(&root),
    }
    tables.text
}

/// Compares `content` with the file, or writes it there if the environment says `UPDATE=1`.
///
/// # Errors
/// The file cannot be read or written, or it is not current; the message says how to renew it.
pub fn keep_current(file: &Path, content: &str) -> io::Result<()> {
    if env::var_os("UPDATE").is_some_and(|value| value == "1") {
        return fs::write(file, content);
    }
    if fs::read_to_string(file)? == content {
        return Ok(());
    }
    Err(io::Error::other(format!("{} is not current: run the tests with UPDATE=1, and commit it", file.display())))
}

/// As [`keep_current`], for the part of the file between `<!-- BEGIN name -->` and `<!-- END name -->`.
///
/// # Errors
/// As [`keep_current`], or the file has no such part.
pub fn keep_part_current(file: &Path, name: &str, content: &str) -> io::Result<()> {
    let text = fs::read_to_string(file)?;
    let (begin, end) = (format!("<!-- BEGIN {name} -->\n"), format!("<!-- END {name} -->"));
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let Some((before, after)) = parts else {
        return Err(io::Error::other(format!("{} has no part `{name}`", file.display())));
    };
    keep_current(file, &format!("{before}{begin}\n{content}\n{end}{after}"))
}

/// The public fields declared in the file `config` that no Rust file in `folders` reads: settings without effect. Files of
/// modules named `config` do not count, nor does what only looks like a field of the same name. So it finds what was
/// forgotten, and proves nothing.
///
/// # Errors
/// A file cannot be read.
pub fn unread_fields(config: &Path, folders: &[&Path]) -> io::Result<Vec<String>> {
    let mut sources = String::new();
    for folder in folders {
        read_sources(folder, &mut sources)?;
    }
    let read: BTreeSet<&str> = sources.split('.').map(first_word).collect();
    let declared = fs::read_to_string(config)?;
    let fields = declared.lines().filter_map(|line| line.trim_start().strip_prefix("pub ")?.split_once(": "));
    let unread = fields.map(|(field, _)| field).filter(|field| first_word(field) == *field && !read.contains(field));
    Ok(unread.map(str::to_owned).collect())
}

fn read_sources(folder: &Path, sources: &mut String) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == "config") {
            continue;
        }
        if path.is_dir() {
            read_sources(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// The identifier that `text` begins with.
fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(object) => {
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort();
            Value::Object(keys.into_iter().map(|key| (key.clone(), sorted(&object[key]))).collect())
        }
        other => other.clone(),
    }
}

struct Tables<'a> {
    root: &'a Value,
    text: String,
}

struct Row {
    key: String,
    kind: String,
    default: String,
    meaning: String,
    reload: Option<String>,
}

impl<'a> Tables<'a> {
    fn document(&mut self, document: &'a Value) {
        let (sections, plain): (Vec<_>, Vec<_>) =
            self.properties(document).into_iter().partition(|(_, property)| self.is_section(property));
        let rows: Vec<Row> = plain.iter().map(|(key, property)| self.row(document, "", key, property)).collect();
        self.table(&rows);
        for (key, property) in sections {
            let required = if is_required(document, key) { " Required." } else { "" };
            let text = description(property, self.resolve(property));
            let _ = writeln!(self.text, "\n### `{key}`\n\n{text}{required}\n");
            let mut rows = Vec::new();
            self.below(self.resolve(property), key, &mut rows);
            self.table(&rows);
        }
    }

    fn kind(&mut self, branch: &'a Value) {
        let branch = self.resolve(branch);
        let constant = self.properties(branch).into_iter().find_map(|(_, property)| property.get("const")?.as_str());
        let separator = if self.text.is_empty() { "" } else { "\n" };
        let text = branch.get("description").and_then(Value::as_str).unwrap_or_default();
        let _ = writeln!(self.text, "{separator}### `kind: {}`\n\n{}\n", constant.unwrap_or_default(), one_line(text));
        let mut rows = Vec::new();
        self.within(branch, "", &mut rows);
        rows.retain(|row| row.key != "kind");
        self.table(&rows);
    }

    /// The rows of everything inside `schema`.
    fn within(&self, schema: &'a Value, prefix: &str, rows: &mut Vec<Row>) {
        for (key, property) in self.properties(schema) {
            let row = self.row(schema, prefix, key, property);
            let path = row.key.clone();
            rows.push(row);
            self.below(self.resolve(property), &path, rows);
        }
        let variants: Vec<&Value> =
            branches(schema).unwrap_or_default().iter().map(|branch| self.resolve(branch)).collect();
        if let Some(tag) = shared_tag(&variants) {
            return self.tagged(tag, &variants, prefix, rows);
        }
        for variant in variants.into_iter().filter(|variant| variant.get("properties").is_some()) {
            for (key, property) in self.properties(variant) {
                let mut row = self.row(variant, prefix, key, property);
                let text = variant.get("description").and_then(Value::as_str);
                row.meaning = text.map_or(row.meaning, one_line);
                row.default = "one of these".to_owned();
                let path = row.key.clone();
                rows.push(row);
                self.below(self.resolve(property), &path, rows);
            }
        }
        if let Some(value) = schema.get("additionalProperties").filter(|value| value.is_object()) {
            self.below(self.resolve(value), &format!("{prefix}.NAME"), rows);
        }
    }

    /// The rows of alternatives that the key `tag` tells apart.
    fn tagged(&self, tag: &str, variants: &[&'a Value], prefix: &str, rows: &mut Vec<Row>) {
        let word = |variant: &'a Value| variant.get("properties")?.get(tag)?.get("const")?.as_str();
        let words: Vec<&str> = variants.iter().filter_map(|variant| word(variant)).collect();
        let meanings = variants.iter().filter_map(|variant| {
            let text = variant.get("description").and_then(Value::as_str)?;
            Some(format!("`{}`: {}", word(variant)?, one_line(text)))
        });
        let key = if prefix.is_empty() { tag.to_owned() } else { format!("{prefix}.{tag}") };
        let meaning = meanings.collect::<Vec<_>>().join(" ");
        rows.push(Row { key, kind: words.join(", "), default: "required".to_owned(), meaning, reload: None });
        for variant in variants {
            for (key, property) in self.properties(variant).into_iter().filter(|(key, _)| *key != tag) {
                let mut row = self.row(variant, prefix, key, property);
                row.meaning = format!("With `{tag}: {}`. {}", word(variant).unwrap_or_default(), row.meaning);
                let path = row.key.clone();
                rows.push(row);
                self.below(self.resolve(property), &path, rows);
            }
        }
    }

    fn below(&self, schema: &'a Value, path: &str, rows: &mut Vec<Row>) {
        match schema.get("items") {
            Some(item) => self.within(self.resolve(item), &format!("{path}[]"), rows),
            None => self.within(schema, path, rows),
        }
    }

    fn row(&self, parent: &Value, prefix: &str, key: &str, property: &'a Value) -> Row {
        let target = self.resolve(property);
        let default = match property.get("default") {
            _ if is_required(parent, key) => "required".to_owned(),
            Some(Value::Null) | None => "none".to_owned(),
            Some(Value::Object(_)) => String::new(),
            Some(Value::Array(items)) if items.is_empty() => "none".to_owned(),
            Some(Value::String(text)) if text.is_empty() => "empty".to_owned(),
            Some(Value::String(text)) => format!("`{text}`"),
            Some(value) => format!("`{value}`"),
        };
        let mut meaning = description(property, target);
        for word in branches(target).unwrap_or_default() {
            if let (Some(word), Some(text)) = (word.get("const").and_then(Value::as_str), word.get("description")) {
                let _ = write!(meaning, " `{word}`: {}", one_line(text.as_str().unwrap_or_default()));
            }
        }
        let reload = property.get("x-reload").and_then(Value::as_str).map(str::to_owned);
        let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
        Row { key: path, kind: self.kind_of(property), default, meaning, reload }
    }

    /// What a value is, in a word or two.
    fn kind_of(&self, property: &'a Value) -> String {
        let target = self.resolve(property);
        if let Some(kind) = target.get("x-type").and_then(Value::as_str) {
            return kind.to_owned();
        }
        if let Some(options) = branches(target) {
            let words: Vec<&str> = options.iter().filter_map(|option| option.get("const")?.as_str()).collect();
            return if words.is_empty() { "section".to_owned() } else { words.join(", ") };
        }
        let kind = types(target).next().unwrap_or_default();
        match kind {
            "string" => "text".to_owned(),
            "integer" | "number" => format!("number{}", range(target)),
            "boolean" => "true or false".to_owned(),
            "array" => {
                target.get("items").map_or_else(|| "list".to_owned(), |item| format!("list of {}", self.kind_of(item)))
            }
            _ if target.get("properties").is_some() => "section".to_owned(),
            _ => {
                let value = target.get("additionalProperties").filter(|value| value.is_object());
                value.map_or_else(
                    || "section".to_owned(),
                    |value| format!("mapping of names to {}", self.kind_of(value)),
                )
            }
        }
    }

    /// Whether a top-level key gets a table of its own.
    fn is_section(&self, property: &'a Value) -> bool {
        let mut rows = Vec::new();
        self.below(self.resolve(property), "", &mut rows);
        !rows.is_empty()
    }

    /// The properties of an object: those required first, else in alphabetical order.
    fn properties(&self, schema: &'a Value) -> Vec<(&'a str, &'a Value)> {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
        let mut properties: Vec<_> = properties.iter().map(|(key, property)| (key.as_str(), property)).collect();
        properties.sort_by_key(|(key, _)| (!is_required(schema, key), *key));
        properties
    }

    /// What a schema stands for: behind references, and without the alternative of giving nothing.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = self.root.get("$defs").and_then(|definitions| definitions.get(definition(reference)));
            return target.map_or(schema, |target| self.resolve(target));
        }
        let is_null = |branch: &&Value| branch.get("type").and_then(Value::as_str) != Some("null");
        match branches(schema).map(|all| all.iter().filter(is_null).collect::<Vec<_>>()).as_deref() {
            Some([only]) => self.resolve(only),
            _ => schema,
        }
    }

    fn table(&mut self, rows: &[Row]) {
        let text = &mut self.text;
        text.push_str("| Key | Type | Default | Meaning |\n|---|---|---|---|\n");
        for Row { key, kind, default, meaning, reload } in rows {
            let reload = reload.as_ref().map(|reload| format!(" Reload: {reload}.")).unwrap_or_default();
            let meaning = format!("{meaning}{reload}").replace('|', "\\|");
            let _ = writeln!(text, "| `{key}` | {kind} | {default} | {meaning} |");
        }
    }
}

fn is_required(schema: &Value, key: &str) -> bool {
    schema.get("required").and_then(Value::as_array).is_some_and(|all| all.iter().any(|required| required == key))
}

fn description(property: &Value, target: &Value) -> String {
    let text = property.get("description").or_else(|| target.get("description")).and_then(Value::as_str);
    one_line(text.unwrap_or_default())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn range(schema: &Value) -> String {
    let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    match (limit("minimum"), limit("maximum")) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        (Some(least), None) if least != 0.0 => format!(", at least {least}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
