//! The last view on disk: written when it changed, read once at the start.

use std::io;
use std::path::{Path, PathBuf};

use eastway_runtime::state_file;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Shared;

/// The file in the state directory.
const FILE: &str = "view.json";
/// The file's layout; files of another are ignored.
const LAYOUT: u32 = 2;
/// The largest file that is read: far more than as many services as a sidecar may follow.
const MOST: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct LastView {
    layout: u32,
    cluster: String,
    kept: Vec<Kept>,
}

/// What is kept of one thing that was followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) body: Value,
}

impl Shared {
    /// Takes over the last view, if there is one of this cluster. A damaged one is no reason not to start.
    pub(super) fn load_last_view(&self) {
        let Some(path) = self.path() else { return };
        match read(&path) {
            Ok(last) if last.layout == LAYOUT && last.cluster == self.options.cluster => {
                tracing::info!(path = %path.display(), entries = last.kept.len(), "starting from the last view");
                self.dispatcher.restore(last.kept, self.common.clock.now());
                // It is there already.
                self.common.take_touched();
            }
            Ok(_) => {
                tracing::warn!(path = %path.display(), "the last view is of another cluster or version: not used");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), error = %error, "the last view cannot be read"),
        }
    }

    /// Writes the view if it changed since the last time. Failures are logged: serving goes on without.
    pub(super) async fn save_last_view(&self) {
        let Some(path) = self.path().filter(|_| self.common.take_touched()) else { return };
        let kept = self.dispatcher.kept(self.common.clock.now());
        let last = LastView { layout: LAYOUT, cluster: self.options.cluster.clone(), kept };
        let written = tokio::task::spawn_blocking({
            let path = path.clone();
            move || write(&path, &last)
        });
        let written = written.await.map_err(io::Error::other).and_then(|written| written);
        if let Err(error) = written {
            self.common.touch();
            tracing::warn!(path = %path.display(), error = %error, "cannot write the last view");
        }
    }

    fn path(&self) -> Option<PathBuf> {
        self.options.state.as_ref().map(|state| state.join(FILE))
    }
}

fn read(path: &Path) -> io::Result<LastView> {
    serde_json::from_slice(&state_file::read(path, MOST)?).map_err(io::Error::other)
}

fn write(path: &Path, last: &LastView) -> io::Result<()> {
    state_file::write(path, &serde_json::to_vec(last).map_err(io::Error::other)?)
}
