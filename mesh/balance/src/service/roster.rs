//! The endpoints of a locality that discovery lists.

use std::sync::Arc;

use eastway_core::Health;
use eastway_core::view::EndpointView;

use crate::endpoint::{Endpoint, sane_weight};
use crate::locality::Pool;

/// The endpoints, ordered by id, with what picks need of their last view.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) endpoints: Arc<[Arc<Endpoint>]>,
    health: Vec<Health>,
    pub(super) weights: Vec<f64>,
    pub(super) capacities: Vec<u32>,
    /// Those that were ready when the pools were made; one that serves no more bears a hard mark, which picks see.
    pub(super) ready: Pool,
    /// The same of those that are degraded or draining.
    pub(super) degraded: Pool,
}

impl Roster {
    /// `endpoints` as `views` describe them.
    pub(super) fn new(endpoints: Vec<Arc<Endpoint>>, views: &[&Arc<EndpointView>]) -> Self {
        let mut roster = Self {
            endpoints: endpoints.into(),
            health: views.iter().map(|view| view.health).collect(),
            weights: views.iter().map(|view| sane_weight(view.weight)).collect(),
            capacities: views.iter().map(|view| view.capacity).collect(),
            ..Self::default()
        };
        roster.group();
        roster
    }

    fn group(&mut self) {
        self.ready = self.pool(is_ready);
        self.degraded = self.pool(is_degraded);
    }

    /// Those whose health is one of these.
    fn pool(&self, of: fn(Health) -> bool) -> Pool {
        let Self { endpoints, health, weights, .. } = self;
        if health.iter().all(|health| of(*health)) {
            return Pool::new(Arc::clone(endpoints), weights);
        }
        let serving = (0..endpoints.len()).filter(|i| of(health[*i]));
        let (endpoints, weights): (Vec<_>, Vec<_>) = serving.map(|i| (Arc::clone(&endpoints[i]), weights[i])).unzip();
        Pool::new(endpoints.into(), &weights)
    }

    /// The health of the endpoint number `index` is another now. Whether the pools are others, too.
    pub(super) fn turn(&mut self, index: usize, health: Health) -> bool {
        let before = std::mem::replace(&mut self.health[index], health);
        let id = &self.endpoints[index].id;
        let stands = |pool: &Pool| pool.endpoints.binary_search_by(|known| known.id.cmp(id)).is_ok();
        let (ready, degraded) = (is_ready(health), is_degraded(health));
        let serves_elsewhere =
            (ready || degraded) && (stands(&self.ready) != ready || stands(&self.degraded) != degraded);
        let regroups = serves_elsewhere || before.counts() != health.counts();
        if regroups {
            self.group();
        }
        regroups
    }

    /// Requests at once, all endpoints that count together, if each states it.
    pub(super) fn capacity(&self) -> Option<f64> {
        let counted = || self.health.iter().zip(&self.capacities).filter(|(health, _)| health.counts());
        let known = counted().all(|(_, capacity)| *capacity > 0) && counted().next().is_some();
        known.then(|| counted().map(|(_, capacity)| f64::from(*capacity)).sum())
    }
}

fn is_ready(health: Health) -> bool {
    health == Health::Ready
}

fn is_degraded(health: Health) -> bool {
    matches!(health, Health::Degraded | Health::Draining)
}
