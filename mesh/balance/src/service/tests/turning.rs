//! News of how endpoints do, without a whole view: what comes of it is what comes of the view.

use std::sync::Arc;

use eastway_core::Health;
use eastway_core::view::EndpointView;
use proptest::prelude::*;

use super::harness::World;
use crate::Policy;

/// Two worlds that are told the same, one by whole views.
struct Twins {
    told: World,
    whole: World,
}

impl Twins {
    fn new(capacities: bool) -> Self {
        let world = || {
            let mut world = World::with_policy(&[("a", 4), ("b", 3)], Policy { seed: 7, ..Policy::default() });
            world.change("a", |endpoint| endpoint.capacity = if capacities { 10 } else { 0 });
            world.change("b", |endpoint| endpoint.capacity = 5);
            world.add_remote("eu-west/a", "eu", 3);
            world.update();
            world
        };
        Self { told: world(), whole: world() }
    }

    fn turn(&mut self, news: &[(&str, Health)]) {
        for world in [&mut self.told, &mut self.whole] {
            for (id, health) in news {
                world.change(id, |endpoint| endpoint.health = *health);
            }
        }
        let changed = |endpoint: &&Arc<EndpointView>| news.iter().any(|(id, _)| *id == endpoint.id.as_str());
        let changed: Vec<_> = self.told.view.endpoints.iter().filter(changed).cloned().collect();
        assert!(self.told.service.apply(&changed, self.told.now), "news of health alone");
        self.told.check();
        self.whole.update();
    }

    /// What picks and operators see of both.
    fn seen(&self) -> [(String, Vec<String>); 2] {
        [&self.told, &self.whole].map(|world| {
            let explained = serde_json::to_string(&world.service.explain(world.now)).expect("JSON");
            let pools = world.service.localities().into_iter().map(|(locality, share)| {
                // Whoever bears a hard mark is not picked, whether it still stands in a pool or not.
                let open = |pool: &crate::locality::Pool| {
                    let open = pool.endpoints.iter().filter(|e| e.gate() & crate::endpoint::HARD == 0);
                    open.map(|e| e.id.to_string()).collect::<Vec<_>>()
                };
                format!("{} {share} {:?} {:?}", locality.zone, open(&locality.ready), open(&locality.degraded))
            });
            (explained, pools.collect())
        })
    }

    fn agree(&self) {
        let [told, whole] = self.seen();
        assert_eq!(told, whole);
    }
}

const IDS: [&str; 7] = ["a-00000", "a-00001", "a-00002", "a-00003", "b-00000", "b-00001", "b-00002"];

#[test]
fn whoever_stops_to_serve_is_picked_no_more_and_whoever_begins_is() {
    let mut twins = Twins::new(true);
    twins.turn(&[("a-00000", Health::Unready), ("a-00001", Health::Down), ("a-00002", Health::Draining)]);
    twins.agree();
    let counts = twins.told.counts(2_000);
    assert!(!counts.contains_key("a-00000") && !counts.contains_key("a-00001"), "{counts:?}");
    twins.turn(&[("a-00000", Health::Ready)]);
    twins.agree();
    assert!(twins.told.counts(2_000).contains_key("a-00000"));
}

#[test]
fn a_change_for_the_worse_makes_new_shares_and_nothing_else() {
    let mut world = World::new(&[("a", 4), ("b", 4)]);
    let before = world.service.view.plan.load_full();
    world.change("a-00000", |endpoint| endpoint.health = Health::Unready);
    assert!(world.service.apply(&[Arc::clone(&world.view.endpoints[0])], world.now));
    let after = world.service.view.plan.load_full();
    assert!(Arc::ptr_eq(&before.localities, &after.localities), "the same endpoints to choose from");
    assert!(!Arc::ptr_eq(&before, &after));
    world.check();
    world.change("a-00000", |endpoint| endpoint.health = Health::Ready);
    assert!(world.service.apply(&[Arc::clone(&world.view.endpoints[0])], world.now));
    assert!(Arc::ptr_eq(&before.localities, &world.service.view.plan.load().localities), "nor when it is back");
}

#[test]
fn what_is_more_than_news_of_health_is_not_taken() {
    type Change = fn(&mut EndpointView);
    let changes: [Change; 6] = [
        |endpoint| endpoint.id = eastway_core::EndpointId::new("new"),
        |endpoint| endpoint.incarnation += 1,
        |endpoint| endpoint.weight = 2.0,
        |endpoint| endpoint.capacity = 7,
        |endpoint| endpoint.zone = "b".into(),
        |endpoint| endpoint.address.set_port(1),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let world = World::new(&[("a", 2), ("b", 1)]);
        let before = world.service.view.plan.load_full();
        let mut odd = (*world.view.endpoints[1]).clone();
        change(&mut odd);
        odd.health = Health::Down;
        let well = EndpointView { health: Health::Down, ..(*world.view.endpoints[0]).clone() };
        assert!(!world.service.apply(&[Arc::new(well), Arc::new(odd)], world.now), "{number}");
        assert!(Arc::ptr_eq(&before, &world.service.view.plan.load()), "{number}: nothing is taken");
        world.check();
    }
}

proptest! {
    #[test]
    fn any_news_is_worth_a_whole_view(
        capacities in any::<bool>(),
        news in prop::collection::vec(prop::collection::vec((0usize..7, 0usize..6), 1..4), 1..20),
    ) {
        let mut twins = Twins::new(capacities);
        for turn in news {
            let mut news: Vec<_> = turn.iter().map(|(id, health)| (IDS[*id], Health::ALL[*health])).collect();
            news.sort_by_key(|(id, _)| *id);
            news.dedup_by_key(|(id, _)| *id);
            twins.turn(&news);
            twins.agree();
        }
    }
}
