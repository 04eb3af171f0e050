//! Invariants 13 and 14 over random histories.

use super::*;

/// Facts that a gateway may learn, each with its own version, so that their order must not matter.
#[derive(Clone, Debug)]
enum Happening {
    Register { endpoint: u8, incarnation: u64 },
    Deregister { endpoint: u8, incarnation: u64 },
    Peer { gateway: bool, fact: Fact },
}

fn facts() -> impl Strategy<Value = Vec<Happening>> {
    let register = (0u8..4, 1u64..5).prop_map(|(endpoint, incarnation)| Happening::Register { endpoint, incarnation });
    let deregister =
        (0u8..4, 1u64..5).prop_map(|(endpoint, incarnation)| Happening::Deregister { endpoint, incarnation });
    let totals = prop::collection::vec((any::<bool>(), 1u64..4, prop::collection::vec(1u32..6, 1..6)), 0..4);
    let peers = totals.prop_map(|lives| {
        let mut facts = Vec::new();
        for (gateway, epoch, totals) in lives {
            // One source says the same thing at the same version, so the value is made of the version.
            let value =
                |seq: usize, total: u32| exported(&[("a", 10 + epoch as u32 * 7 + seq as u32 + total / 100, 5)]);
            facts.push(Happening::Peer { gateway, fact: snapshot(epoch, 0, &[(payments(), value(0, 0))]) });
            for seq in 1..=totals.len() {
                let version = Version::new(epoch, seq as u64);
                let fact = Fact::Change(version, payments(), Some(value(seq, totals[seq - 1])));
                facts.push(Happening::Peer { gateway, fact });
            }
        }
        facts
    });
    let local = prop::collection::vec(prop_oneof![3 => register, 1 => deregister], 0..12);
    (local, peers).prop_map(|(local, peers)| local.into_iter().chain(peers).collect())
}

fn shuffled(facts: &[Happening], seed: u64) -> Vec<Happening> {
    let mut facts = facts.to_vec();
    fastrand::Rng::with_seed(seed).shuffle(&mut facts);
    facts
}

fn epoch_of(fact: &Fact) -> u64 {
    match fact {
        Fact::Snapshot(version, _) | Fact::Change(version, ..) => version.epoch,
        Fact::Alive | Fact::GoAway => 0,
    }
}

/// Deregistering is done on the stream of its own registration, so the two happen together.
fn feed(world: &mut World, happening: &Happening) {
    let name = |endpoint: u8| format!("p{endpoint}");
    match happening.clone() {
        Happening::Register { endpoint, incarnation } => {
            world.streams += 1;
            // What one life registers does not change: its zone follows from its incarnation.
            let zone = if incarnation % 2 == 0 { "a" } else { "b" };
            let registration = registration(&name(endpoint), zone, incarnation);
            let _ = world.catalogue.register(StreamId(world.streams), registration, Health::Ready, world.now);
        }
        Happening::Deregister { endpoint, incarnation } => {
            world.streams += 1;
            let stream = StreamId(world.streams);
            let zone = if incarnation % 2 == 0 { "a" } else { "b" };
            let registration = registration(&name(endpoint), zone, incarnation);
            if world.catalogue.register(stream, registration, Health::Ready, world.now).is_ok() {
                world.catalogue.deregister(stream, world.now);
            }
        }
        Happening::Peer { gateway, fact } => {
            let gateway = if gateway { "gw-8" } else { "gw-9" };
            let epoch = epoch_of(&fact);
            world.catalogue.peer_fact(&meta("eu-west"), gateway, epoch, fact, world.now);
        }
    }
}

fn all(facts: &[Happening]) -> World {
    let mut world = World::new();
    for fact in facts {
        feed(&mut world, fact);
    }
    world
}

/// Deregistrations of a life that is not the last one depend on what was there before: only those facts are compared whose
/// meaning does not depend on what else is known.
fn independent(facts: Vec<Happening>) -> Vec<Happening> {
    let highest = |endpoint: u8| {
        let incarnations = facts.iter().filter_map(|fact| match fact {
            Happening::Register { endpoint: e, incarnation } | Happening::Deregister { endpoint: e, incarnation }
                if *e == endpoint =>
            {
                Some(*incarnation)
            }
            _ => None,
        });
        incarnations.max().unwrap_or_default()
    };
    let said: BTreeSet<(u8, u64)> = facts
        .iter()
        .filter_map(|fact| match fact {
            Happening::Deregister { endpoint, incarnation } => Some((*endpoint, *incarnation)),
            _ => None,
        })
        .collect();
    let keep = |fact: &Happening| match fact {
        Happening::Deregister { endpoint, incarnation } => *incarnation == highest(*endpoint),
        Happening::Register { endpoint, incarnation } => {
            !said.contains(&(*endpoint, *incarnation)) || *incarnation == highest(*endpoint)
        }
        Happening::Peer { .. } => true,
    };
    facts.iter().filter(|fact| keep(fact)).cloned().collect()
}

