//! Stating to a gateway of a peer cluster what is exported to it: the whole, then what changes.
//!
//! For: what is said on one stream, and under which versions; its counterpart at the other end is [`crate::Reader`]. Called by
//! peering (`federation/server`), which sends it.

use std::collections::BTreeMap;

use eastway_core::{ServiceName, Version};

use crate::catalogue::Catalogue;
use crate::reader::Statement;

/// What one stream has told a peer's gateway.
#[derive(Clone, Debug)]
pub struct Exporter {
    cluster: String,
    last: Version,
    /// The number of the last statement on each service.
    services: BTreeMap<ServiceName, u64>,
}

impl Exporter {
    /// A stream to a gateway of `cluster`, which was told nothing yet.
    pub const fn new(cluster: String) -> Self {
        Self { cluster, last: Version::new(0, 0), services: BTreeMap::new() }
    }

    /// The version of the last statement, which heartbeats repeat.
    pub const fn last(&self) -> Version {
        self.last
    }

    /// Everything, to open the stream with: the version for all of it and for the welcome, and the statements.
    pub fn snapshot(&mut self, catalogue: &Catalogue) -> (Version, Vec<Statement>) {
        let (exports, version) = (catalogue.exports_for(&self.cluster), catalogue.export_version());
        self.services = exports.iter().map(|(name, export)| (name.clone(), export.seq)).collect();
        self.last = version;
        let end = Statement::SnapshotEnd(exports.len());
        let services = exports.into_iter().map(|(name, export)| Statement::Service(name, (*export.exported).clone()));
        (version, services.chain([end]).collect())
    }

    /// What changed since the last statement, in the order in which it did.
    pub fn changes(&mut self, catalogue: &Catalogue) -> Vec<(Version, Statement)> {
        let (exports, version) = (catalogue.exports_for(&self.cluster), catalogue.export_version());
        let mut changes: Vec<(u64, Statement)> = Vec::new();
        self.services.retain(|name, _| {
            let kept = exports.contains_key(name);
            if !kept {
                changes.push((version.seq, Statement::Removed(name.clone())));
            }
            kept
        });
        for (name, export) in exports {
            if self.services.insert(name.clone(), export.seq) != Some(export.seq) {
                changes.push((export.seq, Statement::Service(name, (*export.exported).clone())));
            }
        }
        changes.sort_by_key(|(seq, _)| *seq);
        let last = changes.last().map_or(self.last, |(seq, _)| Version::new(version.epoch, *seq));
        self.last = last;
        changes.into_iter().map(|(seq, statement)| (Version::new(version.epoch, seq), statement)).collect()
    }
}
