//! One peer cluster: what its gateways stated, in sum, and how they are reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use eastway_core::resource::ClusterMeta;
use eastway_core::view::{PathState, PeerView, Staleness};
use eastway_core::{ServiceName, Timestamp};

use super::addresses::Addresses;
use super::source::{Hearing, Source};
use super::{Cut, Exported, PathFacts, ZoneFacts, bounds, staleness_at};
use crate::resources::PeerPolicy;

/// From which age of its statements on a gateway is not heard, if others of its cluster are; and from which on it counts as silent.
const FALLS_SILENT: Duration = Duration::from_secs(3);
const SILENT: Duration = Duration::from_secs(30);

/// A gateway that was silent for so long while others of its cluster spoke is gone, with all that only it reported.
const FORGET: Duration = Duration::from_secs(900);

/// How many replaced cluster uids are remembered, so that their late messages are dropped.
const RETIRED: usize = 8;

/// The uid of a peer that has not said its own yet: readers of views want one.
const UNHEARD: &str = "unheard";

#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) meta: Option<ClusterMeta>,
    pub(super) retired: Vec<String>,
    pub(super) sources: BTreeMap<String, Source>,
    pub(super) paths: BTreeMap<String, PathFacts>,
    pub(super) addresses: Addresses,
    pub(super) staleness: Staleness,
    /// What sidecars are told of its distance.
    published_rtt: Option<Duration>,
    /// What was left out of what it said.
    pub(super) cut: Cut,
    /// Its name, once for all of its zones.
    name: OnceLock<Arc<str>>,
}

impl Peer {
    /// What a sidecar is told of it as the peer `cluster` that is declared by `policy`.
    pub(super) fn view(&self, cluster: &str, policy: &PeerPolicy) -> PeerView {
        let meta = self.meta.clone().unwrap_or_else(|| ClusterMeta {
            name: cluster.to_owned(),
            uid: UNHEARD.to_owned(),
            region: String::new(),
            trust_domain: String::new(),
            zones: BTreeMap::new(),
        });
        PeerView {
            cluster: ClusterMeta { trust_domain: policy.trust_domain.clone(), ..meta },
            trust_bundle: policy.trust_bundle.clone(),
            path: self.path_state(),
            min_rtt: self.published_rtt,
            staleness: if self.meta.is_some() { self.staleness } else { Staleness::Stale3 },
        }
    }

    /// Its name as the peer `cluster`.
    pub(super) fn name(&self, cluster: &str) -> Arc<str> {
        Arc::clone(self.name.get_or_init(|| cluster.into()))
    }

    pub(super) fn services(&self) -> BTreeSet<ServiceName> {
        self.sources.values().flat_map(Source::services).cloned().collect()
    }

