//! Forming a service's view from what is known of it.

use std::sync::Arc;

use eastway_core::{ServiceName, Timestamp};

use super::{Catalogue, Known};
use crate::facts::ServiceFacts;

impl Catalogue {
    /// Forms the view of `name` anew, and notes what changed.
    pub(super) fn reform(&mut self, name: &ServiceName, now: Timestamp) {
        let (remote_ports, mut remote) = self.peers.remote(name, &self.resources);
        let declared = self.resources.services.contains_key(name);
        let has_endpoints = self.services.get(name).is_some_and(|known| !known.endpoints.is_empty());
        if !declared && !has_endpoints && remote_ports.is_none() {
            self.vanish(name, now);
            return;
        }
        let mut spec = self.resources.spec(name);
        // By what is missing here, callers learn that this cluster does not offer it.
        spec.export = (declared || has_endpoints).then(|| self.resources.inbound(name).export);
        // Ports that nobody declared here are those of the cluster that does serve it.
        if let Some(ports) = remote_ports.filter(|_| !declared) {
            spec.ports = ports.to_vec();
        }
        let known = self.services.entry(name.clone()).or_default();
        let mut endpoints: Vec<_> = known
            .endpoints
            .values()
            .filter_map(|candidates| candidates.best())
            .map(|entry| Arc::clone(&entry.view))
            .collect();
        // Its account is most often the same everywhere.
        if let Some(first) = remote.first().filter(|remote| remote.zone.accounts == spec.accounts) {
            spec.accounts = Arc::clone(&first.zone.accounts);
        }
        // Most services have few endpoints and zones, and there are many services.
        endpoints.shrink_to_fit();
        remote.shrink_to_fit();
        known.vanished = None;
        let stated: Vec<_> = known.endpoints.iter().map(|(id, candidates)| (id.clone(), candidates.state())).collect();
        known.zones.observe(endpoints.iter(), now);
        let returned = known.zones.returned(now, self.options.returned_for);
        let facts = ServiceFacts { name: name.clone(), spec, endpoints, remote, returned };
        if known.facts.as_deref() != Some(&facts) {
            known.facts = Some(Arc::new(facts));
            self.changes.services.insert(name.clone());
        }
        self.state_service(name, stated);
        self.export(name, now);
    }

    /// The service is gone from every cluster. Its zones are remembered while they may still return.
    fn vanish(&mut self, name: &ServiceName, now: Timestamp) {
        self.state_service(name, Vec::new());
        if let Some(known) = self.services.get_mut(name) {
            known.zones.observe(std::iter::empty(), now);
            known.vanished.get_or_insert(now);
            if known.facts.take().is_some() {
                self.changes.services.insert(name.clone());
            }
        }
        self.export(name, now);
    }

    /// Returns that are old enough are no longer published.
    pub(super) fn expire_returns(&mut self, now: Timestamp) {
        let published = self.options.returned_for;
        let expired = |known: &Known| {
            let facts = known.facts.as_ref();
            facts.is_some_and(|facts| facts.returned.values().any(|at| now.since(*at) >= published))
        };
        self.touched.extend(self.services.iter().filter(|(_, known)| expired(known)).map(|(name, _)| name.clone()));
    }
}
