//! Generates the Rust code of the wire contracts with `protox`, without a protobuf compiler.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Generates the code of every contract under `proto/` into `out`.
///
/// # Errors
/// What `protox` or the generator says.
pub fn generate(out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let proto = root().join("proto");
    let files = ["tunnel", "discovery", "federation"].map(|name| proto.join(format!("eastway/{name}/v1/{name}.proto")));
    let descriptors = protox::compile(files, [&proto])?;
    tonic_prost_build::configure().out_dir(out).compile_fds(descriptors)?;
    Ok(())
}
