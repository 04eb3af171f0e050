//! Which life of the gateway began last on this host, whether a store ever heard of it or not.
//!
//! Two lives that begin from the same copy of a store, because that does not answer, would be taken for one by peers and
//! siblings if the clock was set back in between.

use std::path::Path;

use eastway_runtime::state_file;
use serde::{Deserialize, Serialize};

/// The file in the state folder.
const FILE: &str = "life.json";
/// The largest file that is read.
const MOST: u64 = 4 << 10;

#[derive(Serialize, Deserialize)]
struct Kept {
    epoch: u64,
}

/// The epoch of the last life, if one is kept in `folder`.
pub(super) fn last(folder: &Path) -> Option<u64> {
    let kept = state_file::read(&folder.join(FILE), MOST).ok()?;
    Some(serde_json::from_slice::<Kept>(&kept).ok()?.epoch)
}

/// Keeps that a life begins. Where that fails the gateway serves all the same.
pub(super) fn keep(folder: &Path, epoch: u64) {
    let path = folder.join(FILE);
    let written = serde_json::to_vec(&Kept { epoch }).map_err(Into::into);
    if let Err(error) = written.and_then(|kept| state_file::write(&path, &kept)) {
        tracing::warn!(
            path = %path.display(),
            %error,
            "the number of this life cannot be kept: after a start without the store and with a clock that was set back, others may ignore it"
        );
    }
}