proptest! {
    /// 14: two gateways that learn the same facts in any order end with equal views.
    #[test]
    fn the_order_of_facts_does_not_matter(facts in facts(), one in any::<u64>(), other in any::<u64>()) {
        let facts = independent(facts);
        let (mut a, mut b) = (all(&shuffled(&facts, one)), all(&shuffled(&facts, other)));
        // What is held of a peer's earlier life depends on when it was heard; it ends.
        for world in [&mut a, &mut b] {
            world.pass(Duration::from_secs(31), |_| ProbeOutcome::Answered);
        }
        prop_assert_eq!(a.remote_ready(), b.remote_ready());
        let ids = |world: &World| -> Vec<_> {
            let view = world.view().expect("declared");
            view.endpoints.iter().map(|e| (e.id.clone(), e.incarnation, Arc::clone(&e.zone), e.health)).collect()
        };
        prop_assert_eq!(ids(&a), ids(&b));
    }

    /// 13: incarnations never fall, and only deregistering and dead probes take an endpoint away.
    #[test]
    fn a_view_never_regresses(facts in facts()) {
        let mut world = World::new();
        let mut known: BTreeMap<EndpointId, u64> = BTreeMap::new();
        for fact in &facts {
            feed(&mut world, fact);
            let view = world.view().expect("declared");
            for endpoint in &view.endpoints {
                let last = known.insert(endpoint.id.clone(), endpoint.incarnation).unwrap_or(0);
                prop_assert!(endpoint.incarnation >= last, "{endpoint:?} after {last}");
            }
        }
    }

    /// 13: silence, however long, removes nothing and no locality.
    #[test]
    fn silence_alone_removes_nothing(facts in facts(), seconds in 1u64..2000) {
        let mut world = all(&facts);
        let before = world.view().expect("declared");
        for _ in 0..3 {
            world.now = world.now + Duration::from_secs(seconds);
            world.catalogue.tick(world.now);
        }
        let after = world.view().expect("declared");
        prop_assert_eq!(after.endpoints.len(), before.endpoints.len());
        prop_assert!(after.endpoints.iter().all(|endpoint| endpoint.health == Health::Ready));
        prop_assert_eq!(after.remote.len(), before.remote.len());
    }

    /// 13: what is deleted from a sibling's list and put back within the hold changes nothing that a caller sees.
    #[test]
    fn deleting_all_and_adding_it_again_changes_no_view(count in 1usize..8, steps in 1u64..28, cut in 0usize..8) {
        let ids: Vec<String> = (0..count).map(|i| format!("p{i}")).collect();
        let slice = |ids: &[String]| Slice { endpoints: ids.iter().map(|id| registration(id, "a", 1)).collect() };
        let mut world = World::new();
        world.catalogue.load_slice("gw-2", &payments(), 0, Some(slice(&ids)), world.now);
        world.peer_says(1, snapshot(1, 0, &[(payments(), exported(&[("a", 4, 4)]))]));
        let before = world.view();
        // Slice by slice, then all of it; and the peer's gateway comes back with nothing.
        world.catalogue.load_slice("gw-2", &payments(), 0, Some(slice(&ids[..cut.min(count)])), world.now);
        world.catalogue.load_slice("gw-2", &payments(), 0, None, world.now);
        world.peer_says(2, snapshot(2, 0, &[]));
        for _ in 0..steps {
            world.pass(Duration::from_secs(1), |_| ProbeOutcome::Answered);
            prop_assert_eq!(world.view(), before.clone());
        }
        world.catalogue.load_slice("gw-2", &payments(), 0, Some(slice(&ids)), world.now);
        world.peer_says(2, Fact::Change(Version::new(2, 1), payments(), Some(exported(&[("a", 4, 4)]))));
        world.pass(Duration::from_secs(40), |_| ProbeOutcome::Answered);
        prop_assert_eq!(world.view(), before);
    }
}
