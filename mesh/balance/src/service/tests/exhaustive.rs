//! Every small world, through the service itself: its shares are those of the reference in exact fractions, and its picks go
//! where those shares allow.

use std::collections::BTreeMap;
use std::sync::Arc;

use eastway_core::Health;

use super::harness::*;
use crate::Tried;
use crate::endpoint::HealthClass;
use crate::shares::reference::{Counts, PriorityPart, divide};

/// The endpoints of a local priority: so many ready, draining, unready and warming; and whether a ready one is to be
/// ejected.
#[derive(Clone, Copy, Debug)]
struct Zone {
    healths: [usize; 4],
    eject: bool,
}

const HEALTHS: [Health; 4] = [Health::Ready, Health::Draining, Health::Unready, Health::Warming];

/// Every zone of one to `most` endpoints, whatever their healths are.
fn every_zone(most: usize, ejections: &[bool]) -> Vec<Zone> {
    let mut zones = Vec::new();
    for ready in 0..=most {
        for draining in 0..=most - ready {
            for unready in 0..=most - ready - draining {
                for warming in 0..=most - ready - draining - unready {
                    let healths = [ready, draining, unready, warming];
                    let wanted = ejections.iter().filter(|eject| ready > 0 || !**eject);
                    let of = wanted.map(|eject| Zone { healths, eject: *eject });
                    zones.extend(of.filter(|zone| zone.healths.iter().sum::<usize>() > 0));
                }
            }
        }
    }
    zones
}

/// A world with these local priorities, and a remote one of so many ready, degraded and other endpoints.
fn world(local: &[Zone], remote: Option<[u32; 3]>) -> World {
    let mut world = World::new(&[]);
    for (name, zone) in ["a", "b"].iter().zip(local) {
        let healths = HEALTHS.iter().zip(zone.healths).flat_map(|(health, count)| std::iter::repeat_n(*health, count));
        for (i, health) in healths.enumerate() {
            world.add(&format!("{name}-{i}"), name, 1.0);
            world.change(&format!("{name}-{i}"), |e| e.health = health);
        }
    }
    if let Some([ready, degraded, other]) = remote {
        world.add_remote("eu-west/a", "eu", ready + degraded + other);
        (world.summary("eu-west/a").ready, world.summary("eu-west/a").degraded) = (ready, degraded);
    }
    world.update();
    for (name, zone) in ["a", "b"].iter().zip(local) {
        if zone.eject {
            world.attempts_on(&format!("{name}-0"), 4, error());
        }
    }
    world
}

/// What became of the endpoints of each priority (an ejection may not be granted), by name and in sums.
fn marks(world: &World) -> (BTreeMap<String, HealthClass>, Vec<Vec<Counts>>) {
    let control = world.service.state.control.lock();
    let mut classes = BTreeMap::new();
    let mut priorities = Vec::new();
    for (_, locality) in control.arranged(0).iter() {
        let mut counts = Counts::default();
        if locality.remote {
            let summary = &world.view.remote[0].summary;
            let hard = summary.total - summary.ready - summary.degraded;
            counts = Counts { healthy: summary.ready, degraded: summary.degraded, hard, ..counts };
        }
        for endpoint in locality.roster.endpoints.iter() {
            let class = endpoint.cold.lock().class;
            classes.insert(endpoint.id.to_string(), class);
            match class {
                HealthClass::Healthy => counts.healthy += 1,
                HealthClass::Degraded => counts.degraded += 1,
                HealthClass::Soft => counts.soft += 1,
                HealthClass::Hard => counts.hard += 1,
                HealthClass::Uncounted => {}
            }
        }
        priorities.push(vec![counts]);
    }
    (classes, priorities)
}

/// Whether a pick may lead there, as the parts of its priority are.
fn allowed(class: HealthClass, part: &PriorityPart) -> bool {
    let (healthy, degraded) = part.localities[0];
    match class {
        HealthClass::Healthy => healthy > 0,
        HealthClass::Degraded => degraded > 0 || part.panic,
        HealthClass::Soft => part.panic && healthy > 0,
        HealthClass::Hard | HealthClass::Uncounted => false,
    }
}

fn check(local: &[Zone], remote: Option<[u32; 3]>) {
    let mut world = world(local, remote);
    world.check();
    let (classes, priorities) = marks(&world);
    let (_, parts) = divide(&priorities);
    let expected: Vec<u32> = parts.iter().map(|part| part.localities[0].0 + part.localities[0].1).collect();
    let got: Vec<u32> = world.service.localities().iter().map(|(_, share)| *share).collect();
    assert_eq!(got, expected, "{local:?} {remote:?}: {priorities:?}");
    for _ in 0..8 {
        match world.try_pick(&Tried::new()) {
            Ok(pick) => {
                let part = &parts[pick.locality.priority];
                let fits = match pick.endpoint() {
                    Some(endpoint) => allowed(classes[endpoint.id.as_str()], part),
                    None => part.localities[0] != (0, 0),
                };
                assert!(fits, "{} of {local:?} {remote:?}: {priorities:?} {parts:?}", World::name(&pick));
            }
            Err(_) => assert!(expected.iter().all(|share| *share == 0), "nothing of {local:?} {remote:?}"),
        }
    }
}

#[test]
fn every_world_of_one_and_two_priorities_of_four() {
    let zones = every_zone(4, &[false, true]);
    for a in &zones {
        check(&[*a], None);
        for b in &zones {
            check(&[*a, *b], None);
        }
    }
}

#[test]
fn every_world_of_three_priorities_of_three() {
    let zones = every_zone(3, &[false]);
    let mut remotes = Vec::new();
    for ready in 0..=4 {
        for degraded in 0..=4 - ready {
            remotes.extend((0..=4 - ready - degraded).map(|other| [ready, degraded, other]));
        }
    }
    for a in &zones {
        for b in &zones {
            // Every remote priority of up to four, at least once with each local one, and each pair with a third of them.
            let start = (a.healths[0] + b.healths[1]) % 3;
            remotes.iter().skip(start).step_by(3).for_each(|remote| check(&[*a, *b], Some(*remote)));
        }
    }
}

/// Two localities a priority divide what the priority gets, as the reference does.
#[test]
fn every_priority_of_two_localities() {
    let zones = every_zone(3, &[false]);
    for b in &zones {
        for c in &zones {
            let mut world = World::new(&[]);
            for (name, zone) in ["b", "c"].iter().zip([b, c]) {
                for (i, health) in
                    HEALTHS.iter().zip(zone.healths).flat_map(|(h, n)| std::iter::repeat_n(*h, n)).enumerate()
                {
                    world.add(&format!("{name}-{i}"), name, 1.0);
                    Arc::make_mut(world.view.endpoints.last_mut().expect("just added")).health = health;
                }
            }
            world.update();
            let (_, priorities) = marks(&world);
            let together: Vec<Vec<Counts>> = vec![priorities.into_iter().flatten().collect()];
            let expected: Vec<u32> = divide(&together).1[0].localities.iter().map(|(h, d)| h + d).collect();
            let got: Vec<u32> = world.service.localities().iter().map(|(_, share)| *share).collect();
            assert_eq!(got, expected, "{b:?} {c:?}");
        }
    }
}
