//! The files of an identity: which they are, how they are read with a bound, how they are written without harm.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::LoadError;

/// Where a node finds its identity, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The certificate, followed by its intermediates if there are any.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The CAs of the own trust domain.
    pub bundle: PathBuf,
}

impl IdentityFiles {
    /// The three as `eastway ca issue` names them in `dir`: `NAME.crt`, `NAME.key`, `bundle.crt`.
    pub fn named(dir: &Path, name: &str) -> Self {
        Self {
            certificate: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
            bundle: dir.join(BUNDLE),
        }
    }
}

/// What happens to files that are already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// They stay, and nothing is written.
    Never,
    /// They are replaced, each in one step, so that a reader sees the old or the new one.
    Force,
}

/// The bundle's file name beside issued certificates.
pub(crate) const BUNDLE: &str = "bundle.crt";

/// Reads at most a sane amount: a path that points at a device or a log must not fill the memory.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let fail = |source| LoadError::Read { path: path.to_owned(), source };
    let mut content = Vec::new();
    File::open(path).map_err(fail)?.take(MAX_FILE + 1).read_to_end(&mut content).map_err(fail)?;
    if content.len() as u64 > MAX_FILE {
        return Err(LoadError::TooLarge { path: path.to_owned(), limit: MAX_FILE });
    }
    Ok(content)
}

/// One file to be written.
#[derive(Clone, Copy)]
pub(crate) struct NewFile<'a> {
    pub(crate) path: &'a Path,
    pub(crate) content: &'a str,
    pub(crate) secret: bool,
}

/// Writes all of `files`, creating their folders. With [`Overwrite::Never`] nothing is written if one of them exists with
/// another content; one that already holds the same content is left as it is.
pub(crate) fn write(files: &[NewFile<'_>], overwrite: Overwrite) -> Result<(), WriteError> {
    let mut missing = Vec::with_capacity(files.len());
    for file in files {
        match (fs::read(file.path), overwrite) {
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => missing.push(*file),
            // The same bundle lies beside every certificate of a folder.
            (Ok(present), Overwrite::Never) if !file.secret && present == file.content.as_bytes() => {}
            (_, Overwrite::Never) => return Err(WriteError::Exists(file.path.to_owned())),
            (_, Overwrite::Force) => missing.push(*file),
        }
    }
    for file in missing {
        let fail = |source| WriteError::Io { path: file.path.to_owned(), source };
        if let Some(dir) = file.path.parent() {
            fs::create_dir_all(dir).map_err(fail)?;
        }
        match overwrite {
            Overwrite::Never => create(file.path, &file).map_err(fail)?,
            Overwrite::Force => replace(&file).map_err(fail)?,
        }
    }
    Ok(())
}

/// Why files were not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// One is already there.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The system refused.
    #[error("cannot write {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The mode is given at creation: a key that is narrowed afterwards was readable for a moment.
fn create(path: &Path, file: &NewFile<'_>) -> io::Result<()> {
    let mode = if file.secret { 0o600 } else { 0o644 };
    let mut target = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = target.write_all(file.content.as_bytes()).and_then(|()| target.sync_all());
    if written.is_err() {
        // Best effort: half a file would only stand in the way of the next attempt.
        let _ = fs::remove_file(path);
    }
    written
}

fn replace(file: &NewFile<'_>) -> io::Result<()> {
    let name = file.path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = file.path.with_file_name(temporary);
    create(&temporary, file)?;
    let renamed = fs::rename(&temporary, file.path);
    if renamed.is_err() {
        // Best effort: the cause is what the caller needs to hear.
        let _ = fs::remove_file(&temporary);
    }
    renamed
}

const MAX_FILE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("written").permissions().mode() & 0o777
    }

    #[test]
    fn secrets_are_readable_by_their_owner_only() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (key, new) = (dir.path().join("deep/ca.key"), dir.path().join("deep/ca.crt"));
        let files = [
            NewFile { path: &key, content: "secret", secret: true },
            NewFile { path: &new, content: "public", secret: false },
        ];
        write(&files, Overwrite::Never).expect("written");
        assert_eq!(mode(&key), 0o600);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("changed");
        write(&files, Overwrite::Force).expect("replaced");
        assert_eq!(mode(&key), 0o600, "a replaced key is narrow again");
        assert_eq!(fs::read_dir(dir.path().join("deep")).expect("there").count(), 2, "no temporary file stays");
    }

    #[test]
    fn nothing_is_written_if_one_file_exists() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (first, second) = (dir.path().join("a.crt"), dir.path().join("a.key"));
        fs::write(&second, "old").expect("written");
        let files = [
            NewFile { path: &first, content: "new", secret: false },
            NewFile { path: &second, content: "new", secret: true },
        ];
        assert!(matches!(write(&files, Overwrite::Never), Err(WriteError::Exists(path)) if path == second));
        assert!(!first.exists());
        assert_eq!(fs::read_to_string(&second).expect("there"), "old");
        write(&files, Overwrite::Force).expect("replaced");
        assert_eq!(fs::read_to_string(&second).expect("there"), "new");
    }

    #[test]
    fn the_same_public_content_is_no_conflict() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let bundle = dir.path().join(BUNDLE);
        let file = [NewFile { path: &bundle, content: "ca", secret: false }];
        write(&file, Overwrite::Never).expect("written");
        write(&file, Overwrite::Never).expect("the same");
        let other = [NewFile { path: &bundle, content: "another ca", secret: false }];
        assert!(matches!(write(&other, Overwrite::Never), Err(WriteError::Exists(_))));
    }

    #[test]
    fn an_endless_file_is_refused() {
        assert!(matches!(read(Path::new("/dev/zero")), Err(LoadError::TooLarge { .. })));
        assert!(matches!(read(Path::new("/nonexistent/x")), Err(LoadError::Read { .. })));
    }
}
