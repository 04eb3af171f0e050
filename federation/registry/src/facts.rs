//! A service's view without its ages, so that two of them can be compared, and differences sent.
//!
//! For: the sending gateway (what changed since this subscriber last heard?) and the receiving sidecar (what is true
//! now?). Ages ("returned 3 s ago") are kept as instants of the holder's own time line: they are turned into durations
//! only when a view is handed out. Never: deciding anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::{EndpointView, RemoteZone, ServiceSpec, ServiceView};
use eastway_core::{EndpointId, ServiceName, Timestamp};

/// The view of a service, with instants in the place of ages.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceFacts {
    /// Which service.
    pub name: ServiceName,
    /// How it is reached.
    pub spec: ServiceSpec,
    /// The endpoints of the own cluster, ordered by id.
    pub endpoints: Vec<Arc<EndpointView>>,
    /// The zones of other clusters, ordered by zone.
    pub remote: Vec<RemoteFacts>,
    /// When zones of the own cluster returned from failure.
    pub returned: BTreeMap<Arc<str>, Timestamp>,
}

/// A zone of another cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteFacts {
    /// The zone; its `returned_ago` is always `None`.
    pub zone: RemoteZone,
    /// When it returned from failure.
    pub returned: Option<Timestamp>,
}

/// What turns one state of a service into another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// The new spec, if it changed.
    pub spec: Option<ServiceSpec>,
    /// Endpoints that are new or changed.
    pub upsert: Vec<Arc<EndpointView>>,
    /// Endpoints that are gone.
    pub remove: Vec<EndpointId>,
    /// All zones of other clusters, if any changed.
    pub remote: Option<Vec<RemoteFacts>>,
    /// All returns of own zones, if any changed.
    pub returned: Option<BTreeMap<Arc<str>, Timestamp>>,
}

impl ServiceFacts {
    /// The facts in a view that is handed in at `now`.
    pub fn from_view(view: ServiceView, now: Timestamp) -> Self {
        let ServiceView { name, spec, mut endpoints, remote, returned } = view;
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        let mut remote: Vec<_> = remote.into_iter().map(|zone| RemoteFacts::from_zone(zone, now)).collect();
        remote.sort_by(|a, b| a.zone.zone.cmp(&b.zone.zone));
        let returned = returned.into_iter().map(|(zone, ago)| (zone, now.before(ago))).collect();
        Self { name, spec, endpoints, remote, returned }
    }

    /// The view as of `now`. Returns that are older than `published` are left out.
    pub fn at(&self, now: Timestamp, published: Duration) -> ServiceView {
        let recent = |at: &Timestamp| Some(now.since(*at)).filter(|ago| *ago < published);
        let age = |facts: &RemoteFacts| {
            let mut zone = facts.zone.clone();
            zone.summary.returned_ago = facts.returned.as_ref().and_then(recent);
            zone
        };
        ServiceView {
            name: self.name.clone(),
            spec: self.spec.clone(),
            endpoints: self.endpoints.clone(),
            remote: self.remote.iter().map(age).collect(),
            returned: self.returned.iter().filter_map(|(zone, at)| Some((Arc::clone(zone), recent(at)?))).collect(),
        }
    }

    /// What leads from `self` to `next`; `None` if they are equal.
    pub fn delta_to(&self, next: &Self) -> Option<Delta> {
        let mut delta = Delta::default();
        let mut old = self.endpoints.iter().peekable();
        for endpoint in &next.endpoints {
            while let Some(gone) = old.next_if(|o| o.id < endpoint.id) {
                delta.remove.push(gone.id.clone());
            }
            match old.next_if(|o| o.id == endpoint.id) {
                Some(known) if Arc::ptr_eq(known, endpoint) || known == endpoint => {}
                _ => delta.upsert.push(Arc::clone(endpoint)),
            }
        }
        delta.remove.extend(old.map(|gone| gone.id.clone()));
        delta.spec = (self.spec != next.spec).then(|| next.spec.clone());
        delta.remote = (self.remote != next.remote).then(|| next.remote.clone());
        delta.returned = (self.returned != next.returned).then(|| next.returned.clone());
        (delta != Delta::default()).then_some(delta)
    }

    /// The same with as many of the first endpoints as have room in a message of about `limit` bytes; `None` if all have.
    pub fn first_part(&self, limit: usize) -> Option<Self> {
        let count = that_fit(&self.endpoints, limit);
        (count < self.endpoints.len())
            .then(|| Self { endpoints: self.endpoints[..count].to_vec(), ..self.without_endpoints() })
    }

    fn without_endpoints(&self) -> Self {
        Self {
            name: self.name.clone(),
            spec: self.spec.clone(),
            endpoints: Vec::new(),
            remote: self.remote.clone(),
            returned: self.returned.clone(),
        }
    }

    /// Takes a difference over. Unknown endpoints to remove are ignored.
    pub fn apply(&mut self, delta: Delta) {
        let endpoints = &mut self.endpoints;
        let place =
            |endpoints: &[Arc<EndpointView>], id: &EndpointId| endpoints.binary_search_by(|known| known.id.cmp(id));
        for id in &delta.remove {
            if let Ok(at) = place(endpoints, id) {
                endpoints.remove(at);
            }
        }
        for endpoint in delta.upsert {
            match place(endpoints, &endpoint.id) {
                Ok(at) => endpoints[at] = endpoint,
                Err(at) => endpoints.insert(at, endpoint),
            }
        }
        if let Some(spec) = delta.spec {
            self.spec = spec;
        }
        if let Some(mut remote) = delta.remote {
            remote.sort_by(|a, b| a.zone.zone.cmp(&b.zone.zone));
            self.remote = remote;
        }
        if let Some(returned) = delta.returned {
            self.returned = returned;
        }
    }
}

impl Delta {
    /// The endpoints that are new or changed, if nothing else is.
    pub fn endpoints_alone(&self) -> Option<&[Arc<EndpointView>]> {
        let Self { spec, upsert, remove, remote, returned } = self;
        (spec.is_none() && remove.is_empty() && remote.is_none() && returned.is_none()).then_some(upsert)
    }

    /// Leaves out the endpoints that have no room in a message of about `limit` bytes: another difference states them.
    /// True if there were such.
    pub fn cut(&mut self, limit: usize) -> bool {
        let count = that_fit(&self.upsert, limit);
        let cut = count < self.upsert.len();
        self.upsert.truncate(count);
        cut
    }
}

/// How many of the first endpoints take `limit` bytes together, but at least one.
fn that_fit(endpoints: &[Arc<EndpointView>], limit: usize) -> usize {
    let mut room = limit;
    let fits = endpoints.iter().take_while(|endpoint| match room.checked_sub(size(endpoint)) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    });
    fits.count().max(1)
}

/// About how many bytes a message needs for an endpoint.
fn size(endpoint: &EndpointView) -> usize {
    const NUMBERS: usize = 96;
    let labels: usize = endpoint.labels.iter().map(|(key, value)| key.len() + value.len() + 12).sum();
    NUMBERS + endpoint.id.as_str().len() + endpoint.zone.len() + labels
}

impl RemoteFacts {
    /// The facts of a zone that is handed in at `now`.
    pub fn from_zone(mut zone: RemoteZone, now: Timestamp) -> Self {
        let returned = zone.summary.returned_ago.take().map(|ago| now.before(ago));
        Self { zone, returned }
    }
}

#[cfg(test)]
mod tests;
