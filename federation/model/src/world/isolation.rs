//! A cluster that is left alone: its store has no quorum, no other cluster is reached, and its workloads come and go all the same.

use std::collections::{BTreeMap, BTreeSet};

use eastway_core::Health;
use eastway_registry::Key;

use crate::world::names::{self, Host};
use crate::world::nemesis::{AFTERMATH, Fault};
use crate::world::settled::{Truth, expect_equal, shown};
use crate::world::{Event, Stop, World};

/// Sidecars of both clusters: ten for each service in each.
pub(crate) const SIDECARS: usize = 40;
/// Between two workloads that end: of forty, 5 % in a minute.
const CHURN: u64 = 30_000;
/// How long a workload is away at most.
const AWAY: u64 = 60_000;
/// Between two calls.
const CALLS: u64 = 100;
/// Between two looks whether everybody knows everything again.
const LOOKS: u64 = 100;

impl World {
    pub(crate) fn plan_isolation(&mut self, from: u64, long: u64) {
        self.after(from, Event::Fault(Fault::Isolate(long)));
        self.after(from + CHURN, Event::Fault(Fault::Churn));
        self.after(from, Event::Call);
        self.after(from + long + LOOKS, Event::Look);
    }

    pub(crate) fn isolate(&mut self, long: u64) {
        let until = self.now + long;
        self.store_down_until = [until; 2];
        for (from, own) in self.places.iter().enumerate() {
            for (to, _) in self.places.iter().enumerate().filter(|(_, other)| other.cluster != own.cluster) {
                self.network.block(Host::Gateway(from), Host::Gateway(to), until);
            }
        }
        self.deaf_until.fill(until + AFTERMATH);
        (0..2).for_each(|cluster| self.unsettle(cluster, long));
        self.count("clusters isolated");
    }

    pub(crate) fn churn(&mut self, number: usize) {
        // Who went is back before the healing: what begins later is no part of the recovery.
        if self.now + AWAY < self.healed_at {
            self.after(CHURN, Event::Fault(Fault::Churn));
            let away = self.rng.u64(1_000..AWAY);
            let fault = [Fault::CrashSidecar(away), Fault::Goodbye(away), Fault::ReplaceWorkload][self.rng.usize(..3)];
            self.trouble_sidecar(fault, number);
        }
    }

    /// Some sidecar calls some service: one endpoint that it knows to be ready, and if that does not live, another.
    pub(crate) fn call(&mut self) {
        self.after(CALLS, Event::Call);
        let callers: Vec<usize> = (0..self.sidecars.len()).filter(|number| self.sidecars[*number].is_up).collect();
        let caller = callers[self.rng.usize(..callers.len())];
        let service = names::services()[self.rng.usize(..2)].clone();
        // Who has just begun has asked for nothing yet.
        let Some((_, facts)) = self.sidecars[caller].views.get(&service) else { return };
        let ready = facts.endpoints.iter().filter(|view| view.health == Health::Ready);
        let mut known: Vec<_> = ready.map(|view| view.address).collect();
        self.rng.shuffle(&mut known);
        // Who has the address of one that ended has its account, too: it answers for it.
        let answers = |address| self.sidecars.iter().any(|s| s.is_up && s.service == service && s.address == address);
        let succeeds = known.into_iter().take(2).any(answers);
        match succeeds {
            true => self.called.succeeded += 1,
            false => {
                self.called.failed += 1;
                self.note(|| format!("sidecar {caller} calls {service} in vain"));
            }
        }
    }

    /// Notes when everybody knows everything again.
    pub(crate) fn look(&mut self) {
        match self.knows_everything() {
            Ok(()) => self.recovered_ms = Some(self.now - self.healed_at),
            Err(Stop(why)) => {
                self.note(|| format!("not yet: {why}"));
                self.after(LOOKS, Event::Look);
            }
        }
    }

    /// Every gateway knows which endpoints of its cluster are ready, and how many in each zone of the other one, every sidecar what its
    /// gateway does, and the stores all that live.
    fn knows_everything(&self) -> Result<(), Stop> {
        for cluster in 0..2 {
            let truth = self.truth(cluster);
            let listed = self.stores[cluster].slices().flat_map(|(_, slice)| slice.endpoints);
            let listed: BTreeSet<Key> = listed.map(|one| (one.service, one.endpoint)).collect();
            if let Some((key, _)) = truth.iter().find(|(key, _)| !listed.contains(key)) {
                return Err(Stop(format!("store {cluster} does not list {}", key.1)));
            }
            for process in self.processes(cluster)? {
                let Some(core) = self.gateways[process].core.as_deref() else { continue };
                let id = &self.gateways[process].id;
                expect_equal(&format!("{id} and its cluster"), &ready(&truth), &ready(&shown(&core.catalogue)))?;
                let (truth, known) = (self.ready_by_zone(1 - cluster), self.remote_of(process));
                expect_equal(&format!("{id} and the other cluster"), &truth, &known)?;
            }
        }
        self.check_sidecars()
    }

    /// How many endpoints are ready in each zone of a cluster, where any is.
    fn ready_by_zone(&self, cluster: usize) -> BTreeMap<(String, String), u32> {
        let mut ready = BTreeMap::new();
        for (key, (_, health, zone)) in self.truth(cluster) {
            if health == Health::Ready {
                *ready.entry((key.0.service.to_string(), zone)).or_default() += 1;
            }
        }
        ready
    }

    /// The same as a gateway of the other cluster knows it.
    fn remote_of(&self, process: usize) -> BTreeMap<(String, String), u32> {
        let Some(core) = self.gateways[process].core.as_deref() else { return BTreeMap::new() };
        let facts = names::services().map(|service| core.catalogue.facts(&service));
        let remote =
            facts.iter().flatten().flat_map(|facts| facts.remote.iter().map(|remote| (&facts.name, &remote.zone)));
        let serving = remote.filter(|(_, zone)| zone.summary.ready > 0);
        serving
            .map(|(name, zone)| ((name.service.to_string(), zone.zone.zone.to_string()), zone.summary.ready))
            .collect()
    }
}

fn ready(truth: &Truth) -> BTreeSet<&Key> {
    truth.iter().filter(|(_, (_, health, _))| *health == Health::Ready).map(|(key, _)| key).collect()
}
