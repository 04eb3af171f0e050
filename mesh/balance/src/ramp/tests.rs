use proptest::prelude::*;

use super::*;

fn policy() -> Policy {
    Policy { ramp_jitter: Duration::ZERO, ..Policy::default() }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

struct Locality {
    failback: FailbackRamp,
    policy: Policy,
    rng: fastrand::Rng,
}

impl Locality {
    fn new(policy: Policy) -> Self {
        Self { failback: FailbackRamp::default(), policy, rng: fastrand::Rng::with_seed(4) }
    }

    fn see(&mut self, available: bool, now: Timestamp) -> Option<u32> {
        self.see_returned(available, None, now)
    }

    fn see_returned(&mut self, available: bool, ago: Option<Duration>, now: Timestamp) -> Option<u32> {
        self.failback.observe(available, !available, ago, &self.policy, now, &mut self.rng);
        self.failback.poll(&self.policy, now, &mut self.rng);
        self.failback.cap(&self.policy, now)
    }
}

#[test]
fn the_written_vectors_of_a_ramp() {
    let length = Duration::from_secs(30);
    for (seconds, expected) in [(0, 0), (3, 1_000), (15, 5_000), (30, 10_000), (99, 10_000)] {
        assert_eq!(ramp(Duration::from_secs(seconds), length), expected);
    }
}

#[test]
fn a_first_view_is_not_ramped_and_a_return_is() {
    let mut locality = Locality::new(policy());
    assert_eq!(locality.see(true, at(0)), None);
    assert_eq!(locality.see(false, at(10)), None);
    assert_eq!(locality.see(true, at(20)), Some(0));
    assert_eq!(locality.see(true, at(23)), Some(1_000));
    assert_eq!(locality.see(true, at(35)), Some(5_000));
    assert_eq!(locality.see(true, at(50)), None);
}

#[test]
fn who_takes_more_than_its_ramp_allows_has_returned() {
    let mut locality = Locality::new(policy());
    locality.see(true, at(0));
    locality.see(false, at(10));
    assert_eq!(locality.see(true, at(20)), Some(0));
    assert_eq!(locality.see(true, at(23)), Some(1_000));
    assert!(!locality.failback.overtake(1_000, &locality.policy, at(23)));
    assert_eq!(locality.see(true, at(24)), Some(1_333));
    assert!(locality.failback.overtake(10_000, &locality.policy, at(24)));
    assert_eq!(locality.see(true, at(24)), None);
    assert!(!locality.failback.overtake(10_000, &locality.policy, at(25)), "nothing holds it back");
}

#[test]
fn a_locality_first_seen_failed_returns_and_one_first_seen_empty_does_not() {
    let mut failed = Locality::new(policy());
    failed.see(false, at(0));
    assert_eq!(failed.see(true, at(5)), Some(0));
    let (mut empty, policy) = (FailbackRamp::default(), policy());
    let mut rng = fastrand::Rng::with_seed(1);
    empty.observe(false, false, None, &policy, at(0), &mut rng);
    empty.observe(true, false, None, &policy, at(5), &mut rng);
    assert_eq!(empty.cap(&policy, at(5)), None);
}

#[test]
fn a_restarted_node_joins_in_the_middle_of_a_ramp() {
    let mut locality = Locality::new(policy());
    assert_eq!(locality.see_returned(true, Some(Duration::from_secs(12)), at(100)), Some(4_000));
    // The owner's word, repeated with a growing age, changes nothing.
    assert_eq!(locality.see_returned(true, Some(Duration::from_secs(15)), at(103)), Some(5_000));
    let mut long_back = Locality::new(policy());
    assert_eq!(long_back.see_returned(true, Some(Duration::from_secs(600)), at(100)), None);
}

#[test]
fn an_owners_word_about_an_earlier_return_is_not_believed() {
    let mut locality = Locality::new(policy());
    locality.see(true, at(0));
    locality.see(false, at(100));
    assert_eq!(locality.see_returned(true, Some(Duration::from_secs(40)), at(110)), Some(0));
    let mut other = Locality::new(policy());
    other.see(true, at(0));
    other.see(false, at(100));
    assert_eq!(other.see_returned(true, Some(Duration::from_secs(3)), at(110)), Some(1_000));
}

#[test]
fn a_ramp_under_pressure_is_halved_once_a_second() {
    let mut locality = Locality::new(policy());
    locality.see(true, at(0));
    locality.see(false, at(1));
    locality.see(true, at(2));
    let cap = |locality: &Locality, now| locality.failback.cap(&locality.policy, now).expect("ramping");
    assert_eq!(cap(&locality, at(14)), 4_000);
    assert!(!locality.failback.halve(0.5, at(14)), "no pressure");
    assert!(locality.failback.halve(0.6, at(14)));
    assert_eq!(cap(&locality, at(14)), 2_000);
    assert!(!locality.failback.halve(0.9, Timestamp::from_millis(14_900)));
    assert!(locality.failback.halve(0.9, at(15)));
    assert_eq!(cap(&locality, at(15)), 1_166);
}

#[test]
fn a_flapping_locality_is_kept_out_for_a_while() {
    let mut locality = Locality::new(policy());
    locality.see(true, at(0));
    let mut damped = None;
    for flap in 0..6 {
        locality.see(false, at(10 + flap * 20));
        locality.see(true, at(20 + flap * 20));
        if locality.failback.as_str() == "damped" {
            damped = Some(20 + flap * 20);
            break;
        }
    }
    let since = damped.expect("damped by the third flap or so");
    assert!(since <= 80, "damped only after {since} s");
    assert_eq!(locality.see(true, at(since + 60)), Some(0));
    let released = (since..since + 301).find(|second| {
        locality.see(true, at(*second));
        locality.failback.as_str() == "ramping"
    });
    assert!(released.is_some_and(|second| second > since + 60 && second <= since + 300), "{released:?}");
}

#[test]
fn damping_ends_after_five_minutes_at_most() {
    let mut locality = Locality::new(Policy {
        damping: Damping { half_life: Duration::from_secs(100_000), ..Damping::default() },
        ..policy()
    });
    for flap in 0..4 {
        locality.see(true, at(flap * 2));
        locality.see(false, at(flap * 2 + 1));
    }
    locality.see(true, at(10));
    assert_eq!(locality.failback.as_str(), "damped");
    locality.see(true, at(309));
    assert_eq!(locality.failback.as_str(), "damped");
    locality.see(true, at(310));
    assert_eq!(locality.failback.as_str(), "ramping");
}

fn headroom(priority: usize, cap: Option<u32>, ability: f64) -> Headroom {
    Headroom { priority, available: ability > 0.0, cap, ability, part: ability }
}

#[test]
fn what_a_returning_locality_does_not_take_stays_where_it_was() {
    let mut shares = [10_000, 0, 0];
    let headrooms = [headroom(0, Some(1_000), 14_000.0), headroom(1, None, 7_000.0), headroom(2, None, 14_000.0)];
    apply_caps(&mut shares, &headrooms);
    assert_eq!(shares, [1_000, 7_000, 2_000]);
}

#[test]
fn the_only_locality_takes_all_at_once() {
    let mut shares = [10_000, 0];
    apply_caps(&mut shares, &[headroom(0, Some(500), 14_000.0), headroom(1, None, 0.0)]);
    assert_eq!(shares, [10_000, 0]);
    let mut both = [6_000, 4_000];
    apply_caps(&mut both, &[headroom(0, Some(500), 9_000.0), headroom(1, Some(100), 9_000.0)]);
    assert_eq!(both, [6_000, 4_000]);
}

/// A region that returns: two zones whose ramps rise together, and another region that served meanwhile.
#[test]
fn what_the_nearest_does_not_take_yet_goes_to_the_next_up_to_its_own_ramp() {
    let divided = |near, next| {
        let mut shares = [10_000, 0, 0];
        apply_caps(
            &mut shares,
            &[headroom(0, near, 14_000.0), headroom(1, next, 14_000.0), headroom(2, None, 14_000.0)],
        );
        shares
    };
    assert_eq!(divided(Some(1_000), Some(1_000)), [1_000, 1_000, 8_000]);
    assert_eq!(divided(Some(5_000), Some(5_000)), [5_000, 5_000, 0]);
    assert_eq!(divided(Some(7_000), Some(9_000)), [7_000, 3_000, 0]);
    assert_eq!(divided(Some(2_000), None), [2_000, 8_000, 0]);
    assert_eq!(divided(None, Some(2_000)), [10_000, 0, 0], "what nothing holds back keeps all");
}

#[test]
fn localities_of_a_priority_fill_up_to_their_ramps_and_leave_the_rest_to_one_another() {
    let takes = |cap| headroom(1, cap, 7_000.0);
    let mut shares = [10_000, 0, 0, 0, 0];
    let held = headroom(0, Some(0), 14_000.0);
    apply_caps(&mut shares, &[held, takes(Some(500)), takes(Some(3_000)), takes(None), headroom(2, None, 14_000.0)]);
    assert_eq!(shares, [0, 500, 3_000, 6_500, 0]);
    let mut shares = [10_000, 0, 0];
    apply_caps(&mut shares, &[held, headroom(1, Some(9_000), 1_400.0), headroom(2, None, 14_000.0)]);
    assert_eq!(shares, [0, 1_400, 8_600], "no further than its endpoints can take it");
}

#[test]
fn a_ramp_is_not_filled_for_the_sake_of_one_further_away() {
    let mut shares = [5_000, 5_000, 0];
    apply_caps(
        &mut shares,
        &[headroom(0, Some(9_000), 9_000.0), headroom(1, Some(1_000), 9_000.0), headroom(2, None, 9_000.0)],
    );
    assert_eq!(shares, [5_000, 1_000, 4_000]);
}

#[test]
fn more_than_the_others_can_take_is_still_theirs() {
    let mut shares = [9_000, 1_000];
    apply_caps(&mut shares, &[headroom(0, Some(0), 14_000.0), headroom(0, None, 1_400.0)]);
    assert_eq!(shares, [0, 10_000]);
}

proptest! {
    /// Invariant 12, the share: never above the ramp while another locality can serve, nor above the target unless something
    /// at least as near is held back; and all is used.
    #[test]
    fn a_held_back_locality_stays_below_its_cap(
        localities in prop::collection::vec((0usize..3, prop::option::of(0u32..10_000), 0.0f64..14_000.0, any::<bool>()), 1..6),
        parts in prop::collection::vec(0.0f64..1.0, 6),
    ) {
        let headrooms: Vec<Headroom> = localities
            .iter()
            .map(|(priority, cap, ability, up)| headroom(*priority, *cap, if *up { *ability } else { 0.0 }))
            .collect();
        let parts: Vec<f64> = headrooms.iter().zip(parts).map(|(r, part)| if r.available { part } else { 0.0 }).collect();
        let targets = crate::table::apportion(&parts, S);
        let mut shares = targets.clone();
        apply_caps(&mut shares, &headrooms);
        prop_assert_eq!(shares.iter().sum::<u32>(), targets.iter().sum::<u32>());
        let others = headrooms.iter().any(|r| r.cap.is_none() && r.available);
        for ((share, target), headroom) in shares.iter().zip(&targets).zip(&headrooms) {
            let cut = |i: usize| headrooms[i].priority <= headroom.priority && headrooms[i].cap.is_some_and(|cap| cap < targets[i]);
            if let Some(cap) = headroom.cap {
                prop_assert!(share <= target || (0..headrooms.len()).any(cut));
                prop_assert!(!others || *share <= cap);
            }
            prop_assert!(headroom.available || share == target);
        }
    }

    /// Nothing passes a locality by that could take it and is nearer.
    #[test]
    fn what_is_held_back_goes_no_further_than_it_must(
        caps in prop::collection::vec(prop::option::of(0u32..10_000), 2..6), far in 1usize..4,
    ) {
        let headrooms: Vec<Headroom> = caps.iter().enumerate().map(|(priority, cap)| headroom(priority, *cap, 14_000.0)).collect();
        let headrooms: Vec<Headroom> = headrooms.into_iter().chain([headroom(caps.len() + far, None, 14_000.0)]).collect();
        let mut shares = vec![0; headrooms.len()];
        shares[0] = S;
        apply_caps(&mut shares, &headrooms);
        let mut rest = S;
        for (share, headroom) in shares.iter().zip(&headrooms) {
            prop_assert_eq!(*share, rest.min(headroom.cap.unwrap_or(S)));
            rest -= share;
        }
    }

    /// Invariant 12, the time: undisturbed, the ramp is over within 35 s.
    #[test]
    fn a_ramp_is_over_within_35_seconds(seed in any::<u64>()) {
        let mut locality = Locality { rng: fastrand::Rng::with_seed(seed), ..Locality::new(Policy::default()) };
        locality.see(true, at(0));
        locality.see(false, at(1));
        let mut last = locality.see(true, at(2));
        for second in 3..=37 {
            let cap = locality.see(true, at(second));
            prop_assert!(cap.unwrap_or(S) >= last.unwrap_or(S), "{last:?} then {cap:?}");
            prop_assert!(cap.unwrap_or(S) <= ramp(Duration::from_secs(second - 2), Duration::from_secs(30)));
            last = cap;
        }
        prop_assert_eq!(last, None);
    }
}

#[test]
fn what_is_held_back_goes_by_weight_to_the_localities_of_a_priority() {
    let takes = |part| Headroom { priority: 0, available: true, cap: None, ability: 10_000.0, part };
    let held = Headroom { priority: 0, available: true, cap: Some(0), ability: 10_000.0, part: 1.0 };
    let mut shares = [8_000, 2_000, 0];
    apply_caps(&mut shares, &[held, takes(1.0), takes(0.0)]);
    assert_eq!(shares, [0, 10_000, 0], "the operator weighs the last one 0");
    let mut shares = [8_000, 2_000, 0];
    apply_caps(&mut shares, &[held, takes(1.0), takes(3.0)]);
    assert_eq!(shares, [0, 4_000, 6_000]);
    let mut shares = [8_000, 0, 0];
    apply_caps(&mut shares, &[held, takes(0.0), takes(0.0)]);
    assert_eq!(shares, [0, 4_000, 4_000], "what is weighed 0 serves when nothing else does");
}

#[test]
fn a_return_is_news_for_as_long_as_a_ramp_and_its_jitter_last() {
    for (ago, stage) in [(29_999, "ramping"), (34_999, "ramping"), (35_000, "serving"), (90_000, "serving")] {
        let (mut returning, mut rng) = (FailbackRamp::default(), fastrand::Rng::with_seed(4));
        let policy = Policy { ramp_jitter: Duration::from_secs(5), ..Policy::default() };
        returning.observe(true, false, Some(Duration::from_millis(ago)), &policy, at(1_000), &mut rng);
        assert_eq!(returning.as_str(), stage, "{ago} ms ago");
    }
}
