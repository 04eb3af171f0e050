//! How a gateway begins: from the store, or from what that held last if no member of it answers.

use std::sync::Arc;

use eastway_registry::membership::{Claim, ClaimError, Found, Life, RETRY, is_plausible};
use tokio::time::{sleep, timeout};

use super::lives;
use crate::error::StartError;
use crate::options::ServerConfig;
use crate::store::{LastStore, Store, StoreError, keys};

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
    let beginning = begin_from(store, config).await?;
    if let Some(folder) = &config.state {
        lives::keep(folder, beginning.life.epoch());
    }
    Ok(beginning)
}

async fn begin_from(store: &Arc<dyn Store>, config: &ServerConfig) -> Result<Beginning, StartError> {
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
    // Its first write finds out whether it is the latest.
    let (life, _) = next(&last, config).await?;
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

/// Takes part in the cluster: finds or makes its uid, and begins the gateway's next life. Waits for the store.
async fn claim(store: &dyn Store, config: &ServerConfig) -> Result<Life, StartError> {
    loop {
        match try_claim(store, config).await {
            Ok(Some(claimed)) => return Ok(claimed),
            Ok(None) => {}
            Err(StartError::Store(error)) if error.is_transient() => {
                tracing::warn!(error = %error, "waiting for the store");
                sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// `None`: somebody else changed the cluster's entry meanwhile.
async fn try_claim(store: &dyn Store, config: &ServerConfig) -> Result<Option<Life>, StartError> {
    let (mut life, found) = next(store, config).await?;
    let commit = store.txn(life.claim(&found)).await?;
    Ok(life.claimed(&commit).then_some(life))
}

/// The life that follows what a store holds, and that.
async fn next(store: &dyn Store, config: &ServerConfig) -> Result<(Life, Found), StartError> {
    let (meta, life) = (store.get(keys::META).await?, store.get(&keys::epoch(&config.gateway)).await?);
    let last = config.state.as_deref().and_then(lives::last);
    let (found, now) = (Found { meta, life, last }, (config.options.wall_clock)());
    for epoch in Life::former(&config.gateway, &found).into_iter().filter(|epoch| !is_plausible(*epoch, now)) {
        tracing::error!(epoch, clock_ms = now, "a former epoch lies far ahead of the clock, and is not continued");
    }
    let claim = Claim {
        gateway: config.gateway.clone(),
        cluster: config.cluster.clone(),
        region: config.region.clone(),
        trust_domain: config.trust_domain.clone(),
        zones: config.zones.clone(),
        trust_bundle: config.identity.bundle().iter().map(|certificate| certificate.to_vec()).collect(),
        uid: random_id(),
        process: random_id(),
    };
    let life = Life::after(claim, &found, now).map_err(|error| match error {
        ClaimError::Damaged(cause) => StartError::Damaged(cause),
        ClaimError::OtherCluster { found, expected } => StartError::OtherCluster { found, expected },
    })?;
    Ok((life, found))
}

fn random_id() -> String {
    let mut rng = fastrand::Rng::new();
    format!("{:032x}", rng.u128(..))
}
