//! The secret by which a gateway that was killed and started again ends the tunnels of its earlier life.
//!
//! It must be the same in both lives. A gateway with a folder of its own keeps one there; for one whose state is in etcd
//! it follows from its private key, so that it changes with the key, and connections of the life before then end by their
//! timeouts. No other gateway may have the same.

use std::io;
use std::path::Path;

use eastway_runtime::state_file;
use eastway_transport::quic::{derived_reset_secret, new_reset_secret};
use zeroize::Zeroizing;

use crate::RunError;
use crate::config::{Config, Store};

/// In the folder of the embedded store.
const FILE: &str = "reset-secret";

/// The largest file that is read, in bytes: a key with its comments fits.
const MOST: u64 = 1 << 20;

type Secret = [u8; 32];

/// The secret of the gateway with this configuration.
///
/// # Errors
/// [`RunError::File`] if the file that has it, or shall have it, cannot be used.
pub(crate) fn secret(config: &Config) -> Result<Secret, RunError> {
    let (path, secret) = match &config.store {
        Store::Embedded { path } => (path.join(FILE), kept(path)),
        Store::Etcd(_) => {
            let key = &config.identity.key;
            let read = state_file::read(key, MOST).map(Zeroizing::new);
            (key.clone(), read.map(|key| derived_reset_secret(&key)))
        }
    };
    secret.map_err(|source| RunError::File { path, source })
}

/// The secret in `folder`; a new one if there is none, or what is there is none.
fn kept(folder: &Path) -> io::Result<Secret> {
    let path = folder.join(FILE);
    match state_file::read(&path, MOST).map(Secret::try_from) {
        Ok(Ok(secret)) => return Ok(secret),
        Ok(Err(other)) => tracing::warn!(path = %path.display(), bytes = other.len(), "replaced a damaged file"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let secret = new_reset_secret();
    state_file::write(&path, &secret)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_keeps_its_secret_which_nobody_else_may_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("not yet there");
        let secret = kept(&state).expect("a secret");
        assert_eq!(kept(&state).expect("a secret"), secret);
        let mode = fs::metadata(state.join(FILE)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(kept(folder.path()).expect("a secret"), secret, "every folder has its own");
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(FILE), b"half").expect("written");
        let secret = kept(folder.path()).expect("a secret");
        assert_eq!(kept(folder.path()).expect("a secret"), secret);
    }
}
