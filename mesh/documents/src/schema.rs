//! A raw type's JSON schema, and the comparison of a file's tree with it.
//!
//! Written by hand for the part of JSON Schema that serde types have, because a general validator names neither lines nor
//! the key that was meant, and says of an enum only that no alternative fits.

use eastway_core::ZoneId;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::suggest;
use super::yaml::{Fault, Kind, YamlEntry, YamlNode, join};

/// The schema of what may stand in a file for a `T`, as it is published.
pub fn of<T: JsonSchema + ?Sized>() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
    let definitions = schema.get("$defs").cloned().unwrap_or_default();
    for branch in schema.get_mut("oneOf").and_then(Value::as_array_mut).into_iter().flatten() {
        inline_reference(branch, &definitions);
    }
    schema
}

/// A variant of an internally tagged enum is its tag beside a reference to a type that admits no further keys, the tag
/// included: nothing could be valid. Both are merged into one object.
fn inline_reference(branch: &mut Value, definitions: &Value) {
    let Some(object) = branch.as_object_mut() else { return };
    if !object.contains_key("properties") {
        return;
    }
    let Some(Value::String(reference)) = object.remove("$ref") else { return };
    let Some(target) = definitions.get(definition(&reference)).and_then(Value::as_object) else { return };
    for (keyword, value) in target {
        match (object.get_mut(keyword), value) {
            (Some(Value::Object(own)), Value::Object(theirs)) => own.extend(theirs.clone()),
            (Some(Value::Array(own)), Value::Array(theirs)) => own.extend(theirs.iter().cloned()),
            (Some(_), _) => {}
            (None, _) => {
                object.insert(keyword.clone(), value.clone());
            }
        }
    }
}

/// The name of the definition that a reference points to.
pub(crate) fn definition(reference: &str) -> &str {
    reference.strip_prefix("#/$defs/").unwrap_or(reference)
}

/// Every difference between `document` and `root`.
pub fn check(root: &Value, document: &YamlNode) -> Vec<Fault> {
    let mut check = Check { root, faults: Vec::new() };
    check.value(root, document, "");
    check.faults
}

/// Gives keys and words their present names where `document` uses those that `root` marks as former ones (`x-formerly`), so
/// that files written for an earlier release stay valid.
pub fn rename_former(root: &Value, document: &mut YamlNode) {
    rename_in(root, root, document);
}

fn rename_in(root: &Value, schema: &Value, node: &mut YamlNode) {
    let schema = resolve(root, schema);
    for branch in branches(schema).into_iter().flatten() {
        rename_in(root, branch, node);
    }
    match &mut node.kind {
        Kind::Text(text) if is_formerly(schema, text) => {
            if let Some(present) = schema.get("const").and_then(Value::as_str) {
                present.clone_into(text);
            }
        }
        Kind::Map(entries) => rename_keys(root, schema, entries),
        Kind::List(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| rename_in(root, schema, item));
            }
        }
        _ => {}
    }
}

fn rename_keys(root: &Value, schema: &Value, entries: &mut [YamlEntry]) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (present, property) in properties.into_iter().flatten() {
        // With both names in one mapping, the former one is reported as unknown.
        if !entries.iter().any(|entry| entry.key == *present)
            && let Some(entry) = entries.iter_mut().find(|entry| is_formerly(property, &entry.key))
        {
            entry.key.clone_from(present);
        }
    }
    for entry in entries {
        let property = properties.and_then(|properties| properties.get(&entry.key));
        if let Some(property) = property.or_else(|| schema.get("additionalProperties")) {
            rename_in(root, property, &mut entry.value);
        }
    }
}

fn is_formerly(schema: &Value, name: &str) -> bool {
    schema.get("x-formerly").and_then(Value::as_str) == Some(name)
}

/// Takes out of `value` what `root` does not know, so that a reader understands what a later release wrote, as far as it can.
pub fn prune(root: &Value, value: &mut Value) {
    prune_in(root, root, value);
}

fn prune_in(root: &Value, schema: &Value, value: &mut Value) {
    let schema = resolve(root, schema);
    for branch in branches(schema).into_iter().flatten().map(|branch| resolve(root, branch)) {
        if is_meant(branch, value) {
            prune_in(root, branch, value);
        }
    }
    match value {
        Value::Object(entries) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let additional = schema.get("additionalProperties");
            if additional == Some(&Value::Bool(false)) {
                entries.retain(|key, _| properties.is_some_and(|known| known.contains_key(key)));
            }
            for (key, value) in entries {
                let property = properties.and_then(|properties| properties.get(key));
                if let Some(property) = property.or_else(|| additional.filter(|schema| schema.is_object())) {
                    prune_in(root, property, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| prune_in(root, schema, item));
            }
        }
        _ => {}
    }
}

