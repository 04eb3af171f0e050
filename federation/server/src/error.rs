//! Why a server does not start.

use crate::store::StoreError;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store refuses.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The store belongs to another cluster.
    #[error("the store belongs to the cluster `{found}`, not to `{expected}`")]
    OtherCluster {
        /// The cluster that it belongs to.
        found: String,
        /// The configured one.
        expected: String,
    },
    /// Another store is behind the address than the one that this gateway had before.
    #[error(
        "the store behind `store` is another one ({found:x}) than this gateway had before ({expected:x}): correct the address, or, if the \
         store was made anew on purpose, delete what is kept of the old one (`state`)"
    )]
    OtherStore {
        /// The identity of the store that answers.
        found: u64,
        /// The one that was there before.
        expected: u64,
    },
    /// The cluster's entry in the store cannot be read.
    #[error("the cluster's entry in the store is damaged")]
    Damaged(#[source] serde_json::Error),
    /// The listener cannot be used.
    #[error("the discovery listener cannot be used")]
    Listener(#[source] std::io::Error),
    /// A file of this gateway declares a resource that was applied.
    #[error(
        "{id} was applied, and {file} declares it, too: `eastway delete` it at another gateway, or remove it from the file"
    )]
    Contested {
        /// The resource.
        id: eastway_core::resource::ResourceId,
        /// The file and line.
        file: String,
    },
}
