//! What must hold once everything has healed and the longest bound is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use eastway_core::{Health, ServiceName};
use eastway_registry::store::keys::{self, Key as StoreKey};
use eastway_registry::{Catalogue, Fact, Key, ServiceFacts, StreamId};

use crate::options;
use crate::world::streams::ageless;
use crate::world::{Stop, World};
use crate::world::{names, views};

/// A fact on its way into a catalogue.
type Told = Box<dyn Fn(&mut Catalogue)>;

/// An endpoint as callers must see it: its incarnation, how it does, and its zone.
pub(crate) type Truth = BTreeMap<Key, (u64, Health, String)>;

impl World {
    pub(crate) fn check_settled(&mut self) -> Result<(), Stop> {
        for cluster in 0..2 {
            let truth = self.truth(cluster);
            for process in self.processes(cluster)? {
                self.check_own(process, &truth)?;
                self.check_others(process, 1 - cluster)?;
            }
            self.check_slices(cluster, &truth)?;
            self.check_orders(cluster, &truth)?;
        }
        self.check_sidecars()
    }

    pub(crate) fn truth(&self, cluster: usize) -> Truth {
        let living = self.sidecars.iter().filter(|sidecar| sidecar.cluster == cluster && sidecar.is_up);
        living.map(|s| (s.key(), (s.incarnation, s.health, s.zone.to_owned()))).collect()
    }

    /// The processes of a cluster, each of which must run.
    pub(crate) fn processes(&self, cluster: usize) -> Result<Vec<usize>, Stop> {
        let places = (0..self.places.len()).filter(|place| self.places[*place].cluster == cluster);
        let places = places.filter(|place| !self.abandoned.contains(place));
        places
            .map(|place| {
                let process = self.running[place].filter(|process| self.gateways[*process].core.is_some());
                process.ok_or_else(|| Stop(format!("after healing, {} does not run", self.places[place].id)))
            })
            .collect()
    }

    fn check_own(&self, process: usize, truth: &Truth) -> Result<(), Stop> {
        let Some(core) = self.gateways[process].core.as_deref() else { return Ok(()) };
        expect_equal(
            &format!("14, the view of {} equals the truth", self.gateways[process].id),
            truth,
            &shown(&core.catalogue),
        )
    }

    /// The mirrors of the other cluster's gateways equal what those state, and their sum the truth.
    fn check_others(&self, process: usize, other: usize) -> Result<(), Stop> {
        let Some(core) = self.gateways[process].core.as_deref() else { return Ok(()) };
        let (id, own) = (&self.gateways[process].id, self.gateways[process].cluster);
        let mirrors = core.catalogue.mirrors(&names::cluster_name(other));
        for source in self.processes(other)? {
            let Some(theirs) = self.gateways[source].core.as_deref() else { continue };
            let stated = theirs.catalogue.exports_for(&names::cluster_name(own)).into_iter();
            let stated: BTreeMap<ServiceName, _> =
                stated.map(|(name, export)| (name, (&ageless(&export.exported)).into())).collect();
            let gateway = &self.gateways[source].id;
            let mirror = mirrors.iter().find(|mirror| mirror.gateway == *gateway);
            let mirrored = mirror.map(|mirror| mirror.services.clone()).unwrap_or_default();
            expect_equal(&format!("16, the mirror of {gateway} at {id} equals its source"), &stated, &mirrored)?;
        }
        let is_complete = self.abandoned.iter().all(|place| self.places[*place].cluster != other);
        let mut ready: BTreeMap<(String, String), u32> = BTreeMap::new();
        for (key, (_, health, zone)) in self.truth(other) {
            *ready.entry((key.0.service.to_string(), zone)).or_default() += u32::from(health == Health::Ready);
        }
        let mut found = BTreeMap::new();
        for service in names::services() {
            let facts = core.catalogue.facts(&service);
            for remote in facts.iter().flat_map(|facts| &facts.remote) {
                // What only a gateway that is gone ever stated stays for 15 minutes, as the last choice.
                if is_complete || remote.zone.summary.ready > 0 {
                    let zone = (service.service.to_string(), remote.zone.zone.zone.to_string());
                    found.insert(zone, remote.zone.summary.ready);
                }
            }
        }
        ready.retain(|zone, count| is_complete && found.contains_key(zone) || *count > 0);
        let of = |mirror: &eastway_registry::StoredMirror| {
            let zones = mirror.services.iter().flat_map(|(name, export)| {
                export.zones.iter().map(move |(zone, s)| format!("{}/{zone}: {} of {}", name.service, s.ready, s.total))
            });
            format!("{}: {}", mirror.gateway, zones.collect::<Vec<_>>().join(", "))
        };
        let stated: Vec<String> = mirrors.iter().map(of).collect();
        let rule = format!(
            "after healing, {id} sees how many endpoints are ready in the other cluster, which states {stated:?}"
        );
        expect_equal(&rule, &ready, &found)
    }

