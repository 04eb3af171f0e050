//! Applied resources in the store: generations, each a whole set.
//!
//! One key says which generation counts, so that a set is taken as a whole or not at all, whatever its size. A generation names
//! parts, which hold the resources of one kind and namespace; those that did not change are shared with the generation before,
//! so that little is written for a small change. A part is never changed once it is written.
//!
//! Resources are kept as they were written: kinds and fields that this release does not know are a later one's.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use eastway_registry::membership::to_json;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::{DocumentId, Documents};
use crate::store::{Commit, Expect, MAX_TXN_OPS, MAX_VALUE, Revision, Store, StoreEntry, StoreError, Txn, keys};

/// Generations that are kept beside the one that counts.
pub(crate) const KEPT: usize = 10;
/// Bytes of a part: far below what a store takes as one value.
const PART: usize = MAX_VALUE / 4;
/// Changes that a generation lists.
const LISTED: usize = 500;

/// What became of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Became {
    /// It is new.
    Created,
    /// It says something else.
    Changed,
    /// It is gone.
    Deleted,
}

/// A resource that a generation changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedDocument {
    /// Which.
    #[serde(flatten)]
    pub id: DocumentId,
    /// What became of it.
    pub became: Became,
}

/// One whole set, and how it came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Counts the sets of this cluster, from 1.
    pub number: u64,
    /// When it was made, in milliseconds since 1970.
    pub at: u64,
    /// By whom, as they say.
    pub by: String,
    /// What differs from the one before. Of a large change, the first ones.
    pub changes: Vec<ChangedDocument>,
    /// Resources that differ.
    pub changed: usize,
    /// The parts that its resources are in.
    pub parts: Vec<String>,
    /// The peers among them that joined by a token, as long as nobody has changed them otherwise.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub joined: BTreeSet<String>,
}

/// Which generation counts.
#[derive(Debug, Serialize, Deserialize)]
struct Current {
    generation: u64,
}

/// Everything that is stored of applied resources.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    /// The generations that are kept, the latest last.
    pub(crate) generations: Vec<Generation>,
    /// Parts by their names.
    parts: BTreeMap<String, Vec<Value>>,
    /// The key that says which generation counts, as it was found.
    current: Option<StoreEntry>,
}

