//! A service's zones in sum, and when each returned from failure.
//!
//! Called by [`crate::Catalogue`] whenever a service changed. Never: keeping endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::{EndpointView, ZoneSummary};
use eastway_core::{LoadReport, Timestamp};
use litemap::LiteMap;

/// What the zones of one service went through.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zones(LiteMap<Arc<str>, History>);

#[derive(Clone, Copy, Debug, Default)]
struct History {
    /// It served, and now does not.
    out: bool,
    /// It serves now.
    serving: bool,
    returned: Option<Timestamp>,
}

impl Zones {
    /// Takes note of which zones serve. A zone that serves for the first time does not *return*.
    pub(crate) fn observe<'a>(&mut self, endpoints: impl Iterator<Item = &'a Arc<EndpointView>>, now: Timestamp) {
        let mut serving: BTreeMap<&Arc<str>, bool> = BTreeMap::new();
        for endpoint in endpoints {
            *serving.entry(&endpoint.zone).or_default() |= endpoint.health.serves();
        }
        for (zone, history) in self.0.iter_mut() {
            let serves = serving.remove(zone).unwrap_or(false);
            if serves && history.out {
                history.returned = Some(now);
            }
            history.out = !serves && (history.out || history.serving);
            history.serving = serves;
        }
        for (zone, serves) in serving {
            self.0.insert(Arc::clone(zone), History { out: false, serving: serves, returned: None });
        }
    }

    /// The zone called `zone`, to be kept once; `None` if none of the service's zones was called so.
    pub(crate) fn name(&self, zone: &str) -> Option<Arc<str>> {
        self.0.keys().find(|known| ***known == *zone).cloned()
    }

    /// The returns within the last `published`, and when they were.
    pub(crate) fn returned(&self, now: Timestamp, published: Duration) -> BTreeMap<Arc<str>, Timestamp> {
        let recent = |history: &History| history.returned.filter(|at| history.serving && now.since(*at) < published);
        self.0.iter().filter_map(|(zone, history)| Some((Arc::clone(zone), recent(history)?))).collect()
    }
}

/// Endpoints with their loads, in sum per zone, ordered by zone; `returned_ago` is left open.
pub(crate) fn summarise<'a>(
    endpoints: impl Iterator<Item = (&'a EndpointView, Option<LoadReport>)>,
) -> BTreeMap<Arc<str>, ZoneSummary> {
    let mut sums: BTreeMap<Arc<str>, Sum> = BTreeMap::new();
    for (endpoint, load) in endpoints {
        sums.entry(Arc::clone(&endpoint.zone)).or_default().add(endpoint, load);
    }
    sums.into_iter().map(|(zone, sum)| (zone, sum.finish())).collect()
}

#[derive(Debug, Default)]
struct Sum {
    summary: ZoneSummary,
    utilisation: (f32, u32),
    error_rate: (f32, u32),
    /// An endpoint that counts does not say how much it can serve.
    unstated: bool,
}

impl Sum {
    fn add(&mut self, endpoint: &EndpointView, load: Option<LoadReport>) {
        use eastway_core::Health::{Degraded, Draining, Ready};
        let summary = &mut self.summary;
        summary.total += u32::from(endpoint.health.counts());
        summary.ready += u32::from(endpoint.health == Ready);
        summary.degraded += u32::from(endpoint.health == Degraded);
        summary.draining += u32::from(endpoint.health == Draining);
        if endpoint.health.counts() {
            summary.capacity += f64::from(endpoint.capacity);
            self.unstated |= endpoint.capacity == 0;
        }
        let Some(load) = load.filter(|_| endpoint.health.serves()) else { return };
        self.error_rate = (self.error_rate.0 + load.error_rate, self.error_rate.1 + 1);
        if let Some(utilisation) = load.utilisation {
            self.utilisation = (self.utilisation.0 + utilisation, self.utilisation.1 + 1);
        }
    }

