//! The words in which the cluster's store is spoken to: keys, entries, transactions, and what a reader makes of a watch.
//!
//! For: whoever decides what is written and what is believed of what is read, without speaking to a store
//! ([`crate::membership`]). The stores themselves are in `federation/server`. Never: I/O.

use bytes::Bytes;

pub mod keys;

mod follow;
mod txn;

pub use follow::{Change, Event, Known};
pub use txn::{Commit, Expect, Op, Txn};

/// Counts the changes of a store: each applied transaction has a higher one. The first is at least 1.
pub type Revision = u64;

/// Names a lease. Keys that hang on a lease are deleted when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// One key with its value, as of its last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreEntry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The revision of the last change of this key: what [`Expect::At`] compares with.
    pub revision: Revision,
    /// The lease the key hangs on, if any.
    pub lease: Option<LeaseId>,
}

/// Everything under a prefix at one revision, in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The entries, ordered by key.
    pub entries: Vec<StoreEntry>,
    /// The store's revision that they are a snapshot of: watch after it to miss nothing.
    pub revision: Revision,
}