impl Stored {
    /// Reads it, at one revision.
    pub(crate) async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let listing = store.list(keys::CONFIG).await?;
        Self::of(listing.entries.iter()).ok_or_else(|| {
            let what = format!(
                "what is under {} is damaged: restore the store, or delete it all and apply anew",
                keys::CONFIG
            );
            StoreError::Refused(what)
        })
    }

    /// From all entries below [`keys::CONFIG`]. `None` if the set that counts is not whole, as while half of what was written at
    /// once has been told.
    pub(crate) fn of<'a>(entries: impl Iterator<Item = &'a StoreEntry>) -> Option<Self> {
        let mut stored = Self::default();
        let mut number = 0;
        for entry in entries {
            let Some(rest) = entry.key.strip_prefix(keys::CONFIG) else { continue };
            if rest == keys::CONFIG_CURRENT {
                number = serde_json::from_slice(&entry.value).map_or(0, |current: Current| current.generation);
                stored.current = Some(entry.clone());
            } else if rest.starts_with(keys::CONFIG_GENERATIONS) {
                stored.generations.extend(serde_json::from_slice::<Generation>(&entry.value).ok());
            } else if let Some(name) = rest.strip_prefix(keys::CONFIG_PARTS) {
                match serde_json::from_slice(&entry.value) {
                    Ok(documents) => drop(stored.parts.insert(name.to_owned(), documents)),
                    Err(error) => tracing::error!(key = entry.key, %error, "applied resources cannot be read"),
                }
            }
        }
        stored.generations.retain(|generation| generation.number <= number);
        stored.generations.sort_by_key(|generation| generation.number);
        let parts = stored.current().into_iter().flat_map(|generation| &generation.parts);
        let whole = stored.number() == number && parts.into_iter().all(|part| stored.parts.contains_key(part));
        whole.then_some(stored)
    }

    /// The generation that counts; none if nothing was ever applied.
    pub(crate) fn current(&self) -> Option<&Generation> {
        self.generations.last()
    }

    /// The number of the generation that counts, or 0.
    pub(crate) fn number(&self) -> u64 {
        self.current().map_or(0, |generation| generation.number)
    }

    /// The revision of the store at which this set came to count, or 0.
    pub(crate) fn revision(&self) -> Revision {
        self.current.as_ref().map_or(0, |entry| entry.revision)
    }

    /// The generation of this number, if it is kept.
    pub(crate) fn generation(&self, number: u64) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.number == number)
    }

    /// The resources of a generation.
    pub(crate) fn documents(&self, generation: &Generation) -> Documents {
        let parts = generation.parts.iter().filter_map(|part| self.parts.get(part)).flatten();
        parts.filter_map(|document| Some((DocumentId::of(document)?, document.clone()))).collect()
    }

    /// The peers that joined by a token, as far as `documents` leave them as they are.
    pub(crate) fn joined(&self, documents: &Documents) -> BTreeSet<String> {
        let now = self.now();
        let same = |name: &&String| {
            let id = DocumentId::peer(name);
            now.contains_key(&id) && now.get(&id) == documents.get(&id)
        };
        self.current().into_iter().flat_map(|generation| &generation.joined).filter(same).cloned().collect()
    }

    /// The resources that count.
    pub(crate) fn now(&self) -> Documents {
        self.current().map(|generation| self.documents(generation)).unwrap_or_default()
    }

    /// Makes `documents` the set that counts, of which the peers `joined` came by a token, unless another became it since this was
    /// read. `writer` tells apart those that write at the same time.
    pub(crate) async fn replace(
        &self,
        store: &dyn Store,
        documents: &Documents,
        joined: &BTreeSet<String>,
        (by, at, writer): (&str, u64, &str),
    ) -> Result<Option<u64>, StoreError> {
        let number = self.number() + 1;
        let (parts, fresh) = self.divide(documents, number, writer)?;
        for (name, value) in fresh {
            store.put(&keys::config_part(&name), value).await?;
        }
        let mut changes = differences(&self.now(), documents);
        let changed = changes.len();
        changes.truncate(LISTED);
        let joined = joined.clone();
        let generation = Generation { number, at, by: by.to_owned(), changes, changed, parts, joined };
        let key = format!("{}{}", keys::CONFIG, keys::CONFIG_CURRENT);
        let expect = self.current.as_ref().map_or(Expect::Absent, |entry| Expect::At(entry.revision));
        let txn = Txn::new()
            .when(&key, expect)
            .put(&key, to_json(&Current { generation: number }))
            .put(keys::config_generation(number), to_json(&generation));
        let Commit::Applied(_) = store.txn(txn).await? else { return Ok(None) };
        self.forget(store, &generation).await;
        Ok(Some(number))
    }

    /// The parts of a set, and those of them that are not stored yet.
    #[expect(clippy::type_complexity, reason = "names, and names with values")]
    fn divide(
        &self,
        documents: &Documents,
        number: u64,
        writer: &str,
    ) -> Result<(Vec<String>, Vec<(String, Bytes)>), StoreError> {
        let mut known: BTreeMap<Bytes, &String> = BTreeMap::new();
        for name in self.current().into_iter().flat_map(|generation| &generation.parts) {
            if let Some(documents) = self.parts.get(name) {
                known.insert(to_json(documents), name);
            }
        }
        let (mut parts, mut fresh) = (Vec::new(), Vec::new());
        for value in pack(documents)? {
            if let Some(name) = known.get(&value) {
                parts.push((*name).clone());
            } else {
                let name = format!("{number}-{writer}-{}", fresh.len());
                parts.push(name.clone());
                fresh.push((name, value));
            }
        }
        Ok((parts, fresh))
    }

    /// Deletes what no kept generation needs. What is left behind by a failure goes the next time.
    async fn forget(&self, store: &dyn Store, latest: &Generation) {
        let keep_from = (self.generations.len() + 1).saturating_sub(KEPT + 1);
        let (old, kept) = self.generations.split_at(keep_from.min(self.generations.len()));
        let needed: BTreeSet<&String> = kept.iter().chain([latest]).flat_map(|generation| &generation.parts).collect();
        let unneeded = self.parts.keys().filter(|name| !needed.contains(name)).map(|name| keys::config_part(name));
        let gone: Vec<String> =
            old.iter().map(|generation| keys::config_generation(generation.number)).chain(unneeded).collect();
        for some in gone.chunks(MAX_TXN_OPS) {
            let txn = some.iter().fold(Txn::new(), |txn, key| txn.delete(key));
            if let Err(error) = store.txn(txn).await {
                tracing::debug!(%error, "earlier generations of applied resources stay in the store");
                return;
            }
        }
    }
}

/// The values of the parts that hold these resources: those of one kind and namespace together, as far as they fit.
fn pack(documents: &Documents) -> Result<Vec<Bytes>, StoreError> {
    let mut values = Vec::new();
    let mut part: Vec<&Value> = Vec::new();
    let mut bytes = 0;
    let mut place: Option<(&str, &str)> = None;
    for (id, document) in documents {
        let size = document.to_string().len();
        if size > MAX_VALUE - PART {
            let why = format!("{id} has {size} bytes; allowed are {}", MAX_VALUE - PART);
            return Err(StoreError::Invalid(why));
        }
        let here = Some((id.kind.as_str(), id.namespace.as_str()));
        if !part.is_empty() && (place != here || bytes + size > PART) {
            values.push(to_json(&std::mem::take(&mut part)));
            bytes = 0;
        }
        place = here;
        bytes += size;
        part.push(document);
    }
    if !part.is_empty() {
        values.push(to_json(&part));
    }
    Ok(values)
}

/// What differs between two sets.
pub(crate) fn differences(before: &Documents, after: &Documents) -> Vec<ChangedDocument> {
    let mut changes: Vec<ChangedDocument> = Vec::new();
    for (id, document) in after {
        let became = match before.get(id) {
            None => Became::Created,
            Some(known) if known != document => Became::Changed,
            Some(_) => continue,
        };
        changes.push(ChangedDocument { id: id.clone(), became });
    }
    let gone = before.keys().filter(|id| !after.contains_key(id));
    changes.extend(gone.map(|id| ChangedDocument { id: id.clone(), became: Became::Deleted }));
    changes.sort_by(|a, b| a.id.cmp(&b.id));
    changes
}

#[cfg(test)]
mod tests;