/// Whether `value` is of the variant that `branch` describes: its tags agree, and its only key if the variant has one.
fn is_meant(branch: &Value, value: &Value) -> bool {
    let Some(entries) = value.as_object() else { return branch.get("type").and_then(Value::as_str) != Some("object") };
    let properties = branch.get("properties").and_then(Value::as_object);
    let tagged = properties.into_iter().flatten().filter_map(|(key, property)| Some((key, property.get("const")?)));
    let agrees = |(key, tag): (&String, &Value)| entries.get(key) == Some(tag);
    tagged.clone().all(agrees) && (tagged.count() > 0 || sole_key(branch).is_none_or(|key| entries.contains_key(key)))
}

/// The schema that a reference stands for.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    // Definitions of serde types never refer to themselves without a property in between.
    while let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        match root.get("$defs").and_then(|definitions| definitions.get(definition(reference))) {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema
}

struct Check<'a> {
    root: &'a Value,
    faults: Vec<Fault>,
}

impl<'a> Check<'a> {
    fn value(&mut self, schema: &'a Value, node: &YamlNode, path: &str) {
        let schema = resolve(self.root, schema);
        if node.kind == Kind::Refused {
            return;
        }
        if let Some(branches) = branches(schema) {
            return self.choice(branches, node, path);
        }
        if let Some(options) = schema.get("enum").and_then(Value::as_array) {
            return self.one_of(&options.iter().filter_map(Value::as_str).collect::<Vec<_>>(), node, path);
        }
        if let Some(only) = schema.get("const").and_then(Value::as_str) {
            return self.one_of(&[only], node, path);
        }
        if !admits(schema, &node.kind) {
            return self.mismatch(schema, node, path);
        }
        match &node.kind {
            Kind::Map(entries) => self.object(schema, entries, node.line, path),
            Kind::List(items) => self.array(schema, items, node.line, path),
            Kind::Number(number) => self.number(schema, number.as_f64().unwrap_or_default(), node.line, path),
            Kind::Text(text) => self.text(schema, text, node.line, path),
            Kind::Null | Kind::Bool(_) | Kind::Refused => {}
        }
    }

