//! Manifests: where dependencies and lints come from, and that there is one provider of cryptography.

use super::assert_none;
use super::scan::{self, files, read};

/// A member's manifest, as far as rules look at it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    /// What is linked into the member, and what it is built with.
    pub(crate) dependencies: Vec<String>,
    /// What only its tests use.
    pub(crate) dev_dependencies: Vec<String>,
    /// Dependencies that do not come from the workspace's table.
    own: Vec<String>,
    workspace_lints: bool,
}

impl Manifest {
    pub(crate) fn parse(text: &str) -> Self {
        let mut manifest = Self::default();
        let mut section = String::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(header) = line.strip_prefix('[') {
                header.trim_matches(['[', ']']).clone_into(&mut section);
                if let Some((table, name)) = dependency_table(&section) {
                    manifest.add(table, name);
                    manifest.own.push(name.to_owned());
                }
                continue;
            }
            let Some((key, value)) = line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
                continue;
            };
            match section.as_str() {
                "package" if key == "name" => value.trim_matches('"').clone_into(&mut manifest.name),
                "lints" => manifest.workspace_lints |= key == "workspace" && value == "true",
                table if dependency_table(table).is_some() && key == "workspace" && value == "true" => {
                    manifest.own.pop();
                }
                table if is_dependencies(table) => {
                    let name = key.split('.').next().unwrap_or(key);
                    manifest.add(table, name);
                    if key != format!("{name}.workspace") && !value.replace(' ', "").contains("workspace=true") {
                        manifest.own.push(name.to_owned());
                    }
                }
                _ => {}
            }
        }
        manifest
    }

    fn add(&mut self, table: &str, name: &str) {
        let list =
            if table.ends_with("dev-dependencies") { &mut self.dev_dependencies } else { &mut self.dependencies };
        list.push(name.to_owned());
    }
}

fn is_dependencies(table: &str) -> bool {
    let last = table.rsplit('.').next().unwrap_or(table);
    matches!(last, "dependencies" | "dev-dependencies" | "build-dependencies")
}

/// `dependencies.NAME` as a table of its own.
fn dependency_table(section: &str) -> Option<(&str, &str)> {
    section.rsplit_once('.').filter(|(table, _)| is_dependencies(table))
}

/// The folders of the workspace's members.
pub(crate) fn members() -> Vec<String> {
    let root = read("Cargo.toml");
    let list = root.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).expect("a list of members").0;
    list.split(',')
        .map(|member| member.trim().trim_matches('"').to_owned())
        .filter(|member| !member.is_empty())
        .collect()
}

/// Every member's folder and manifest.
pub(crate) fn manifests() -> Vec<(String, Manifest)> {
    let parse = |folder: String| {
        let manifest = Manifest::parse(&read(format!("{folder}/Cargo.toml")));
        (folder, manifest)
    };
    members().into_iter().map(parse).collect()
}

fn complaints(folder: &str, manifest: &Manifest) -> Vec<String> {
    let mut complaints: Vec<String> = manifest
        .own
        .iter()
        .map(|name| format!("{folder}: `{name}` must be named in the root's [workspace.dependencies] and used with `.workspace = true`"))
        .collect();
    if !manifest.workspace_lints {
        complaints.push(format!("{folder}: its manifest lacks `[lints] workspace = true`"));
    }
    let last = folder.rsplit('/').next().unwrap_or(folder);
    if manifest.name != format!("eastway-{last}") {
        complaints.push(format!("{folder}: its package is `{}`, and should be `eastway-{last}`", manifest.name));
    }
    complaints
}