    fn finish(self) -> ZoneSummary {
        let mean = |(sum, count): (f32, u32)| (count > 0).then(|| sum / count as f32);
        ZoneSummary {
            // A part of it would pass for the whole, and move traffic away from those that say nothing.
            capacity: if self.unstated { 0.0 } else { self.summary.capacity },
            utilisation: mean(self.utilisation),
            error_rate: mean(self.error_rate).unwrap_or_default(),
            ..self.summary
        }
    }
}

#[cfg(test)]
mod tests {
    use eastway_core::{EndpointId, Health};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn endpoint(zone: &str, health: Health) -> Arc<EndpointView> {
        Arc::new(EndpointView {
            id: EndpointId::new("e"),
            zone: zone.into(),
            address: ([127, 0, 0, 1], 1).into(),
            weight: 1.0,
            health,
            incarnation: 1,
            capacity: 8,
            labels: Default::default(),
            load: None,
        })
    }

    fn observe(zones: &mut Zones, endpoints: &[Arc<EndpointView>], seconds: u64) -> BTreeMap<Arc<str>, Timestamp> {
        let now = Timestamp::from_millis(seconds * 1000);
        zones.observe(endpoints.iter(), now);
        zones.returned(now, MINUTE)
    }

    #[test]
    fn a_zone_returns_only_after_it_served_and_failed() {
        let mut zones = Zones::default();
        assert!(observe(&mut zones, &[endpoint("a", Health::Warming)], 0).is_empty());
        assert!(observe(&mut zones, &[endpoint("a", Health::Ready)], 1).is_empty(), "a first start is no return");
        assert!(observe(&mut zones, &[endpoint("a", Health::Down)], 2).is_empty());
        assert_eq!(observe(&mut zones, &[endpoint("a", Health::Ready)], 3)["a"], Timestamp::from_millis(3000));
        assert!(observe(&mut zones, &[endpoint("a", Health::Down)], 4).is_empty(), "failed again: no ramp to publish");
        assert_eq!(observe(&mut zones, &[endpoint("a", Health::Degraded)], 5)["a"], Timestamp::from_millis(5000));
        assert!(observe(&mut zones, &[endpoint("a", Health::Ready)], 66).is_empty(), "old returns are not published");
    }

    #[test]
    fn a_zone_that_vanished_returns_too_and_others_do_not() {
        let mut zones = Zones::default();
        observe(&mut zones, &[endpoint("a", Health::Ready), endpoint("b", Health::Ready)], 0);
        observe(&mut zones, &[endpoint("b", Health::Ready)], 1);
        let returned = observe(&mut zones, &[endpoint("a", Health::Ready), endpoint("b", Health::Ready)], 2);
        assert_eq!(returned.keys().map(|z| &**z).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn unready_endpoints_stay_in_the_denominator_and_cold_ones_do_not_enter_it() {
        let [ready, unready, warming] = [Health::Ready, Health::Unready, Health::Warming].map(|h| endpoint("a", h));
        let load = Some(LoadReport { active_requests: 1, utilisation: Some(0.5), error_rate: 0.25 });
        let sums = summarise([(&*ready, load), (&*unready, load), (&*warming, None)].into_iter());
        let sum = &sums["a"];
        assert_eq!((sum.total, sum.ready, sum.capacity), (2, 1, 16.0));
        assert_eq!((sum.utilisation, sum.error_rate), (Some(0.5), 0.25));
    }

    #[test]
    fn the_capacity_of_a_zone_is_known_only_if_all_that_count_state_theirs() {
        let says = |capacity, health| EndpointView { capacity, ..(*endpoint("a", health)).clone() };
        let sum = |endpoints: &[EndpointView]| summarise(endpoints.iter().map(|e| (e, None)))["a"].capacity;
        let (stated, unready) = (says(8, Health::Ready), says(8, Health::Unready));
        assert_eq!(sum(&[stated.clone(), unready]), 16.0);
        assert_eq!(sum(&[stated.clone(), says(0, Health::Ready)]), 0.0, "half of it would pass for the whole");
        assert_eq!(sum(&[says(0, Health::Unready), stated.clone()]), 0.0);
        assert_eq!(sum(&[stated, says(0, Health::Warming)]), 8.0, "a cold one does not count");
    }
}