    fn object(&mut self, schema: &'a Value, entries: &[YamlEntry], line: usize, path: &str) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let additional = schema.get("additionalProperties");
        for entry in entries {
            let inner = join(path, &entry.key);
            match (properties.and_then(|properties| properties.get(&entry.key)), additional) {
                (Some(property), _) => self.value(property, &entry.value, &inner),
                (None, Some(Value::Bool(false))) => {
                    let known = properties.into_iter().flat_map(Map::keys).map(String::as_str).collect::<Vec<_>>();
                    self.fault(entry.line, &inner, unknown("unknown key", &entry.key, &known));
                }
                (None, Some(schema @ Value::Object(_))) => self.value(schema, &entry.value, &inner),
                (None, _) => {}
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for key in required.filter(|key| entries.iter().all(|entry| entry.key != *key)) {
            let description = properties.and_then(|properties| properties.get(key)?.get("description")?.as_str());
            let what = description.map(|text| format!(": {}", first_sentence(text))).unwrap_or_default();
            self.fault(line, &join(path, key), format!("missing{what}"));
        }
    }

    fn array(&mut self, schema: &'a Value, items: &[YamlNode], line: usize, path: &str) {
        let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        if let Some(least) = limit("minItems").filter(|least| items.len() < *least) {
            self.fault(line, path, format!("at least {least} expected, found {}", items.len()));
        }
        if let Some(most) = limit("maxItems").filter(|most| items.len() > *most) {
            self.fault(line, path, format!("at most {most} expected, found {}", items.len()));
        }
        let Some(inner) = schema.get("items") else { return };
        for (index, item) in items.iter().enumerate() {
            self.value(inner, item, &format!("{path}[{index}]"));
        }
    }

    fn number(&mut self, schema: &'a Value, value: f64, line: usize, path: &str) {
        let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
        // A Rust type has a bound, too, which schemas state as a format only.
        let of_type = match schema.get("format").and_then(Value::as_str) {
            Some("uint8") => Some(f64::from(u8::MAX)),
            Some("uint16") => Some(f64::from(u16::MAX)),
            Some("uint32") => Some(f64::from(u32::MAX)),
            _ => None,
        };
        let (least, most) = (limit("minimum"), limit("maximum").or(of_type));
        if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
            let range = match (least, most) {
                (Some(least), Some(most)) => format!("from {least} to {most}"),
                (Some(least), None) => format!("at least {least}"),
                (None, most) => format!("at most {}", most.unwrap_or_default()),
            };
            self.fault(line, path, format!("{value} is out of range: {range}"));
        }
    }

    fn text(&mut self, schema: &'a Value, text: &str, line: usize, path: &str) {
        let least = schema.get("minLength").and_then(Value::as_u64).unwrap_or_default();
        if (text.chars().count() as u64) < least {
            self.fault(line, path, "must not be empty");
        }
        if schema.get("format").and_then(Value::as_str) == Some("zone")
            && let Err(error) = text.parse::<ZoneId>()
        {
            self.fault(line, path, error.to_string());
        }
    }

    fn choice(&mut self, branches: &'a [Value], node: &YamlNode, path: &str) {
        let branches: Vec<&'a Value> = branches.iter().map(|branch| resolve(self.root, branch)).collect();
        let is_null = |branch: &&Value| branch.get("type").and_then(Value::as_str) == Some("null");
        if node.kind == Kind::Null && branches.iter().any(is_null) {
            return;
        }
        let branches: Vec<&'a Value> = branches.into_iter().filter(|branch| !is_null(branch)).collect();
        if let [only] = branches[..] {
            return self.value(only, node, path);
        }
        let words: Vec<&str> = branches.iter().flat_map(|branch| words(branch)).collect();
        if let Some(tag) = shared_tag(&branches) {
            return self.tagged(tag, &branches, node, path);
        }
        let keyed: Vec<(&str, &'a Value)> =
            branches.iter().filter_map(|branch| Some((sole_key(branch)?, *branch))).collect();
        match &node.kind {
            Kind::Text(_) if keyed.is_empty() => self.one_of(&words, node, path),
            Kind::Text(text) if words.contains(&text.as_str()) => {}
            Kind::Map(entries) if !keyed.is_empty() => self.keyed(&keyed, entries, node, path),
            _ if keyed.is_empty() => self.one_of(&words, node, path),
            _ => {
                let keys: Vec<&str> = keyed.iter().map(|(key, _)| *key).collect();
                let message = format!("expected a mapping with one of {}, found {}", quoted(&keys), name(&node.kind));
                self.fault(node.line, path, message);
            }
        }
    }

    /// An enum whose variant is told by the value of the key `tag`.
    fn tagged(&mut self, tag: &str, branches: &[&'a Value], node: &YamlNode, path: &str) {
        let tag_of = |branch: &'a Value| branch.get("properties")?.get(tag)?.get("const")?.as_str();
        let tags: Vec<&str> = branches.iter().filter_map(|branch| tag_of(branch)).collect();
        let Kind::Map(_) = &node.kind else {
            return self.fault(node.line, path, format!("expected a mapping, found {}", name(&node.kind)));
        };
        match node.find(tag) {
            Some(YamlNode { kind: Kind::Text(text), line }) => {
                match branches.iter().find(|b| tag_of(b) == Some(text)) {
                    Some(branch) => self.value(branch, node, path),
                    None => self.fault(*line, &join(path, tag), unknown(&format!("unknown {tag}"), text, &tags)),
                }
            }
            Some(other) => self.one_of(&tags, other, &join(path, tag)),
            None => self.fault(node.line, &join(path, tag), format!("missing: one of {}", quoted(&tags))),
        }
    }

    /// An enum whose variant is told by the only key.
    fn keyed(&mut self, branches: &[(&str, &'a Value)], entries: &[YamlEntry], node: &YamlNode, path: &str) {
        let keys: Vec<&str> = branches.iter().map(|(key, _)| *key).collect();
        let [entry] = entries else {
            return self.fault(node.line, path, format!("expected exactly one of {}", quoted(&keys)));
        };
        match branches.iter().find(|(key, _)| *key == entry.key) {
            Some((_, branch)) => self.value(branch, node, path),
            None => self.fault(entry.line, &join(path, &entry.key), unknown("unknown key", &entry.key, &keys)),
        }
    }

    fn one_of(&mut self, options: &[&str], node: &YamlNode, path: &str) {
        match &node.kind {
            Kind::Refused => {}
            Kind::Text(text) if options.contains(&text.as_str()) => {}
            Kind::Text(text) => self.fault(node.line, path, unknown("unknown value", text, options)),
            other => {
                self.fault(node.line, path, format!("expected one of {}, found {}", quoted(options), name(other)));
            }
        }
    }

    fn mismatch(&mut self, schema: &Value, node: &YamlNode, path: &str) {
        let expected = match schema.get("x-expects").and_then(Value::as_str) {
            Some(expected) => expected.to_owned(),
            None => types(schema).map(article).collect::<Vec<_>>().join(" or "),
        };
        let wants_text = types(schema).any(|kind| kind == "string");
        let hint = match &node.kind {
            Kind::Bool(_) | Kind::Number(_) if wants_text && schema.get("x-expects").is_none() => "; put it in quotes",
            _ => "",
        };
        self.fault(node.line, path, format!("expected {expected}, found {}{hint}", name(&node.kind)));
    }

    fn fault(&mut self, line: usize, path: &str, message: impl Into<String>) {
        self.faults.push(Fault { line, path: path.to_owned(), message: message.into() });
    }
}

/// The alternatives of a schema, if it is one of alternatives.
pub fn branches(schema: &Value) -> Option<&[Value]> {
    schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array).map(Vec::as_slice)
}

/// The JSON types that a schema admits, `null` aside.
pub fn types(schema: &Value) -> impl Iterator<Item = &str> {
    let several = schema.get("type").and_then(Value::as_array).into_iter().flatten();
    let all = schema.get("type").into_iter().chain(several).filter_map(Value::as_str);
    all.filter(|kind| *kind != "null")
}

fn admits(schema: &Value, kind: &Kind) -> bool {
    let is = |name| admits_type(schema, name);
    match kind {
        Kind::Null => is("null"),
        Kind::Bool(_) => is("boolean"),
        Kind::Number(number) => is("number") || (is("integer") && (number.is_i64() || number.is_u64())),
        Kind::Text(_) => is("string"),
        Kind::List(_) => is("array"),
        Kind::Map(_) => is("object"),
        Kind::Refused => true,
    }
}

/// Whether a schema admits the JSON type `name`; one that names no type admits all.
fn admits_type(schema: &Value, name: &str) -> bool {
    match schema.get("type") {
        None => true,
        Some(Value::String(only)) => only == name,
        Some(several) => several.as_array().is_some_and(|types| types.iter().any(|kind| kind == name)),
    }
}

/// The texts that a branch consists of, if it is of texts.
fn words(branch: &Value) -> Vec<&str> {
    let several = branch.get("enum").and_then(Value::as_array).into_iter().flatten();
    branch.get("const").into_iter().chain(several).filter_map(Value::as_str).collect()
}

/// The key that tells all branches apart by a constant.
pub fn shared_tag<'a>(branches: &[&'a Value]) -> Option<&'a str> {
    let constant =
        |branch: &Value, key: &str| branch.get("properties").and_then(|p| p.get(key)?.get("const")).is_some();
    let keys = branches.first()?.get("properties")?.as_object()?.keys();
    keys.map(String::as_str).find(|key| branches.iter().all(|branch| constant(branch, key)))
}

/// The key of a branch that consists of one required key.
fn sole_key(branch: &Value) -> Option<&str> {
    match branch.get("required")?.as_array()?.as_slice() {
        [Value::String(key)] if branch.get("properties")?.as_object()?.len() == 1 => Some(key),
        _ => None,
    }
}

fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    match suggest::nearest(word, known.iter().copied()) {
        Some(meant) => format!("{what} `{word}`; did you mean `{meant}`?"),
        None if known.is_empty() => format!("{what} `{word}`; there are none here"),
        None => format!("{what} `{word}`; known: {}", known.join(", ")),
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

pub(crate) fn first_sentence(text: &str) -> String {
    let text = text.replace('\n', " ");
    let end = text.find(". ").unwrap_or(text.len());
    text[..end].trim_end_matches('.').to_owned()
}

fn article(kind: &str) -> &str {
    match kind {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a mapping",
        other => other,
    }
}

/// What was found, for people.
fn name(kind: &Kind) -> String {
    match kind {
        Kind::Null => "nothing".to_owned(),
        Kind::Bool(value) => format!("{value}"),
        Kind::Number(value) => format!("the number {value}"),
        Kind::Text(text) => format!("the text `{}`", text.chars().take(40).collect::<String>()),
        Kind::List(_) => "a list".to_owned(),
        Kind::Map(_) | Kind::Refused => "a mapping".to_owned(),
    }
}

#[cfg(test)]
mod tests;
