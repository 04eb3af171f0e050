//! No inert configuration: what could have no effect is refused or warned about, with the fix, and nothing else is.
//!
//! `inert/` has a document for each rule. The comments that it begins with say what is found in it, one problem a line, and
//! where it is judged:
//!
//! ```text
//! # expect: error 12 spec.retries.perTry: a part of the cause -> a part of the suggestion
//! # cluster: { name: us-east, region: us-east-1, zones: [a, b] }
//! # live: { services: { shop/pay: { zones: { a: 3 } } }, peers: { eu-west: { region: eu-west-1, zones: [a] } } }
//! ```
//!
//! `cluster` may be left out, and is then as written here. Without `live`, nobody knows what there is. `effective/` has the
//! near misses: documents that look like those and do something, in which nothing is found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use eastway_admission::{Cluster, Live, LivePeer, LiveService, Text, judge, read};
use eastway_core::ServiceName;
use eastway_documents::{Problem, Problems, Severity, yaml};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What passes for a bundle, whatever file a document names.
const CA: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

/// The least number of documents, so that none is lost unnoticed.
const INERT: usize = 60;
const EFFECTIVE: usize = 15;

/// What the comments at the beginning of a document say of it.
#[derive(Default)]
struct Header {
    expected: Vec<String>,
    cluster: CommentCluster,
    live: Option<CommentLive>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommentCluster {
    name: String,
    region: String,
    zones: BTreeSet<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CommentLive {
    services: BTreeMap<ServiceName, CommentService>,
    peers: BTreeMap<String, CommentPeer>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CommentService {
    zones: BTreeMap<String, u32>,
    accounts: BTreeSet<String>,
    measured: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CommentPeer {
    region: String,
    zones: BTreeSet<String>,
    exports: BTreeSet<ServiceName>,
}

#[test]
fn what_has_no_effect_is_found_and_nothing_else() {
    let files = documents("inert");
    assert!(files.len() >= INERT, "only {} documents", files.len());
    let complaints: Vec<String> = files.iter().flat_map(|file| complaints(file)).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn what_has_an_effect_is_left_alone() {
    let files = documents("effective");
    assert!(files.len() >= EFFECTIVE, "only {} documents", files.len());
    for file in files {
        let text = fs::read_to_string(&file).expect("readable");
        let header = Header::of(&text);
        assert!(header.expected.is_empty(), "{} expects something", file.display());
        let found = judged(&file, text, header);
        assert!(found.is_empty(), "{found}");
    }
}

#[test]
fn every_problem_says_what_to_do_in_one_sentence_each() {
    for file in documents("inert") {
        let text = fs::read_to_string(&file).expect("readable");
        for problem in &judged(&file, text.clone(), Header::of(&text)) {
            let Problem { message: cause, suggestion, .. } = problem;
            let suggestion = suggestion.as_deref().unwrap_or_default();
            assert!(problem.line > 0 && !problem.path.is_empty() && !suggestion.is_empty(), "{problem}");
            assert!(!cause.ends_with('.') && !suggestion.ends_with('.'), "{problem}");
        }
    }
}

/// The resources that the repository shows: the examples, and what its documents quote.
#[test]
fn what_the_repository_shows_is_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let shown = |path: &str| fs::read_to_string(root.join(path)).expect("readable");
    let mut texts = Vec::new();
    for example in ["examples/two-clusters/us-east/resources.yaml", "examples/two-clusters/eu-west/resources.yaml"] {
        texts.push((example.to_owned(), shown(example)));
    }
    for document in ["docs/configuration.md", "docs/balancing.md"] {
        let text = shown(document);
        let quoted = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        texts.extend(
            quoted.filter(|text| text.contains("apiVersion:")).map(|text| (document.to_owned(), text.to_owned())),
        );
    }
    assert!(texts.len() >= 4, "{texts:?}");
    for (file, text) in texts {
        let name = if file.contains("eu-west") { "eu-west" } else { "us-east" };
        let header = Header {
            cluster: value(&format!("{{ name: {name}, region: {name}, zones: [a, b] }}")),
            ..Header::default()
        };
        let found = judged(Path::new(&file), text, header);
        assert!(!found.has_errors(), "{found}");
        assert!(file.contains("balancing") || found.is_empty(), "{found}");
    }
}

/// The documents of a folder beside this file, in the order of their names.
fn documents(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let entries = fs::read_dir(folder).expect("a folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// Where what is found in a document differs from what it expects.
fn complaints(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("readable");
    let header = Header::of(&text);
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut expected = header.expected.clone();
    let mut complaints = Vec::new();
    if expected.is_empty() {
        complaints.push(format!("{name}: expects nothing"));
    }
    for problem in &judged(file, text, header) {
        match expected.iter().position(|expected| is_meant(problem, expected)) {
            Some(index) => drop(expected.remove(index)),
            None => complaints.push(format!("{name}: not expected: {}", shown(problem))),
        }
    }
    complaints.extend(expected.iter().map(|expected| format!("{name}: not found: {expected}")));
    complaints
}

/// What is found in a document, of which its header says where it is judged.
fn judged(file: &Path, text: String, header: Header) -> Problems {
    let texts = [Text { file: file.to_owned(), text }];
    match read(&texts, &|_, _| Ok(CA.to_owned())) {
        Ok(declared) => judge(&declared, &header.cluster.into(), header.live.map(Live::from).as_ref()),
        Err(problems) => problems,
    }
}

fn shown(problem: &Problem) -> String {
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let Problem { line, path, message, suggestion, .. } = problem;
    format!("{severity} {line} {path}: {message} -> {}", suggestion.as_deref().unwrap_or_default())
}

/// Whether a problem is the one that `SEVERITY LINE PATH: CAUSE -> SUGGESTION` means, with parts of the last two.
fn is_meant(problem: &Problem, expected: &str) -> bool {
    let (place, told) = expected.split_once(": ").unwrap_or((expected, ""));
    let (cause, suggestion) = told.split_once(" -> ").unwrap_or((told, ""));
    let starts = shown(problem).starts_with(&format!("{place}: "));
    let part = |text: &str, part: &str| !part.is_empty() && text.contains(part);
    starts && part(&problem.message, cause) && part(problem.suggestion.as_deref().unwrap_or_default(), suggestion)
}

impl Header {
    fn of(text: &str) -> Self {
        let mut header = Self::default();
        for line in text.lines().map_while(|line| line.strip_prefix("# ")) {
            match line.split_once(": ") {
                Some(("expect", problem)) => header.expected.push(problem.to_owned()),
                Some(("cluster", cluster)) => header.cluster = value(cluster),
                Some(("live", live)) => header.live = Some(value(live)),
                _ => {}
            }
        }
        header
    }
}

/// A value written in one line of YAML.
fn value<T: DeserializeOwned>(text: &str) -> T {
    let parsed = yaml::parse(text);
    assert!(parsed.faults.is_empty(), "{text}");
    let document = parsed.documents.first().expect("a document");
    serde_json::from_value(document.to_json()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

impl Default for CommentCluster {
    fn default() -> Self {
        value("{ name: us-east, region: us-east-1, zones: [a, b] }")
    }
}

impl From<CommentCluster> for Cluster {
    fn from(CommentCluster { name, region, zones }: CommentCluster) -> Self {
        Self { trust_domain: format!("{name}.mesh.internal"), name, region, zones }
    }
}

impl From<CommentLive> for Live {
    fn from(CommentLive { services, peers }: CommentLive) -> Self {
        let services = services.into_iter().map(|(name, service)| (name, service.into())).collect();
        Self { services, peers: peers.into_iter().map(|(name, peer)| (name, peer.into())).collect() }
    }
}

impl From<CommentService> for LiveService {
    fn from(CommentService { zones, accounts, measured }: CommentService) -> Self {
        Self { zones, accounts, measured }
    }
}

impl From<CommentPeer> for LivePeer {
    fn from(CommentPeer { region, zones, exports }: CommentPeer) -> Self {
        Self { region, zones, exports }
    }
}