    pub(super) fn is(&self, uid: &str) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.uid == uid)
    }

    pub(super) fn entries(&self) -> usize {
        self.sources.values().map(Source::entries).sum()
    }

    /// As many of a gateway's `services` as there is room for beside those of the others, which `most` is for together.
    pub(super) fn fit(
        &mut self,
        services: BTreeMap<ServiceName, Exported>,
        most: usize,
    ) -> BTreeMap<ServiceName, Exported> {
        let mut room = most.saturating_sub(self.entries());
        let mut kept = BTreeMap::new();
        for (name, exported) in services {
            let Some(left) = room.checked_sub(bounds::entries(&exported)) else {
                self.cut.count("services");
                break;
            };
            room = left;
            kept.insert(name, exported);
        }
        kept
    }

    /// Another cluster took over the name: what the old one said no longer counts.
    pub(super) fn retire(&mut self) {
        if let Some(old) = self.meta.take() {
            self.retired.truncate(RETIRED - 1);
            self.retired.insert(0, old.uid);
        }
        self.sources.clear();
    }

    /// Forgets the gateways that are gone. Returns the services they exported.
    pub(super) fn forget_gone(&mut self) -> BTreeSet<ServiceName> {
        let mut services = BTreeSet::new();
        let Some(newest) = self.sources.values().map(|source| source.heard).max() else { return services };
        self.sources.retain(|_, source| {
            let kept = newest.since(source.heard) < FORGET;
            if !kept {
                services.extend(source.services().cloned());
            }
            kept
        });
        services
    }

    /// Notices which gateways fell silent, and which speak again. Returns the services they export.
    pub(super) fn notice_silence(&mut self) -> BTreeSet<ServiceName> {
        let mut services = BTreeSet::new();
        let Some(newest) = self.sources.values().map(|source| source.heard).max() else { return services };
        for source in self.sources.values_mut() {
            let hearing = match newest.since(source.heard) {
                silent if silent >= SILENT => Hearing::Silent,
                unheard if unheard >= FALLS_SILENT => Hearing::Unheard,
                _ => Hearing::Heard,
            };
            if std::mem::replace(&mut source.hearing, hearing) != hearing {
                services.extend(source.services().cloned());
            }
        }
        services
    }

    pub(super) fn refresh_staleness(&mut self, now: Timestamp) -> bool {
        let Some(heard) = self.sources.values().map(|source| source.heard).max() else { return false };
        let staleness = staleness_at(now.since(heard));
        std::mem::replace(&mut self.staleness, staleness) != staleness
    }

    /// Whether its gateway at `address` answers.
    pub(super) fn answers(&self, address: &str) -> bool {
        self.paths.get(address).is_some_and(|path| matches!(path.state, PathState::Up | PathState::Suspect))
    }

    pub(super) fn path_state(&self) -> PathState {
        let rank = |state: &PathState| match state {
            PathState::Up => 0,
            PathState::Suspect => 1,
            PathState::Unknown => 2,
            PathState::Down => 3,
        };
        self.paths.values().map(|path| path.state).min_by_key(rank).unwrap_or_default()
    }

    /// Takes over what its paths measure. True if that is news.
    ///
    /// A cluster does not move when its paths are down, nor when another gateway takes the place of one that was measured:
    /// what was measured last counts until a path that works has been measured.
    pub(super) fn refresh_rtt(&mut self) -> bool {
        let working = self.paths.values().filter(|path| path.state != PathState::Down);
        let Some(rtt) = working.filter_map(|path| path.min_rtt).min() else { return false };
        let moved = self.published_rtt.is_none_or(|published| noticeable(published, rtt));
        if moved {
            self.published_rtt = Some(rtt);
        }
        moved
    }

    /// The service over all gateways of the cluster.
    pub(super) fn sum(&self, name: &ServiceName) -> Option<Exported> {
        let mut total: Option<Exported> = None;
        let heard = self.sources.values().filter(|source| source.hearing == Hearing::Heard);
        for exported in heard.filter_map(|source| source.exported(name)) {
            total.get_or_insert_with(|| exported.nowhere()).add(exported);
        }
        match self.word_of_siblings(name) {
            // Of gateways that are not heard, those that are know better.
            Some(word) => {
                let unheard = word.beside.holders().filter(|(gateway, _)| !self.hears(gateway));
                for (zone, summary) in unheard.flat_map(|(_, zones)| zones) {
                    let facts = ZoneFacts { summary: summary.clone(), returned: None };
                    total.get_or_insert_with(|| word.nowhere()).add_zone(zone, &facts);
                }
            }
            None => self.add_last_words(&mut total, name),
        }
        total
    }

    /// What gateways said that are not heard any more. One that is silent has most likely lost its sidecars to its siblings: it
    /// counts only where they say nothing, so that nothing is counted twice and nothing is lost.
    fn add_last_words(&self, total: &mut Option<Exported>, name: &ServiceName) {
        let said = |hearing| {
            let sources = self.sources.values().filter(move |source| source.hearing == hearing);
            sources.filter_map(|source| source.exported(name))
        };
        for exported in said(Hearing::Unheard) {
            total.get_or_insert_with(|| exported.nowhere()).add(exported);
        }
        let spoken: BTreeSet<Arc<str>> = total.iter().flat_map(|total| total.zones.keys().cloned()).collect();
        for exported in said(Hearing::Silent) {
            let mut rest = exported.clone();
            rest.zones.retain(|zone, _| !spoken.contains(zone));
            rest.zones.iter_mut().for_each(|(_, facts)| facts.age());
            total.get_or_insert_with(|| exported.nowhere()).add(&rest);
        }
    }

    fn hears(&self, gateway: &str) -> bool {
        self.sources.get(gateway).is_some_and(|source| source.hearing == Hearing::Heard)
    }

    /// The statement of the gateway that was heard last, of those that tell what their siblings have.
    fn word_of_siblings(&self, name: &ServiceName) -> Option<&Exported> {
        let heard = self.sources.values().filter(|source| source.hearing == Hearing::Heard);
        let stated = heard.filter_map(|source| Some((source.heard, source.mirror.get(name)?)));
        let tells = stated.filter(|(_, exported)| exported.beside.is_told());
        tells.max_by_key(|(heard, _)| *heard).map(|(_, exported)| exported)
    }
}

/// Whether a round-trip time moved by more than a tenth and 200 µs: less is not worth a message to every sidecar.
fn noticeable(old: Duration, new: Duration) -> bool {
    new.abs_diff(old) > (old / 10).max(Duration::from_micros(200))
}