    /// The store lists every living endpoint once, and nothing else.
    fn check_slices(&self, cluster: usize, truth: &Truth) -> Result<(), Stop> {
        let mut listed = BTreeMap::new();
        for (gateway, slice) in self.stores[cluster].slices() {
            if slice.endpoints.len() > options(None).slice_size {
                return Err(Stop(format!("a slice of {gateway} lists {} endpoints", slice.endpoints.len())));
            }
            for registration in slice.endpoints {
                let key = (registration.service.clone(), registration.endpoint.clone());
                listed.entry(key).or_insert_with(Vec::new).push(registration.incarnation);
            }
        }
        let living = truth.iter().map(|(key, (incarnation, ..))| (key.clone(), vec![*incarnation])).collect();
        expect_equal(&format!("after healing, store {cluster} lists who lives, once"), &living, &listed)
    }

    /// A sidecar sees what its gateway does.
    pub(crate) fn check_sidecars(&self) -> Result<(), Stop> {
        for (number, sidecar) in self.sidecars.iter().enumerate().filter(|(_, sidecar)| sidecar.is_up) {
            let stream = sidecar.stream.as_ref().filter(|stream| stream.is_accepted);
            let core = stream.and_then(|stream| self.gateways[stream.process].core.as_deref());
            let Some(core) = core else {
                return Err(Stop(format!("after healing, sidecar {number} is registered nowhere")));
            };
            for service in names::services() {
                let expected = core.catalogue.facts(&service).map(|facts| views::ageless(&facts));
                let found = sidecar.views.get(&service).map(|(_, facts)| facts.clone());
                expect_equal(&format!("sidecar {number} sees what its gateway does of {service}"), &expected, &found)?;
            }
        }
        Ok(())
    }

    /// The same facts in any order make equal views.
    fn check_orders(&mut self, cluster: usize, truth: &Truth) -> Result<(), Stop> {
        let first = self.fed_in_some_order(cluster)?;
        let second = self.fed_in_some_order(cluster)?;
        let facts = |catalogue: &Catalogue| -> BTreeMap<ServiceName, Option<ServiceFacts>> {
            let of = |name: ServiceName| (name.clone(), catalogue.facts(&name).map(|facts| views::ageless(&facts)));
            names::services().map(of).into()
        };
        expect_equal("14, the same facts in any order make equal views", &facts(&first), &facts(&second))?;
        expect_equal("14, the facts of all gateways make the truth", truth, &shown(&first))
    }

    fn fed_in_some_order(&mut self, cluster: usize) -> Result<Catalogue, Stop> {
        let now = eastway_core::Timestamp::from_millis(1_000_000);
        let (own, others) = (self.processes(cluster)?, self.processes(1 - cluster)?);
        let Some(meta) = own.first().and_then(|first| self.gateways[*first].core.as_deref()) else {
            return Err(Stop("a cluster has no gateway".to_owned()));
        };
        let mut catalogue = Catalogue::new(meta.catalogue.meta().clone(), "observer", 1, options(None));
        catalogue.set_resources(names::resources(cluster), now);
        let mut facts: Vec<Told> = Vec::new();
        for entry in self.stores[cluster].list(keys::SERVICES).entries {
            let Some(StoreKey::Slice { service, gateway, index }) = StoreKey::parse(&entry.key) else { continue };
            let slice: Option<eastway_registry::Slice> = serde_json::from_slice(&entry.value).ok();
            facts.push(Box::new(move |c| c.load_slice(&gateway, &service, index, slice.clone(), now)));
        }
        for process in own {
            let Some(core) = self.gateways[process].core.as_deref() else { continue };
            let (id, (version, states)) = (self.gateways[process].id.clone(), core.catalogue.statements());
            let stream = StreamId(process as u64);
            let registered = id.clone();
            facts.push(Box::new(move |c| c.gateway_registered(&registered, now)));
            facts.push(Box::new(move |c| {
                c.sibling_facts(stream, &id, version.epoch, [Fact::Snapshot(version, states.clone())], now);
            }));
        }
        for process in others {
            let Some(core) = self.gateways[process].core.as_deref() else { continue };
            let (id, meta) = (self.gateways[process].id.clone(), core.catalogue.meta().clone());
            let version = core.catalogue.export_version();
            let exports = core.catalogue.exports_for(&names::cluster_name(cluster)).into_iter();
            let services: BTreeMap<_, _> = exports.map(|(name, export)| (name, ageless(&export.exported))).collect();
            facts.push(Box::new(move |c| {
                c.peer_fact(&meta, &id, version.epoch, Fact::Snapshot(version, services.clone()), now);
            }));
        }
        self.rng.shuffle(&mut facts);
        facts.iter().for_each(|fact| fact(&mut catalogue));
        Ok(catalogue)
    }
}

/// The endpoints that a catalogue shows to callers.
pub(crate) fn shown(catalogue: &Catalogue) -> Truth {
    let mut shown = Truth::new();
    for service in names::services() {
        let facts: Option<Arc<ServiceFacts>> = catalogue.facts(&service);
        for view in facts.iter().flat_map(|facts| &facts.endpoints) {
            let endpoint = (view.incarnation, view.health, view.zone.to_string());
            shown.insert((service.clone(), view.id.clone()), endpoint);
        }
    }
    shown
}

/// Compares two maps, and names what is only in one of them.
pub(crate) fn expect_equal<T: PartialEq + std::fmt::Debug>(rule: &str, expected: &T, found: &T) -> Result<(), Stop> {
    if expected == found {
        Ok(())
    } else {
        Err(Stop(format!("{rule}:\n  expected {expected:?}\n  found    {found:?}")))
    }
}
