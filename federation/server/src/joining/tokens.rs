//! The tokens of the cluster, in its store: the hash of each secret, until when it is valid, and who has used it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use eastway_identity::{secret, sha256};
use eastway_registry::membership::to_json;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use crate::hub::Hub;
use crate::options::JoinOptions;
use crate::store::{Change, Commit, Expect, Follower, Revision, Store, StoreEntry, StoreError, keys};

/// Between two looks for tokens that have expired.
const SWEEP: Duration = Duration::from_secs(10);
/// How often it is tried to note a use while others change the token.
const ATTEMPTS: u32 = 8;

/// What is wanted of a token.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewToken {
    /// For how many seconds it is valid.
    pub ttl_seconds: u64,
    /// What this cluster imports of the one that joins.
    #[serde(default)]
    pub imports: Vec<String>,
    /// What is suggested to the one that joins as its imports.
    #[serde(default)]
    pub offers: Vec<String>,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum NotIssued {
    /// It is not to be valid for so long, or not at all.
    #[error("a token is valid for a second at least, and for {} s at most", .0.as_secs())]
    Ttl(Duration),
    /// Rules that no `Peer` may have.
    #[error("`{0}` is not `*`, NAMESPACE/* or NAMESPACE/SERVICE")]
    Rule(String),
    /// There are enough.
    #[error(
        "there are {0} valid tokens already, which are as many as `peering.tokens` allows: wait until one expires, or end all of \
         them by `eastway peer token --withdraw`"
    )]
    TooMany(usize),
    /// The configuration forbids it.
    #[error("`peering.tokens: 0` in this gateway's configuration: nobody joins this cluster by a token")]
    Forbidden,
    /// The operating system has no randomness.
    #[error("the operating system gives no random numbers")]
    Randomness,
    /// The store failed.
    #[error("the store cannot be written")]
    Store(#[from] StoreError),
}

/// A token that was made.
pub(super) struct Issued {
    pub(super) secret: Zeroizing<[u8; 32]>,
    pub(super) expires_ms: u64,
}

/// A token in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredToken {
    pub(super) expires_ms: u64,
    /// Who had it made.
    pub(super) by: String,
    /// What is imported of who joins.
    pub(super) imports: Vec<String>,
    /// Who used it.
    #[serde(default)]
    pub(super) used_by: Option<User>,
}

/// A cluster that has used a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) cluster: String,
    /// The hash of its trust bundle.
    pub(super) bundle: String,
}

impl User {
    pub(super) fn new(cluster: &str, bundle: &[u8; 32]) -> Self {
        Self { cluster: cluster.to_owned(), bundle: HEXLOWER.encode(bundle) }
    }
}

/// Why a token does not count.
#[derive(Debug)]
pub(super) enum Invalid {
    Unknown,
    Expired,
    Used(User),
    Store(StoreError),
}

/// What a gateway knows of the cluster's tokens.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    /// Until when each is valid, by its key.
    valid: Mutex<BTreeMap<String, u64>>,
}

impl Tokens {
    /// Whether any is valid at `now`.
    pub(super) fn is_any_valid(&self, now: u64) -> bool {
        self.valid.lock().values().any(|expires| *expires > now)
    }

    pub(super) async fn issue(
        &self,
        store: &dyn Store,
        new: &NewToken,
        by: &str,
        now: u64,
        options: &JoinOptions,
    ) -> Result<Issued, NotIssued> {
        if options.max_tokens == 0 {
            return Err(NotIssued::Forbidden);
        }
        if !(1..=options.max_ttl.as_secs()).contains(&new.ttl_seconds) {
            return Err(NotIssued::Ttl(options.max_ttl));
        }
        if let Some(rule) = new.imports.iter().chain(&new.offers).find(|rule| !eastway_admission::is_import_rule(rule))
        {
            return Err(NotIssued::Rule(rule.clone()));
        }
        let valid = expire(store, now).await?;
        if valid >= options.max_tokens {
            return Err(NotIssued::TooMany(valid));
        }
        let secret = Zeroizing::new(secret().ok_or(NotIssued::Randomness)?);
        let expires_ms = now.saturating_add(new.ttl_seconds * 1000);
        let stored = StoredToken { expires_ms, by: by.to_owned(), imports: new.imports.clone(), used_by: None };
        let key = key(&*secret);
        store.put_if(&key, Expect::Absent, to_json(&stored)).await?;
        self.valid.lock().insert(key, expires_ms);
        Ok(Issued { secret, expires_ms })
    }

