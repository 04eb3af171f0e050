//! Tests that keep the published schema and reference of resources current.

use std::path::Path;

use eastway_core::resource::Resource;
use eastway_documents::reference::{keep_current, keep_part_current, schema_of, tables_of};

/// The repository's `docs`.
fn docs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

#[test]
fn the_published_schema_of_resources_is_current() {
    let schema = schema_of::<Resource>("Eastway resource");
    keep_current(&docs().join("schema/resources.json"), &schema).expect("current");
}

#[test]
fn the_reference_of_resources_is_current() {
    keep_part_current(&docs().join("configuration.md"), "resources", &tables_of::<Resource>()).expect("current");
}
