//! A service, its view and its time, as a test sees them.

use std::collections::BTreeMap;

use eastway_core::resource::ClusterMeta;
use eastway_core::view::{
    EndpointView, MeshView, PathState, PeerView, RemoteZone, ServiceSpec, ServiceView, Staleness, ZoneSummary,
};
use eastway_core::{EndpointId, Health, Locality, Reason, ServiceName, Timestamp, ZoneId};
use std::sync::Arc;
use std::time::Duration;

use crate::service::Service;
use crate::{NoPick, Outcome, Pick, Policy, Tried};

pub(super) struct World {
    pub(super) service: Service,
    pub(super) mesh: MeshView,
    pub(super) view: ServiceView,
    pub(super) now: Timestamp,
    pub(super) rng: fastrand::Rng,
}

fn cluster(name: &str, region: &str) -> ClusterMeta {
    ClusterMeta {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        region: region.to_owned(),
        trust_domain: format!("{name}.mesh.internal"),
        zones: BTreeMap::new(),
    }
}

pub(super) fn zone(text: &str) -> ZoneId {
    text.parse().expect("a zone")
}

pub(super) const LATENCY: Duration = Duration::from_millis(5);

impl World {
    /// Called from us-east/a, with so many ready endpoints in each zone of us-east.
    pub(super) fn new(zones: &[(&str, usize)]) -> Self {
        Self::with_policy(zones, Policy { ramp_jitter: Duration::ZERO, ..Policy::default() })
    }

    pub(super) fn with_policy(zones: &[(&str, usize)], policy: Policy) -> Self {
        let name = ServiceName::new("shop", "payments");
        let mut world = Self {
            service: Service::new(name.clone(), Locality::new("us-east", "us", "a"), policy),
            mesh: MeshView { cluster: cluster("us-east", "us"), peers: Vec::new() },
            view: ServiceView {
                name,
                spec: ServiceSpec { accounts: ["payments".to_owned()].into(), ..ServiceSpec::default() },
                endpoints: Vec::new(),
                remote: Vec::new(),
                returned: BTreeMap::new(),
            },
            now: Timestamp::from_millis(1_000_000),
            rng: fastrand::Rng::with_seed(11),
        };
        for (zone, count) in zones {
            for i in 0..*count {
                world.add(&format!("{zone}-{i:05}"), zone, 1.0);
            }
        }
        world.update();
        world
    }

    pub(super) fn add(&mut self, id: &str, zone: &str, weight: f64) {
        let port = 1_000 + self.view.endpoints.len() % 60_000;
        self.view.endpoints.push(Arc::new(EndpointView {
            id: EndpointId::new(id),
            zone: zone.into(),
            address: ([127, 0, 0, 1], port as u16).into(),
            weight,
            health: Health::Ready,
            incarnation: 1,
            capacity: 0,
            labels: Default::default(),
            load: None,
        }));
        self.view.endpoints.sort_by(|a, b| a.id.cmp(&b.id));
    }

    /// Adds a peer cluster, if it is new, and one zone of it with so many endpoints, all ready.
    pub(super) fn add_remote(&mut self, id: &str, region: &str, endpoints: u32) {
        let id = zone(id);
        if !self.mesh.peers.iter().any(|peer| *peer.cluster.name == *id.cluster) {
            self.mesh.peers.push(PeerView {
                cluster: cluster(&id.cluster, region),
                trust_bundle: Vec::new(),
                path: PathState::Up,
                min_rtt: None,
                staleness: Staleness::Fresh,
            });
        }
        let summary = ZoneSummary { total: endpoints, ready: endpoints, ..ZoneSummary::default() };
        self.view.remote.push(RemoteZone { zone: id, accounts: ["payments".to_owned()].into(), summary });
    }

    pub(super) fn peer(&mut self, cluster: &str) -> &mut PeerView {
        self.mesh.peers.iter_mut().find(|peer| peer.cluster.name == cluster).expect("a peer")
    }

    pub(super) fn summary(&mut self, id: &str) -> &mut ZoneSummary {
        let id = zone(id);
        &mut self.view.remote.iter_mut().find(|remote| remote.zone == id).expect("a remote zone").summary
    }

    /// Changes the endpoints whose names begin so.
    pub(super) fn change(&mut self, prefix: &str, change: impl Fn(&mut EndpointView)) {
        for endpoint in &mut self.view.endpoints {
            if endpoint.id.as_str().starts_with(prefix) {
                change(Arc::make_mut(endpoint));
            }
        }
    }

