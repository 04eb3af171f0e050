//! What `make proto` writes: the Rust code of the wire contracts, and the contract that etcd-client's build is given in
//! place of a protobuf compiler. Both are made with `protox`, so that nothing here needs `protoc` either.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use protox::prost::Message;

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Generates the code of every contract under `proto/` into `out`.
///
/// # Errors
/// What `protox` or the generator says.
pub fn generate(out: &Path) -> Result<(), Box<dyn Error>> {
    let proto = root().join("proto");
    let files = ["tunnel", "discovery", "federation"].map(|name| proto.join(format!("eastway/{name}/v1/{name}.proto")));
    let descriptors = protox::compile(files, [&proto])?;
    tonic_prost_build::configure().out_dir(out).compile_fds(descriptors)?;
    Ok(())
}

/// The contract of the etcd client that `Cargo.lock` names: the file below `proto/` that `tools/protoc` answers its build
/// with, and what must stand in it.
///
/// # Errors
/// What `cargo metadata`, `protox` or the file system says.
pub fn etcd_contract() -> Result<(String, Vec<u8>), Box<dyn Error>> {
    let (version, folder) = source_of("etcd-client")?;
    let proto = folder.join("proto");
    let mut files = Vec::new();
    collect(&proto, &mut files)?;
    files.sort();
    let mut compiler = protox::Compiler::new([&proto])?;
    // Without comments: nobody reads the code that is made of it, and they are three quarters of its size.
    let descriptors =
        compiler.include_imports(true).include_source_info(false).open_files(files)?.file_descriptor_set();
    Ok((format!("etcd-client-{version}.fds"), descriptors.encode_to_vec()))
}

/// The version of a dependency that `Cargo.lock` names, and the folder of its source.
fn source_of(name: &str) -> Result<(String, PathBuf), Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--locked", "--format-version=1", "--filter-platform=host-tuple"];
    let output = Command::new(cargo).args(arguments).current_dir(root()).output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let mut named = packages.filter(|package| package["name"] == name);
    let (Some(package), None) = (named.next(), named.next()) else {
        return Err(format!("Cargo.lock must name one version of {name}").into());
    };
    let (version, manifest) = (package["version"].as_str(), package["manifest_path"].as_str());
    let folder = manifest.and_then(|manifest| Path::new(manifest).parent());
    version.map(str::to_owned).zip(folder.map(Path::to_owned)).ok_or_else(|| format!("{name} has no manifest").into())
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}
