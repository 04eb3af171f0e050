//! What this gateway exports: the endpoints that it has from the source, in sum, with versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use eastway_core::view::{EndpointView, ServiceSpec};
use eastway_core::{LoadReport, ServiceName, Timestamp, Version};

use litemap::LiteMap;

use super::{Candidates, Catalogue, Known};
use crate::peers::{Beside, Exported, Holders, ZoneFacts};
use crate::registration::KnownEndpoint;
use crate::zones::summarise;

/// The own statements.
#[derive(Debug)]
pub(super) struct Exports {
    epoch: u64,
    seq: u64,
    services: BTreeMap<ServiceName, Stated>,
}

#[derive(Debug)]
struct Stated {
    seq: u64,
    /// To whom it is offered.
    to: Vec<String>,
    exported: Arc<Exported>,
}

/// One service as it is exported to one peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// The sequence number of its last change.
    pub seq: u64,
    /// The statement.
    pub exported: Arc<Exported>,
}

impl Exports {
    pub(super) const fn new(epoch: u64) -> Self {
        Self { epoch, seq: 0, services: BTreeMap::new() }
    }
}

impl Catalogue {
    /// The version of the latest change of what is exported.
    pub const fn export_version(&self) -> Version {
        Version::new(self.exports.epoch, self.exports.seq)
    }

    /// What is exported to the peer cluster `cluster`.
    pub fn exports_for(&self, cluster: &str) -> BTreeMap<ServiceName, Export> {
        let offered = |stated: &&Stated| stated.to.iter().any(|to| to == "*" || to == cluster);
        let export = |stated: &Stated| Export { seq: stated.seq, exported: Arc::clone(&stated.exported) };
        let stated = self.exports.services.iter().filter(|(_, stated)| offered(stated));
        stated.map(|(name, stated)| (name.clone(), export(stated))).collect()
    }

    /// Brings up to date what the statements say of loads (utilisation, error rates) and of siblings. They move all the time,
    /// and a statement each time would be a storm: call it once a second.
    pub fn refresh_statements(&mut self, now: Timestamp) {
        let names: Vec<ServiceName> = self.exports.services.keys().cloned().collect();
        for name in names {
            let fresh = self.summarise(&name, now);
            let Some(stated) = self.exports.services.get_mut(&name) else { continue };
            if moved(&stated.exported, &fresh) {
                self.exports.seq += 1;
                stated.seq = self.exports.seq;
                stated.exported = Arc::new(fresh);
                self.changes.exports = true;
            }
        }
    }

    /// States a service anew, if something but its loads changed.
    pub(super) fn export(&mut self, name: &ServiceName, now: Timestamp) {
        let to = self.resources.services.get(name).map(|service| service.export.clone()).unwrap_or_default();
        let stated = self.exports.services.get(name);
        if to.is_empty() {
            if stated.is_some() {
                self.exports.services.remove(name);
                self.exports.seq += 1;
                self.changes.exports = true;
            }
            return;
        }
        let fresh = self.summarise(name, now);
        if stated.is_some_and(|stated| stated.to == to && same_but_loads(&stated.exported, &fresh)) {
            return;
        }
        self.exports.seq += 1;
        let stated = Stated { seq: self.exports.seq, to, exported: Arc::new(fresh) };
        self.exports.services.insert(name.clone(), stated);
        self.changes.exports = true;
    }

    fn summarise(&self, name: &ServiceName, now: Timestamp) -> Exported {
        // The rest is for the callers of this cluster, and nobody else's affair.
        let ServiceSpec { ports, accounts, .. } = self.resources.spec(name);
        let nowhere =
            Exported { ports: ports.into(), accounts, zones: LiteMap::new(), beside: Beside::told(Holders::new()) };
        let Some(known) = self.services.get(name) else { return nowhere };
        let returned = known.zones.returned(now, self.options.returned_for);
        let zones = summarise(known.own()).into_iter();
        let zones = zones.map(|(zone, summary)| {
            let returned = returned.get(&zone).copied();
            (zone, ZoneFacts { summary, returned })
        });
        // How loaded they are, who has them says.
        let has = |(gateway, views): (_, Vec<&EndpointView>)| {
            (gateway, summarise(views.into_iter().map(|view| (view, None))).into_iter().collect())
        };
        let beside = Beside::told(known.beside().into_iter().map(has).collect());
        Exported { zones: zones.collect(), beside, ..nowhere }
    }
}

impl Known {
    /// The endpoints of which this gateway's own statement counts.
    fn own(&self) -> impl Iterator<Item = (&EndpointView, Option<LoadReport>)> {
        let own = self.endpoints.values().filter_map(|candidates| candidates.counting());
        own.map(|entry| (&*entry.view, entry.load))
    }

    /// The other endpoints, by the gateway that has each from the source.
    fn beside(&self) -> BTreeMap<Arc<str>, Vec<&EndpointView>> {
        let mut beside: BTreeMap<Arc<str>, Vec<&EndpointView>> = BTreeMap::new();
        for candidates in self.endpoints.values().filter(|candidates| candidates.counting().is_none()) {
            let Some(best) = candidates.best() else { continue };
            let Some(gateway) = candidates.gateway_of(best) else { continue };
            beside.entry(Arc::clone(gateway)).or_default().push(&best.view);
        }
        beside
    }
}

impl Candidates {
    /// The own statement, if that counts.
    fn counting(&self) -> Option<&KnownEndpoint> {
        let own = self.own.as_ref()?;
        (self.best()?.registration.version() == own.registration.version()).then_some(own)
    }
}

/// Whether two statements differ in their loads at most, and in what they say of siblings: those say it themselves, at once.
fn same_but_loads(a: &Exported, b: &Exported) -> bool {
    let mut zones = a.zones.iter().zip(&b.zones);
    (&a.ports, &a.accounts) == (&b.ports, &b.accounts)
        && a.zones.len() == b.zones.len()
        && zones.all(|((name, zone), (other, facts))| name == other && without_loads(zone) == without_loads(facts))
}

fn without_loads(zone: &ZoneFacts) -> ZoneFacts {
    let mut zone = zone.clone();
    (zone.summary.utilisation, zone.summary.error_rate) = (None, 0.0);
    zone
}

/// Whether the loads moved by more than a hundredth, or siblings have something else.
fn moved(a: &Exported, b: &Exported) -> bool {
    a.beside != b.beside
        || b.zones.iter().any(|(zone, facts)| a.zones.get(zone).is_none_or(|before| load_moved(before, facts)))
}

fn load_moved(before: &ZoneFacts, after: &ZoneFacts) -> bool {
    let (old, new) = (&before.summary, &after.summary);
    let utilisation = match (old.utilisation, new.utilisation) {
        (Some(old), Some(new)) => (old - new).abs() > 0.01,
        (old, new) => old != new,
    };
    utilisation || (old.error_rate - new.error_rate).abs() > 0.01
}