/// What would bring in a second implementation of TLS or of its cryptography, in a manifest or in code.
fn second_provider(path: &str, text: &str) -> Vec<String> {
    let manifest = path.ends_with(".toml");
    let words: &[&str] = if manifest {
        &["ring", "rustls-ring", "tls-ring", "native-tls", "openssl", "openssl-sys", "boring", "tls-native-tls"]
    } else {
        &["crypto::ring", "native_tls", "openssl", "CryptoProvider::install_default", "get_default_or_install"]
    };
    // A name in a manifest stands in quotes or before its `=`; comments may speak of anything.
    let lines = text
        .lines()
        .map(|line| line.split(" #").next().unwrap_or(line))
        .filter(|line| !line.trim_start().starts_with('#'));
    let found = |line: &str, word: &str| {
        let quoted =
            line.contains(&format!("\"{word}\"")) || line.trim_start().split(['=', '.', ' ']).next() == Some(word);
        if manifest { quoted } else { scan::names(line, word) }
    };
    let complain = |line: &str| words.iter().find(|word| found(line, word)).map(|word| format!("{path}: `{word}`"));
    lines.filter_map(complain).collect()
}

#[test]
fn members_take_dependencies_and_lints_from_the_workspace() {
    let complaints = manifests().iter().flat_map(|(folder, manifest)| complaints(folder, manifest)).collect();
    assert_none("manifests", complaints);
}

#[test]
fn there_is_one_provider_of_cryptography() {
    let manifests = files("toml").into_iter().filter(|file| file.path.ends_with("Cargo.toml"));
    let complaints = manifests.flat_map(|file| second_provider(&file.path, &file.text));
    let sources = files("rs").into_iter().flat_map(|file| second_provider(&file.path, &scan::code(&file.text)));
    assert_none("a second provider", complaints.chain(sources).collect());
}

#[test]
fn every_form_of_a_dependency_is_read() {
    let text = "[package]\nname = \"eastway-x\"\n[lints]\nworkspace = true\n# quinn = \"1\"\n[dependencies]\na.workspace = true\nb = { workspace = true, features = [\"x\"] }\n\
                c = \"1\"\n[dependencies.d]\nversion = \"1\"\n[dependencies.h]\nworkspace = true\n[target.'cfg(unix)'.dependencies]\ne.workspace = true\n[build-dependencies]\nf.workspace = true\n\
                [dev-dependencies]\ng.workspace = true\n";
    let manifest = Manifest::parse(text);
    assert_eq!(manifest.dependencies, ["a", "b", "c", "d", "h", "e", "f"]);
    assert_eq!(manifest.dev_dependencies, ["g"]);
    assert_eq!(
        (manifest.own.as_slice(), manifest.workspace_lints),
        (["c".to_owned(), "d".to_owned()].as_slice(), true)
    );
}

#[test]
fn manifests_that_break_the_rules_are_found() {
    let complaints = complaints("mesh/x", &Manifest::parse("[package]\nname = \"x\"\n[dependencies]\nserde = \"1\"\n"));
    for expected in ["`serde` must be named", "lacks `[lints]", "should be `eastway-x`"] {
        assert!(complaints.iter().any(|complaint| complaint.contains(expected)), "{complaints:?}");
    }
    assert!(
        super::manifest::complaints(
            "mesh/x",
            &Manifest::parse("[package]\nname = \"eastway-x\"\n[lints]\nworkspace = true\n")
        )
        .is_empty()
    );
}

#[test]
fn second_providers_are_found() {
    for text in
        ["rustls = { version = \"0.23\", features = [\"ring\"] }", "openssl = \"0.10\"", "native-tls.workspace = true"]
    {
        assert_eq!(second_provider("x/Cargo.toml", text).len(), 1, "{text}");
    }
    for text in ["# never ring", "features = [\"aws-lc-rs\", \"string\"] # not \"ring\"", "ringbuffer = \"1\""] {
        assert!(second_provider("x/Cargo.toml", text).is_empty(), "{text}");
    }
    assert_eq!(second_provider("x.rs", "rustls::crypto::ring::default_provider()").len(), 1);
    assert!(second_provider("x.rs", "fn ring() {}").is_empty());
}
