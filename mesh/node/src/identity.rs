//! The identity that a node runs under.

use std::sync::Arc;

use eastway_core::{Chain, SpiffeId};
use eastway_identity::{Identity, IdentityFiles, Watch};

use crate::NodeError;

/// Reads the identity in `files`, which has to be that of a `wanted`, and watches them until the watch is dropped.
///
/// # Errors
/// [`NodeError::Identity`] and [`NodeError::Role`].
pub fn load(
    files: &IdentityFiles,
    wanted: &'static str,
    fits: fn(&SpiffeId) -> bool,
) -> Result<(Arc<Identity>, Watch), NodeError> {
    let identity = Identity::load(files).map_err(NodeError::Identity)?;
    if !fits(&identity.id()) {
        return Err(NodeError::Role { id: identity.id(), wanted });
    }
    let watch = identity.watch();
    Ok((identity, watch))
}

/// Reads the files again, on an operator's SIGHUP.
pub fn reload(identity: &Identity) {
    match identity.reload() {
        Ok(changed) => tracing::info!(changed, "SIGHUP: the identity's files were read again"),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "SIGHUP: the identity's files cannot be used; the old ones stay");
        }
    }
}