    pub(super) async fn withdraw(&self, store: &dyn Store) -> Result<u64, StoreError> {
        let deleted = store.delete_prefix(keys::TOKENS).await?;
        self.valid.lock().clear();
        Ok(deleted)
    }

    /// Follows the store, and removes what has expired. Runs until it is dropped.
    pub(crate) async fn follow(self: Arc<Self>, hub: Arc<Hub>, store: Arc<dyn Store>) {
        let mut follower = Follower::new(&*store, keys::TOKENS);
        loop {
            match timeout(SWEEP, follower.next()).await {
                Ok(Some(Change::Put(entry))) => {
                    if let Some(token) = read(&entry) {
                        self.valid.lock().insert(entry.key, token.expires_ms);
                    }
                }
                Ok(Some(Change::Delete(entry))) => drop(self.valid.lock().remove(&entry.key)),
                Ok(Some(Change::Ready(_) | Change::Relisted(_))) => {
                    let known = follower.known();
                    self.valid.lock().retain(|key, _| known.entries().contains_key(key));
                }
                Ok(None) => return,
                Err(_) => {
                    let now = (hub.options.wall_clock)();
                    let expired = self.valid.lock().values().any(|expires| *expires <= now);
                    if expired && let Err(error) = expire(&*store, now).await {
                        tracing::debug!(%error, "tokens that have expired stay in the store");
                        sleep(SWEEP).await;
                    }
                }
            }
        }
    }
}

/// The token of this secret, if it counts for `user`, and at which revision it was found.
pub(super) async fn find(
    store: &dyn Store,
    secret: &[u8],
    user: &User,
    now: u64,
) -> Result<(StoredToken, Revision), Invalid> {
    let entry = store.get(&key(secret)).await.map_err(Invalid::Store)?.ok_or(Invalid::Unknown)?;
    let token = read(&entry).ok_or(Invalid::Unknown)?;
    match token.used_by.clone() {
        _ if token.expires_ms <= now => Err(Invalid::Expired),
        Some(other) if other != *user => Err(Invalid::Used(other)),
        _ => Ok((token, entry.revision)),
    }
}

/// Notes that `user` uses the token, unless another one was faster.
pub(super) async fn redeem(store: &dyn Store, secret: &[u8], user: &User, now: u64) -> Result<StoredToken, Invalid> {
    for _ in 0..ATTEMPTS {
        let (token, revision) = find(store, secret, user, now).await?;
        if token.used_by.is_some() {
            return Ok(token);
        }
        let used = StoredToken { used_by: Some(user.clone()), ..token };
        let noted = store.put_if(&key(secret), Expect::At(revision), to_json(&used)).await.map_err(Invalid::Store)?;
        if matches!(noted, Commit::Applied(_)) {
            return Ok(used);
        }
    }
    let reason = "others change the token all the time".to_owned();
    Err(Invalid::Store(StoreError::Unavailable { attempts: ATTEMPTS, reason }))
}

/// Removes what has expired; answers how many are left.
async fn expire(store: &dyn Store, now: u64) -> Result<usize, StoreError> {
    let mut left = 0;
    for entry in store.list(keys::TOKENS).await?.entries {
        match read(&entry).filter(|token| token.expires_ms > now) {
            Some(_) => left += 1,
            None => drop(store.delete(&entry.key).await?),
        }
    }
    Ok(left)
}

fn read(entry: &StoreEntry) -> Option<StoredToken> {
    serde_json::from_slice(&entry.value).ok()
}

fn key(secret: &[u8]) -> String {
    keys::token(&HEXLOWER.encode(&sha256(secret)))
}
