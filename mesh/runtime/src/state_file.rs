//! Files that a node keeps for its next life: readable by nobody else, whole or not there, and read with a bound.
//!
//! A file is written beside its place, made durable, moved there, and then the folder is made durable too: after a power
//! cut there is the old content or the new one. Used for the last view, the incarnation, secrets and the embedded store.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Reads the file at `path`, of at most `most` bytes.
///
/// # Errors
/// What the operating system says; [`io::ErrorKind::FileTooLarge`] for a longer one, of which nothing is kept.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    Ok(content)
}

/// Puts `content` into the file at `path` in one step that lasts; its folder is made if it is missing.
///
/// # Errors
/// What the operating system says; then the file is as it was.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    make_folder(folder)?;
    let mut draft_name = name.to_owned();
    draft_name.push(".new");
    let draft = folder.join(draft_name);
    // One that an interrupted life left may be another's to read.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = new(&draft).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    let moved = written.and_then(|()| fs::rename(&draft, path));
    if moved.is_err() {
        // Best effort: the cause is what the caller needs to hear.
        let _ = fs::remove_file(&draft);
    }
    moved?;
    File::open(folder)?.sync_all()
}

/// Makes sure that the file at `path`, which somebody else is about to write, is readable by its owner only; its folder is
/// made if it is missing.
///
/// # Errors
/// What the operating system says.
pub fn narrow(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    match new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(path, Permissions::from_mode(MODE))
        }
        made => made.map(drop),
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    // The path of a file beside us has no folder to speak of.
    if folder.as_os_str().is_empty() { Ok(()) } else { DirBuilder::new().recursive(true).mode(0o700).create(folder) }
}

/// The mode is given at creation: a file that is narrowed afterwards was readable for a moment.
fn new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)
}

/// Readable and writable by the owner.
const MODE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("a file").permissions().mode() & 0o777
    }

    #[test]
    fn state_is_written_whole_and_for_its_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("not/yet/there");
        write(&path, b"one").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("widened");
        fs::write(folder.path().join("not/yet/there.new"), "left by an interrupted life").expect("written");
        write(&path, b"two").expect("written");
        assert_eq!((read(&path, 3).expect("read"), mode(&path)), (b"two".to_vec(), 0o600));
        assert_eq!(fs::read_dir(path.parent().expect("a folder")).expect("a folder").count(), 1, "no draft stays");
        assert_eq!(read(&path, 2).expect_err("too long").kind(), io::ErrorKind::FileTooLarge);
        assert!(write(&folder.path().join("not/yet"), b"a folder is in the way").is_err());
    }

    #[test]
    fn what_another_writes_is_narrowed_before_and_keeps_its_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store");
        narrow(&path).expect("made");
        assert_eq!(mode(&path), 0o600);
        fs::write(&path, "kept").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("widened");
        narrow(&path).expect("narrowed");
        assert_eq!((fs::read(&path).expect("read"), mode(&path)), (b"kept".to_vec(), 0o600));
    }
}
