use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(5_000);

/// A GET whose connection broke after it was sent.
fn broken() -> AttemptEnd {
    AttemptEnd {
        progress: Progress::Sent,
        fault: Fault::Stated,
        repeatable: Repeatable::Always,
        probe: false,
        other_locality: true,
        retry_after: None,
    }
}

/// Decides as for one request after the other with the same end; returns the decisions until it gives up.
fn decisions(end: AttemptEnd, budget: &RetryBudget) -> (u32, GiveUp) {
    let (policy, mut retries, mut rng) = (RetryPolicy::default(), Retries::default(), fastrand::Rng::with_seed(1));
    for retry in 0..100 {
        match policy.decide(&mut retries, &end, &[budget], Deadline::NONE, NOW, &mut rng) {
            Decision::Retry { .. } => {}
            Decision::GiveUp(why) => return (retry, why),
        }
    }
    panic!("retries without end");
}

#[test]
fn what_was_sent_is_tried_twice_and_what_was_not_four_times() {
    assert_eq!(decisions(broken(), &RetryBudget::default()), (1, GiveUp::Attempts));
    let refused = AttemptEnd { progress: Progress::Connecting, repeatable: Repeatable::Unsent, ..broken() };
    assert_eq!(decisions(refused, &RetryBudget::default()), (3, GiveUp::Attempts));
}

#[test]
fn kept_connections_that_had_been_closed_cost_no_attempt() {
    let stale = AttemptEnd { fault: Fault::Nobody, ..broken() };
    assert_eq!(decisions(stale, &RetryBudget::new(0.0, 0)), (3, GiveUp::Attempts));
    let unsafe_to_repeat = AttemptEnd { repeatable: Repeatable::Unsent, ..stale };
    assert_eq!(decisions(unsafe_to_repeat, &RetryBudget::default()), (0, GiveUp::NotIdempotent));
}

#[test]
fn a_probe_costs_no_attempt_but_does_not_go_on_for_ever() {
    let budget = RetryBudget::default();
    let (policy, mut retries, mut rng) = (RetryPolicy::default(), Retries::default(), fastrand::Rng::with_seed(1));
    let mut decide = |end| policy.decide(&mut retries, &end, &[&budget], Deadline::NONE, NOW, &mut rng);
    assert_eq!(decide(AttemptEnd { probe: true, ..broken() }), Decision::Retry { after: Duration::ZERO });
    assert!(matches!(decide(broken()), Decision::Retry { .. }));
    assert_eq!(decide(broken()), Decision::GiveUp(GiveUp::Attempts));
    assert_eq!(retries.failed(), 3);
    let end = AttemptEnd { probe: true, ..broken() };
    assert_eq!(decisions(end, &budget), (MAX_PROBES, GiveUp::Attempts));
}

#[test]
fn nothing_is_repeated_that_could_do_harm() {
    let budget = RetryBudget::default();
    for (end, why) in [
        (AttemptEnd { repeatable: Repeatable::Unsent, ..broken() }, GiveUp::NotIdempotent),
        (AttemptEnd { repeatable: Repeatable::Never, ..broken() }, GiveUp::BodyGone),
    ] {
        assert_eq!(decisions(end, &budget), (0, why));
    }
    assert_eq!(budget.used(NOW), 0);
}

#[test]
fn the_first_retry_on_another_locality_does_not_wait() {
    let (policy, budget) = (RetryPolicy::default(), RetryBudget::default());
    let mut rng = fastrand::Rng::with_seed(9);
    let mut first =
        |end: AttemptEnd| policy.decide(&mut Retries::default(), &end, &[&budget], Deadline::NONE, NOW, &mut rng);
    assert_eq!(first(broken()), Decision::Retry { after: Duration::ZERO });
    let blames_nobody = AttemptEnd { other_locality: false, fault: Fault::Nobody, ..broken() };
    assert_eq!(first(blames_nobody), Decision::Retry { after: Duration::ZERO });
    let same_locality = AttemptEnd { other_locality: false, ..broken() };
    let Decision::Retry { after } = first(same_locality) else { panic!("retried") };
    assert!(after > Duration::ZERO && after <= Duration::from_millis(25), "{after:?}");
}

#[test]
fn retry_after_is_honoured_up_to_the_deadline() {
    let (policy, budget) = (RetryPolicy::default(), RetryBudget::default());
    let mut rng = fastrand::Rng::with_seed(9);
    let end = AttemptEnd { progress: Progress::Answered, retry_after: Some(Duration::from_secs(2)), ..broken() };
    let mut decide = |deadline| policy.decide(&mut Retries::default(), &end, &[&budget], deadline, NOW, &mut rng);
    assert_eq!(decide(Deadline::after(Duration::from_secs(3), NOW)), Decision::Retry { after: Duration::from_secs(2) });
    assert_eq!(decide(Deadline::after(Duration::from_secs(2), NOW)), Decision::GiveUp(GiveUp::Deadline));
}

