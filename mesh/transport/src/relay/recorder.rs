//! A written record of relayed bytes, for tests that show what a gateway can see.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// Writes what relays move into a folder: `NNNNNN-forward.bin` and `NNNNNN-backward.bin` for each relay, so that a pattern
/// is found although many streams run at once. Blocks the thread for each write: not for production.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    next: AtomicU64,
}

impl Recorder {
    /// A recorder into `folder`, which is made if it does not exist.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, next: AtomicU64::new(1) })
    }

    /// The files of another relay.
    pub(super) fn taps(&self) -> (Option<Tap>, Option<Tap>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (self.tap(number, "forward"), self.tap(number, "backward"))
    }

    fn tap(&self, number: u64, direction: &str) -> Option<Tap> {
        let path = self.folder.join(format!("{number:06}-{direction}.bin"));
        match File::create(&path) {
            Ok(file) => Some(Tap { file }),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "cannot record a relay");
                None
            }
        }
    }
}

/// One direction's file.
#[derive(Debug)]
pub(super) struct Tap {
    file: File,
}

impl Tap {
    pub(super) fn record(&mut self, chunk: &Bytes) {
        if let Err(error) = self.file.write_all(chunk) {
            tracing::error!(%error, "cannot record what is relayed");
        }
    }
}
