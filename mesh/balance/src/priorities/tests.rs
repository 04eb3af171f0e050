use proptest::prelude::*;

use super::*;

fn place(zone: &str, region: &str, ring: usize, headroom: f64) -> Candidate {
    Candidate { zone: zone.parse().expect("a zone"), region: region.into(), ring, cost_ms: None, headroom }
}

fn caller() -> Locality {
    Locality::new("us-east", "us", "a")
}

fn names(places: &[Candidate], failover: &[&str]) -> Vec<Vec<String>> {
    let failover: Vec<String> = failover.iter().map(|s| (*s).to_owned()).collect();
    let priorities = arrange(&caller(), places, &failover);
    priorities
        .into_iter()
        .map(|priority| priority.localities.into_iter().map(|i| places[i].zone.to_string()).collect())
        .collect()
}

fn world() -> Vec<Candidate> {
    vec![
        place("ap/a", "ap", 4, 1.0),
        place("eu/a", "eu", 3, 1.0),
        place("us-east/b", "us", 0, 1.0),
        place("us-two/a", "us", 1, 1.0),
        place("us-east/a", "us", 0, 1.0),
        place("eu/b", "eu", 3, 2.0),
    ]
}

#[test]
fn zone_then_region_then_rings() {
    let expected: [&[&str]; 4] = [&["us-east/a"], &["us-east/b", "us-two/a"], &["eu/b", "eu/a"], &["ap/a"]];
    assert_eq!(names(&world(), &[]), expected);
}

#[test]
fn an_operators_order_wins_and_the_unnamed_follow() {
    let expected: [&[&str]; 5] = [&["us-east/a"], &["us-east/b"], &["ap/a"], &["us-two/a"], &["eu/b", "eu/a"]];
    assert_eq!(names(&world(), &["ap"]), expected);
}

/// The levels of the priorities.
fn levels(places: &[Candidate], failover: &[&str]) -> Vec<usize> {
    let failover: Vec<String> = failover.iter().map(|s| (*s).to_owned()).collect();
    arrange(&caller(), places, &failover).into_iter().map(|priority| priority.level).collect()
}

#[test]
fn levels_say_how_far_also_where_nearer_priorities_are_missing() {
    assert_eq!(levels(&world(), &[]), [0, 1, 2, 3]);
    assert_eq!(levels(&world(), &["ap"]), [0, 1, 2, 3, 4]);
    let away: Vec<Candidate> = world().into_iter().filter(|place| *place.zone.cluster != *"us-east").collect();
    assert_eq!(levels(&away, &[]), [1, 2, 3], "nothing in the own zone");
    let far: Vec<Candidate> = world().into_iter().filter(|place| *place.region != *"us").collect();
    assert_eq!(levels(&far, &[]), [2, 3], "nothing in the own region");
    assert_eq!(levels(&far, &["ap", "eu"]), [2, 3], "in the operator's order");
    let home: Vec<Candidate> = world().into_iter().filter(|place| place.zone == caller().zone).collect();
    assert_eq!(levels(&home, &[]), [0]);
}

#[test]
fn ties_inside_a_priority_fall_by_distance_then_name() {
    let near = Candidate { cost_ms: Some(5.0), ..place("z/z", "eu", 2, 1.0) };
    let far = Candidate { cost_ms: Some(9.0), ..place("a/a", "eu", 2, 1.0) };
    let unknown = place("b/b", "eu", 2, 1.0);
    let expected: [&[&str]; 1] = [&["z/z", "a/a", "b/b"]];
    assert_eq!(names(&[unknown, far, near], &[]), expected);
}

fn any_place() -> impl Strategy<Value = Candidate> {
    (0usize..4, 0usize..3, 0usize..6, prop::option::of(0u32..300), 0u32..4).prop_map(|(c, z, ring, cost, room)| {
        let cluster = ["us-east", "us-two", "eu", "ap"][c];
        let region = ["us", "us", "eu", "ap"][c];
        let zone = ZoneId::new(cluster, ["a", "b", "c"][z]);
        let cost_ms = cost.map(f64::from);
        Candidate { zone, region: region.into(), ring, cost_ms, headroom: f64::from(room) }
    })
}

proptest! {
    /// The order is total and deterministic: it does not depend on the order in which places are listed.
    #[test]
    fn the_order_does_not_depend_on_the_listing(
        mut places in prop::collection::vec(any_place(), 0..12),
        seed in any::<u64>(),
        named in prop::collection::vec(prop::sample::select(vec!["eu", "ap", "us-two"]), 0..3),
    ) {
        places.sort_by(|a, b| a.zone.cmp(&b.zone));
        places.dedup_by(|a, b| a.zone == b.zone);
        let mut shuffled = places.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        let priorities = names(&places, &named);
        prop_assert_eq!(&priorities, &names(&shuffled, &named));
        prop_assert_eq!(priorities.iter().flatten().count(), places.len());
        prop_assert!(priorities.iter().all(|priority| !priority.is_empty()));
        let levels = levels(&places, &named);
        prop_assert!(levels.is_sorted_by(|a, b| a < b), "farther is a higher level: {levels:?}");
        prop_assert_eq!(levels.contains(&0), places.iter().any(|place| place.zone == caller().zone));
    }
}
