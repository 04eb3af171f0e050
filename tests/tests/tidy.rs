//! Rules of this repository as tests: what a reviewer would otherwise have to remember.
//!
//! Each rule is a function from text to complaints, so that it is itself tested on samples that break it.

#[path = "tidy/bench.rs"]
mod bench;
#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/contracts.rs"]
mod contracts;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/lexicon.rs"]
mod lexicon;
#[path = "tidy/manifest.rs"]
mod manifest;
#[path = "tidy/purity.rs"]
mod purity;
#[path = "tidy/scan.rs"]
mod scan;
#[path = "tidy/sources.rs"]
mod sources;
#[path = "tidy/threats.rs"]
mod threats;

/// Fails with every complaint, one a line.
fn assert_none(rule: &str, complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{rule}:\n  {}", complaints.join("\n  "));
}
