//! What is believed of the slices that are read: own ones are compared with what they should be, those of siblings taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::SliceName;
use super::writer::own_slice;
use crate::Slice;
use crate::store::keys::Key;
use crate::store::{Change, Known, StoreEntry};

/// What to make of a change in the store.
#[derive(Clone, Debug, PartialEq)]
pub enum SliceNews {
    /// An own slice is seen to be this in the store: [`super::Writer::suspect`] it.
    Own(SliceName, Option<StoreEntry>),
    /// A gateway's slice is this now: [`crate::Catalogue::load_slice`] it. `None`: it was deleted.
    Slice {
        /// The gateway that has its endpoints from the source.
        gateway: String,
        /// Which slice of it.
        slice: SliceName,
        /// What it holds.
        content: Option<Slice>,
    },
    /// Following began, or the position was lost, and with it what befell the own slices before: [`super::Writer::doubt`] the
    /// store.
    Doubt,
}

/// A slice whose content is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("the slice `{key}` cannot be read")]
pub struct UnreadableSlice {
    /// Its key.
    pub key: String,
    #[source]
    cause: serde_json::Error,
}

/// Reads the slices of one gateway's cluster.
#[derive(Clone, Debug)]
pub struct SliceReader {
    gateway: Arc<str>,
    /// The keys of siblings that were loaded before following began: what went in between was told by nobody.
    loaded: BTreeSet<String>,
}

impl SliceReader {
    /// A reader for `gateway`.
    pub fn new(gateway: impl Into<Arc<str>>) -> Self {
        Self { gateway: gateway.into(), loaded: BTreeSet::new() }
    }

    /// An entry that is loaded at the start, before following begins: own ones are believed, too, because no sidecar has
    /// spoken yet.
    ///
    /// # Errors
    /// It cannot be read, and is left out.
    pub fn load(&mut self, entry: &StoreEntry) -> Result<Option<SliceNews>, UnreadableSlice> {
        if own_slice(&self.gateway, &entry.key).is_none() {
            self.loaded.insert(entry.key.clone());
        }
        read(entry)
    }

    /// A change while the slices are followed, after which they are `known`.
    ///
    /// # Errors
    /// A slice cannot be read, and stays what it was.
    pub fn change(&mut self, change: Change, known: &Known) -> Result<Vec<SliceNews>, UnreadableSlice> {
        Ok(match change {
            Change::Put(entry) => match own_slice(&self.gateway, &entry.key) {
                Some(slice) => vec![SliceNews::Own(slice, Some(entry))],
                None => read(&entry)?.into_iter().collect(),
            },
            Change::Delete(entry) => match own_slice(&self.gateway, &entry.key) {
                Some(slice) => vec![SliceNews::Own(slice, None)],
                None => deleted(&entry.key).into_iter().collect(),
            },
            Change::Ready(_) => {
                let loaded = std::mem::take(&mut self.loaded);
                let gone = loaded.iter().filter(|key| !known.entries().contains_key(*key));
                // What befell own slices before that was told by nobody either.
                gone.filter_map(|key| deleted(key)).chain([SliceNews::Doubt]).collect()
            }
            Change::Relisted(_) => vec![SliceNews::Doubt],
        })
    }
}

fn read(entry: &StoreEntry) -> Result<Option<SliceNews>, UnreadableSlice> {
    let Some(Key::Slice { service, gateway, index }) = Key::parse(&entry.key) else { return Ok(None) };
    let content = serde_json::from_slice(&entry.value);
    let content = content.map_err(|cause| UnreadableSlice { key: entry.key.clone(), cause })?;
    Ok(Some(SliceNews::Slice { gateway, slice: (service, index), content: Some(content) }))
}

fn deleted(key: &str) -> Option<SliceNews> {
    let Key::Slice { service, gateway, index } = Key::parse(key)? else { return None };
    Some(SliceNews::Slice { gateway, slice: (service, index), content: None })
}