#[test]
fn connect_failures_draw_nothing_from_the_budget_and_others_from_each() {
    let empty = RetryBudget::new(0.0, 0);
    assert_eq!(decisions(broken(), &empty), (0, GiveUp::Budget));
    let refused = AttemptEnd { progress: Progress::Connecting, ..broken() };
    assert_eq!(decisions(refused, &empty), (3, GiveUp::Attempts));

    let (own, across) = (RetryBudget::default(), RetryBudget::new(0.0, 0));
    let mut rng = fastrand::Rng::with_seed(9);
    let decision = RetryPolicy::default().decide(
        &mut Retries::default(),
        &broken(),
        &[&own, &across],
        Deadline::NONE,
        NOW,
        &mut rng,
    );
    assert_eq!(decision, Decision::GiveUp(GiveUp::Budget));
}

#[test]
fn a_retry_that_both_budgets_grant_costs_both() {
    let (own, across) = (RetryBudget::default(), RetryBudget::default());
    let (policy, mut retries, mut rng) = (RetryPolicy::default(), Retries::default(), fastrand::Rng::with_seed(1));
    let decision = policy.decide(&mut retries, &broken(), &[&own, &across], Deadline::NONE, NOW, &mut rng);
    assert!(matches!(decision, Decision::Retry { .. }));
    assert_eq!((own.used(NOW), across.used(NOW)), (1, 1));
}

#[test]
fn a_retry_that_one_budget_refuses_costs_the_other_nothing() {
    let (own, across) = (RetryBudget::default(), RetryBudget::new(0.0, 0));
    let (policy, mut retries, mut rng) = (RetryPolicy::default(), Retries::default(), fastrand::Rng::with_seed(1));
    let decision = policy.decide(&mut retries, &broken(), &[&own, &across], Deadline::NONE, NOW, &mut rng);
    assert_eq!(decision, Decision::GiveUp(GiveUp::Budget));
    assert_eq!((own.used(NOW), across.used(NOW)), (0, 0));
}

#[test]
fn answers_are_not_retried_while_most_attempts_fail() {
    let budget = RetryBudget::default();
    (0..20).for_each(|i| budget.record_end(i % 3 != 0, NOW));
    let answered = AttemptEnd { progress: Progress::Answered, ..broken() };
    assert_eq!(decisions(answered, &budget), (0, GiveUp::MostlyFailing));
    assert_eq!(decisions(broken(), &budget), (1, GiveUp::Attempts));
}

fn any_end() -> impl Strategy<Value = AttemptEnd> {
    let progress =
        prop::sample::select(vec![Progress::Connecting, Progress::Unsent, Progress::Sent, Progress::Answered]);
    let fault = prop::sample::select(vec![Fault::Nobody, Fault::Stated, Fault::Down, Fault::Silent]);
    let repeatable = prop::sample::select(vec![Repeatable::Always, Repeatable::Unsent, Repeatable::Never]);
    let wait = prop::option::of(0u64..5_000);
    (progress, fault, repeatable, any::<[bool; 2]>(), wait).prop_map(|(progress, fault, repeatable, flags, wait)| {
        let [probe, other_locality] = flags;
        AttemptEnd { progress, fault, repeatable, probe, other_locality, retry_after: wait.map(Duration::from_millis) }
    })
}

proptest! {
    /// Attempts stay within their bounds, whatever the ends are, and no retry begins after the deadline.
    #[test]
    fn attempts_stay_within_their_bounds(ends in prop::collection::vec(any_end(), 1..20), seed in any::<u64>()) {
        let (policy, budget) = (RetryPolicy::default(), RetryBudget::new(1.0, 100));
        let mut rng = fastrand::Rng::with_seed(seed);
        let deadline = Deadline::after(Duration::from_secs(15), NOW);
        let (mut retries, mut now) = (Retries::default(), NOW);
        let (mut sent, mut others, mut probes) = (0, 0, 0);
        for end in ends {
            prop_assert!(!deadline.passed(now));
            match end {
                AttemptEnd { probe: true, .. } => probes += 1,
                AttemptEnd { fault: Fault::Nobody, .. } => others += 1,
                end if !end.was_seen() => others += 1,
                _ => sent += 1,
            }
            match policy.decide(&mut retries, &end, &[&budget], deadline, now, &mut rng) {
                Decision::Retry { after } => {
                    prop_assert!(!end.was_seen() || end.repeatable == Repeatable::Always);
                    prop_assert!(end.repeatable != Repeatable::Never);
                    now = now + after;
                }
                Decision::GiveUp(_) => break,
            }
        }
        prop_assert!(sent <= policy.attempts && sent + others <= policy.attempts_in_all);
        prop_assert!(probes <= MAX_PROBES + 1);
    }
}