    pub(super) fn update(&mut self) {
        self.service.update(&self.mesh, &self.view, self.now);
        self.check();
    }

    /// Lets time pass, with a tick every 100 ms.
    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = (self.now + Duration::from_millis(100)).min(end);
            self.service.tick(self.now);
        }
        self.check();
    }

    pub(super) fn try_pick(&mut self, tried: &Tried) -> Result<Pick, NoPick> {
        self.service.pick(&mut self.rng, self.now, tried, None, true)
    }

    pub(super) fn pick(&mut self) -> Pick {
        self.try_pick(&Tried::new()).expect("something can be picked")
    }

    /// The name of what a pick leads to: an endpoint, or a zone.
    pub(super) fn name(pick: &Pick) -> String {
        pick.endpoint().map_or_else(|| pick.locality.zone.to_string(), |endpoint| endpoint.id.to_string())
    }

    /// How often each is picked by POSTs, which try nothing half-open, in `n` picks.
    pub(super) fn counts(&mut self, n: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..n {
            let pick = self.service.pick(&mut self.rng, self.now, &Tried::new(), None, false).expect("a pick");
            *counts.entry(Self::name(&pick)).or_default() += 1;
        }
        counts
    }

    pub(super) fn finish(&self, pick: &Pick, outcome: Outcome) {
        self.service.finish(pick, outcome, self.now);
    }

    /// Requests to one endpoint that all end so.
    pub(super) fn attempts_on(&mut self, id: &str, count: usize, outcome: Outcome) {
        for _ in 0..count {
            let pick = self.pick_of(id);
            self.finish(&pick, outcome);
        }
    }

    /// A pick of one endpoint, made past all choice.
    pub(super) fn pick_of(&self, id: &str) -> Pick {
        let control = self.service.state.control.lock();
        let endpoint = Arc::clone(control.member(&EndpointId::new(id)).expect("a member"));
        let plan = self.service.view.plan.load();
        let locality = plan.localities.iter().find(|locality| locality.zone == endpoint.zone).expect("its locality");
        Pick::to_endpoint(Arc::clone(locality), endpoint, crate::pick::Permits::default())
    }

    /// The shares by zone, of 10,000.
    pub(super) fn shares(&self) -> BTreeMap<String, u32> {
        self.service.localities().into_iter().map(|(locality, share)| (locality.zone.to_string(), share)).collect()
    }

    pub(super) fn share(&self, id: &str) -> u32 {
        self.shares().get(id).copied().unwrap_or_default()
    }

    /// What must be true after every transition.
    pub(super) fn check(&self) {
        let control = self.service.state.control.lock();
        let plan = self.service.view.plan.load();
        let sum: u32 = plan.allocation.shares.iter().sum();
        let reachable = control.localities.iter().any(|locality| locality.reachable());
        assert_eq!(sum, if reachable { crate::shares::S } else { 0 }, "shares {:?}", plan.allocation);
        assert_eq!(plan.localities.len(), control.localities.len());
        for (i, (place, locality)) in control.arranged_for(&self.service.view).iter().enumerate() {
            assert_eq!(plan.localities[i].zone, locality.zone);
            assert_eq!((plan.localities[i].priority, plan.localities[i].level), (place.priority, place.level));
            assert!(
                locality.reachable() || plan.allocation.shares[i] == 0,
                "{}: a share but nobody there",
                locality.zone
            );
            if locality.remote {
                continue;
            }
            let mut tally = crate::service::control::Tally::default();
            for member in locality.roster.endpoints.iter() {
                let cold = member.cold.lock();
                assert!(cold.member);
                assert_eq!(cold.class, cold.classify(), "{}", member.id);
                tally.add(cold.class, cold.units());
            }
            assert_eq!(tally, locality.tally, "{}", locality.zone);
            let cap = control.rules.policy.ejection_cap * tally.total() as f64;
            assert!(tally.count < 2 || locality.tripped() || tally.soft as f64 <= cap, "{}: {tally:?}", locality.zone);
        }
    }
}

pub(super) fn refused() -> Outcome {
    Outcome::down(Reason::ConnectFailed)
}

pub(super) fn success() -> Outcome {
    Outcome::success(LATENCY)
}

pub(super) fn error() -> Outcome {
    Outcome::status(500, LATENCY)
}
