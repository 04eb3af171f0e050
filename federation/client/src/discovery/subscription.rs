//! One followed service: what the gateways said of it, and what is held of what they no longer say.
//!
//! A gateway is believed within a stream. After a reconnect it may be another gateway, or one that has just started:
//! what then misses half of the service or more is held for a while. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::{EndpointView, ServiceSpec, ServiceView};
use eastway_core::{ServiceName, Timestamp};
use eastway_registry::facts::{Delta, RemoteFacts, ServiceFacts};

/// How long returns from failure are handed on; longer than any ramp.
const RETURNED_FOR: Duration = Duration::from_secs(60);

/// One followed service.
#[derive(Debug)]
pub(super) struct Subscription {
    /// As the gateway of the current stream said, or the last one.
    facts: Option<ServiceFacts>,
    held: Option<Held>,
    /// The gateway of the current stream has spoken of it.
    stated: bool,
    /// Since when no cluster is known to offer it.
    unknown_since: Option<Timestamp>,
    last_used: Timestamp,
}

#[derive(Debug)]
struct Held {
    name: ServiceName,
    spec: ServiceSpec,
    endpoints: Vec<Arc<EndpointView>>,
    remote: Vec<RemoteFacts>,
    until: Timestamp,
}

impl Subscription {
    /// Nothing is known yet.
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { facts: None, held: None, stated: false, unknown_since: None, last_used: now }
    }

    /// From the last view on disk.
    pub(super) fn restored(facts: ServiceFacts, now: Timestamp) -> Self {
        Self { facts: Some(facts), ..Self::new(now) }
    }

    pub(super) const fn used(&mut self, now: Timestamp) {
        self.last_used = now;
    }

    /// The stream ended; the next one starts from whole views.
    pub(super) const fn disconnected(&mut self) {
        self.stated = false;
    }

    /// The gateway stated the whole service.
    pub(super) fn snapshot(&mut self, facts: ServiceFacts, now: Timestamp, hold: Duration) {
        let first = !self.stated;
        if let Some(past) = self.effective().filter(|_| first) {
            self.held = Held::missing(past, Some(&facts), now + hold);
        } else {
            self.held = None;
        }
        (self.facts, self.stated, self.unknown_since) = (Some(facts), true, None);
    }

    /// The gateway stated a difference to the whole that it stated before.
    pub(super) fn delta(&mut self, delta: Delta) {
        if let Some(facts) = &mut self.facts {
            facts.apply(delta);
        }
    }

    /// The gateway knows no cluster that offers the service.
    pub(super) fn unknown(&mut self, now: Timestamp, hold: Duration) {
        let first = !self.stated;
        self.held = self.effective().filter(|_| first).and_then(|past| Held::missing(past, None, now + hold));
        self.facts = None;
        self.unknown_since = Some(now);
    }

    /// Time passes. True if the view changed.
    pub(super) fn tick(&mut self, now: Timestamp) -> bool {
        self.held.take_if(|held| now >= held.until).is_some()
    }

    /// Whether there is a view.
    pub(super) const fn is_known(&self) -> bool {
        self.facts.is_some() || self.held.is_some()
    }

    /// Whether a gateway said that nobody offers it.
    pub(super) const fn is_unknown(&self) -> bool {
        !self.is_known() && self.unknown_since.is_some()
    }

    /// Whether it need not be followed any longer.
    pub(super) fn is_over(&self, now: Timestamp, unused_after: Duration, negative_ttl: Duration) -> bool {
        let forgotten = self.is_unknown() && self.unknown_since.is_some_and(|since| now.since(since) >= negative_ttl);
        forgotten || now.since(self.last_used) >= unused_after
    }

    /// What callers should believe, with ages as of `now`.
    pub(super) fn view(&self, now: Timestamp) -> Option<ServiceView> {
        match (&self.facts, &self.held) {
            (Some(facts), None) => Some(facts.at(now, RETURNED_FOR)),
            _ => self.effective().map(|facts| facts.at(now, RETURNED_FOR)),
        }
    }

    fn effective(&self) -> Option<ServiceFacts> {
        let Some(held) = &self.held else { return self.facts.clone() };
        let mut facts = self.facts.clone().unwrap_or_else(|| held.alone());
        let stated: BTreeSet<_> = facts.endpoints.iter().map(|endpoint| endpoint.id.clone()).collect();
        facts.endpoints.extend(held.endpoints.iter().filter(|e| !stated.contains(&e.id)).cloned());
        facts.endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        let stated: BTreeSet<_> = facts.remote.iter().map(|facts| facts.zone.zone.clone()).collect();
        facts.remote.extend(held.remote.iter().filter(|r| !stated.contains(&r.zone.zone)).cloned());
        facts.remote.sort_by(|a, b| a.zone.zone.cmp(&b.zone.zone));
        Some(facts)
    }
}

impl Held {
    /// What `past` had and `present` has not, if that is half or more of the endpoints or of the zones.
    fn missing(past: ServiceFacts, present: Option<&ServiceFacts>, until: Timestamp) -> Option<Self> {
        let (endpoints, zones) = (past.endpoints.len(), past.remote.len());
        let has_endpoint = |e: &Arc<EndpointView>| present.is_some_and(|p| p.endpoints.iter().any(|o| o.id == e.id));
        let has_zone = |r: &RemoteFacts| present.is_some_and(|p| p.remote.iter().any(|o| o.zone.zone == r.zone.zone));
        let mut missing: Vec<_> = past.endpoints.into_iter().filter(|endpoint| !has_endpoint(endpoint)).collect();
        let mut zones_missing: Vec<_> = past.remote.into_iter().filter(|zone| !has_zone(zone)).collect();
        if missing.len() * 2 < endpoints {
            missing.clear();
        }
        if zones_missing.len() * 2 < zones {
            zones_missing.clear();
        }
        let any = !missing.is_empty() || !zones_missing.is_empty();
        any.then_some(Self { name: past.name, spec: past.spec, endpoints: missing, remote: zones_missing, until })
    }

    fn alone(&self) -> ServiceFacts {
        ServiceFacts {
            name: self.name.clone(),
            spec: self.spec.clone(),
            endpoints: Vec::new(),
            remote: Vec::new(),
            returned: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests;
