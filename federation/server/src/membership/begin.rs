//! How a gateway begins: from the store, or from what that held last if no member of it answers.

use std::sync::Arc;

use tokio::time::timeout;

use super::life::{Life, claim, unclaimed};
use crate::error::StartError;
use crate::options::ServerConfig;
use crate::store::{LastStore, Store, StoreError};

/// What a gateway begins with.
pub(crate) struct Beginning {
    pub(crate) life: Life,
    /// Where it reads what there is.
    pub(crate) from: Arc<dyn Store>,
    /// When the store held that, in milliseconds since 1970; `None` if it does now.
    pub(crate) saved_at: Option<u64>,
}

/// Takes part in the cluster. Without anything kept of the store, it waits for that.
///
/// # Errors
/// The store refuses, or is not the one that the gateway had before.
pub(crate) async fn begin(store: &Arc<dyn Store>, config: &ServerConfig) -> Result<Beginning, StartError> {
    let Some(last) = config.state.as_deref().and_then(LastStore::read) else {
        let life = claim(&**store, config).await?;
        return Ok(Beginning { life, from: Arc::clone(store), saved_at: None });
    };
    let claimed = async {
        is_the_same(&**store, &last).await?;
        claim(&**store, config).await
    };
    if let Ok(claimed) = timeout(config.options.store_patience, claimed).await {
        return Ok(Beginning { life: claimed?, from: Arc::clone(store), saved_at: None });
    }
    let age_s = (config.options.wall_clock)().saturating_sub(last.saved_at) / 1000;
    tracing::error!(
        age_s,
        "the store does not answer: starting from what it held last; registrations wait until it does"
    );
    let life = unclaimed(&last, config).await?;
    Ok(Beginning { life, saved_at: Some(last.saved_at), from: Arc::new(last) })
}

/// The store behind the address must be the one that was there before. A failure is no answer, and waited out by who claims.
async fn is_the_same(store: &dyn Store, last: &LastStore) -> Result<(), StartError> {
    match store.cluster_id().await {
        Ok(found) if found != last.id => Err(StartError::OtherStore { found, expected: last.id }),
        Ok(_) => Ok(()),
        Err(StoreError::Foreign { found, expected, .. }) => Err(StartError::OtherStore { found, expected }),
        Err(_) => Ok(()),
    }
}
