//! Declared resources as they were written, also those that only a later release understands.

use std::collections::BTreeMap;

use eastway_core::resource::{Kind, ResourceId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What tells a stored resource from others; its kind may be a later release's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocumentId {
    /// What it is.
    pub kind: String,
    /// Its namespace; `default` for kinds that lie in none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl From<ResourceId> for DocumentId {
    fn from(ResourceId { kind, namespace, name }: ResourceId) -> Self {
        Self { kind: kind.as_str().to_owned(), namespace, name }
    }
}

impl DocumentId {
    /// The `Peer` of this name.
    pub(crate) fn peer(name: &str) -> Self {
        Self { kind: Kind::Peer.as_str().to_owned(), namespace: "default".to_owned(), name: name.to_owned() }
    }

    /// Of a resource as it is stored.
    pub(crate) fn of(document: &Value) -> Option<Self> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let metadata = document.get("metadata")?;
        Some(Self {
            kind: text(document.get("kind"))?,
            namespace: text(metadata.get("namespace")).unwrap_or_else(|| "default".to_owned()),
            name: text(metadata.get("name"))?,
        })
    }
}

impl std::fmt::Display for DocumentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Resources by what tells them apart.
pub(crate) type Documents = BTreeMap<DocumentId, Value>;
