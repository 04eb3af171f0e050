//! The last view on disk: written when it changed, read once at the start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eastway_core::view::{MeshView, ServiceView};
use eastway_registry::facts::ServiceFacts;
use eastway_runtime::state_file;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Answer, Followed, Shared, Subscription};

/// The file in the state directory.
const FILE: &str = "view.json";
/// The file's layout; files of another are ignored.
const LAYOUT: u32 = 1;
/// The largest file that is read: far more than as many services as a sidecar may follow.
const MOST: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct LastView {
    layout: u32,
    mesh: Arc<MeshView>,
    services: Vec<ServiceView>,
}

impl Shared {
    /// Takes over the last view, if there is one of this cluster, and hands it to the sink. A damaged one is no reason
    /// not to start.
    pub(super) fn load_last_view(&self) {
        let Some(path) = self.path() else { return };
        let last = match read(&path) {
            Ok(last) if last.layout == LAYOUT && last.mesh.cluster.name == self.options.cluster => last,
            Ok(_) => {
                tracing::warn!(path = %path.display(), "the last view is of another cluster or version: not used");
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(path = %path.display(), error = %error, "the last view cannot be read");
                return;
            }
        };
        let now = self.clock.now();
        self.sink.mesh(&last.mesh);
        self.state.lock().mesh = Some(last.mesh);
        tracing::info!(path = %path.display(), services = last.services.len(), "starting from the last view");
        for mut service in last.services.into_iter().take(self.options.max_subscriptions) {
            // Nobody knows how long ago the view was current: what returned then is no news now.
            service.returned.clear();
            service.remote.iter_mut().for_each(|zone| zone.summary.returned_ago = None);
            let name = service.name.clone();
            let subscription = Subscription::restored(ServiceFacts::from_view(service, now), now);
            if let Some(view) = subscription.view(now) {
                self.sink.service(&Arc::new(view));
            }
            let followed = Followed { subscription, answer: watch::Sender::new(Answer::Known) };
            self.state.lock().services.insert(name, followed);
        }
    }

    /// Writes the view if it changed since the last time. Failures are logged: serving goes on without.
    pub(super) async fn save_last_view(&self) {
        let Some(path) = self.path() else { return };
        let Some(last) = self.last_view() else { return };
        let written = tokio::task::spawn_blocking({
            let path = path.clone();
            move || write(&path, &last)
        });
        let written = written.await.map_err(io::Error::other).and_then(|written| written);
        if let Err(error) = written {
            self.state.lock().dirty = true;
            tracing::warn!(path = %path.display(), error = %error, "cannot write the last view");
        }
    }

    fn last_view(&self) -> Option<LastView> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let mesh = state.mesh.clone().filter(|_| state.dirty)?;
        state.dirty = false;
        let services = state.services.values().filter_map(|followed| followed.subscription.view(now)).collect();
        Some(LastView { layout: LAYOUT, mesh, services })
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
