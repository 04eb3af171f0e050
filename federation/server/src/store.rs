//! The cluster's store: an ordered key-value store with revisions, leases and watches.
//!
//! For: what must outlive a gateway and be seen by its siblings — membership, resources, mirrors of peers, the
//! gateways' own keys and the election. Never: health, load, or anything a request waits for; those travel between
//! gateways. Called by the gateway's discovery and peering; the data path works from memory when no store answers.
//!
//! There are two implementations with one behaviour, proven by one test suite: [`embedded`] (in the gateway's process,
//! on disk, for a cluster with a single gateway) and [`etcd`]. Above both sit [`Follower`] (a prefix kept in memory),
//! [`StoreSession`] (keys that vanish with their owner) and [`Election`].

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;

mod txn;
mod watch;

mod election;
mod follow;
mod last;
mod session;

pub mod embedded;
pub mod etcd;

#[cfg(test)]
mod etcd_faults;
#[cfg(test)]
mod etcd_process;
#[cfg(test)]
mod suite;

pub use eastway_registry::store::{
    Change, Commit, Event, Expect, Known, LeaseId, Listing, Op, Revision, StoreEntry, Txn, keys,
};
pub use election::Election;
pub use embedded::EmbeddedStore;
pub use etcd::{EtcdCredentials, EtcdOptions, EtcdStore, EtcdTls, Renewal};
pub use follow::Follower;
pub use last::kept_id;
pub(crate) use last::{LastStore, keep as keep_last};
pub use session::{DEFAULT_TTL, MIN_TTL, SessionState, StoreSession};
pub use watch::Watch;

/// The largest value that both implementations accept, in bytes. etcd refuses requests above 1.5 MiB.
pub const MAX_VALUE: usize = 1 << 20;

/// The longest key that both implementations accept, in bytes.
pub const MAX_KEY: usize = 1024;

/// The most operations, and the most comparisons, in one transaction. etcd's default limit is 128, and a transaction
/// that is not applied asks for all its keys.
pub const MAX_TXN_OPS: usize = 64;

/// The most bytes of values in one transaction.
pub const MAX_TXN_BYTES: usize = MAX_VALUE + (1 << 18);

/// An ordered key-value store with revisions. Cheap to share as `Arc<dyn Store>`.
///
/// Every operation is bounded in time by the implementation's options, and may be cancelled: a cancelled write has
/// either happened as a whole or not at all.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// The entry at `key`. Linearizable: it sees every write that was answered before.
    async fn get(&self, key: &str) -> Result<Option<StoreEntry>, StoreError>;

    /// All entries whose key starts with `prefix`, at one revision.
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError>;

    /// Applies all operations of `txn` under one new revision if all its comparisons hold; else changes nothing.
    /// Only a transaction that [`Txn::is_guarded`] can be tried again when an answer is lost; any other one then fails
    /// with [`StoreError::OutcomeUnknown`].
    async fn txn(&self, txn: Txn) -> Result<Commit, StoreError>;

    /// Writes `key`, whatever it holds now.
    async fn put(&self, key: &str, value: Bytes) -> Result<Revision, StoreError>;

    /// Writes `key` if it is as expected.
    async fn put_if(&self, key: &str, expect: Expect, value: Bytes) -> Result<Commit, StoreError> {
        self.txn(Txn::new().when(key, expect).put(key, value)).await
    }

    /// Deletes `key`; says whether there was anything to delete.
    async fn delete(&self, key: &str) -> Result<bool, StoreError>;

    /// Deletes all keys that start with `prefix`, under one revision; says how many there were.
    async fn delete_prefix(&self, prefix: &str) -> Result<u64, StoreError>;

    /// Follows the changes under `prefix` that come after the revision `after`, in order, each exactly once, through
    /// restarts of the server. With `None`, and whenever the position was lost, it begins with [`Event::Reset`].
    /// It retries by itself for as long as the [`Watch`] is kept.
    fn watch(&self, prefix: &str, after: Option<Revision>) -> Watch;

    /// Makes a lease that ends unless it is renewed within `ttl`. Prefer [`StoreSession`], which does the renewing.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Renews a lease for another time to live; false if it has ended.
    async fn renew(&self, lease: LeaseId) -> Result<bool, StoreError>;

    /// Ends a lease and deletes its keys. Ending an ended lease is no error.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// The identity of the store, fixed at its creation. A server with another identity is never spoken to.
    async fn cluster_id(&self) -> Result<u64, StoreError>;

    /// How the store does, from what recent operations saw. Does no I/O.
    fn health(&self) -> StoreHealth;
}

/// How a store does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreHealth {
    /// `embedded` or `etcd`.
    pub kind: &'static str,
    /// Whether the last operation succeeded (true before the first).
    pub healthy: bool,
    /// The member that answered last: an address, or a path.
    pub member: Option<String>,
    /// Seconds since the last operation that succeeded.
    pub age_seconds: Option<f64>,
    /// The last failure, with all its causes, if one happened since the start. It stays after a recovery.
    pub last_error: Option<String>,
    /// Each member, in the order of the configuration.
    pub members: Vec<MemberHealth>,
}

/// How one member of the store's cluster does, as seen from here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemberHealth {
    /// Its address, or the path of the embedded store.
    pub address: String,
    /// Failures since its last success.
    pub failures: u32,
    /// Its last failure.
    pub last_error: Option<String>,
}

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No member answered in time. A write that fails so did not happen.
    #[error("the store is unavailable after {attempts} attempts: {reason}")]
    Unavailable {
        /// How often it was tried, over all members.
        attempts: u32,
        /// The last failure.
        reason: String,
    },
    /// A write was sent, and no answer came: it may have happened, or may not.
    #[error("whether the write happened is unknown after {attempts} attempts: {reason}")]
    OutcomeUnknown {
        /// How often it was tried, over all members.
        attempts: u32,
        /// The last failure.
        reason: String,
    },
    /// The server understood and refuses: credentials, permissions, a full disk. Trying again does not help.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// The request breaks a rule of this interface. It was not sent.
    #[error("not a valid request to the store: {0}")]
    Invalid(String),
    /// The lease that a key shall hang on has ended.
    #[error("the lease has ended")]
    LeaseLost,
    /// A member belongs to another cluster than the one that was first spoken to.
    #[error("{member} belongs to the store {found:x}, not to {expected:x}")]
    Foreign {
        /// The member's address.
        member: String,
        /// The pinned identity.
        expected: u64,
        /// What the member said.
        found: u64,
    },
    /// The options cannot work: a bad address, an unreadable certificate.
    #[error("bad options of the store: {0}")]
    Options(String),
    /// The file of the embedded store cannot be read or written.
    #[error("the store's file failed")]
    File(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// Whether the same request may succeed later. A file that failed is opened anew.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::OutcomeUnknown { .. } | Self::File(_))
    }
}

/// An error with all its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = next.source();
    }
    text
}
