use eastway_resilience::Trigger;
use eastway_resilience::breaker::LANE_THRESHOLD;

use super::*;

fn circuit(trigger: Trigger) -> CircuitBreaker {
    let config = BreakerConfig { trigger, ..BreakerConfig::locality() };
    CircuitBreaker::new(&Arc::new(config), Timestamp::ZERO)
}

fn cusum() -> CircuitBreaker {
    circuit(BreakerConfig::locality().trigger)
}

const NOW: Timestamp = Timestamp::ZERO;
const P0: f64 = 0.01;

fn statistic(circuit: &CircuitBreaker) -> f64 {
    circuit.guard.lock().breaker.statistic(NOW)
}

#[test]
fn an_endpoint_alone_never_brings_its_locality_beyond_its_part() {
    let circuit = cusum();
    let failures = |contributor| (0..100).filter(|_| circuit.failed(Some(contributor), 3, P0, NOW)).count();
    assert_eq!(failures(1), 0);
    assert!((statistic(&circuit) - LANE_THRESHOLD / 3.0).abs() < 0.1, "{}", statistic(&circuit));
    assert_eq!(failures(2), 0);
    assert!((statistic(&circuit) - LANE_THRESHOLD * 2.0 / 3.0).abs() < 0.1, "{}", statistic(&circuit));
    assert!(failures(3) > 90, "three are enough");
}

#[test]
fn successes_take_evidence_back_and_then_forget_who_contributed() {
    let circuit = cusum();
    for contributor in 1..=3 {
        circuit.failed(Some(contributor), 3, P0, NOW);
    }
    let before = statistic(&circuit);
    assert!(!circuit.succeeded(false, None, P0, NOW));
    assert!(statistic(&circuit) < before);
    for _ in 0..100 {
        circuit.succeeded(false, None, P0, NOW);
    }
    assert_eq!(statistic(&circuit), 0.0);
    assert!(circuit.guard.lock().contributors.is_empty());
}

#[test]
fn a_success_waits_for_a_lock_only_where_it_counts() {
    let calm = cusum();
    let held = calm.guard.lock();
    assert!(!calm.succeeded(false, None, P0, NOW), "nothing to forget");
    drop(held);
    let limit = Duration::from_millis(10);
    let slow = circuit(Trigger::Latency { quantile: 0.5, limit, window: Duration::from_secs(10), min_requests: 5 });
    let wants = (0..5).filter(|_| slow.succeeded(true, Some(Duration::from_secs(1)), P0, NOW)).count();
    assert_eq!(wants, 1, "the fifth slow one");
}

#[test]
fn remote_endpoints_are_remembered_up_to_a_bound_and_those_in_use_first() {
    let rules = Arc::new(BreakerConfig::locality());
    let (state, zone) = (LocalityState::new(&rules, NOW), ZoneId::new("eu", "a"));
    let session = |i: usize| state.session(&EndpointId::new(format!("p-{i:04}")), &zone, &rules);
    let mut held: Vec<_> = (0..10).map(session).collect();
    (10..MAX_SESSIONS).for_each(|i| drop(session(i)));
    assert_eq!(state.known().len(), MAX_SESSIONS);
    assert!(Arc::ptr_eq(&session(3), &held[3]));
    assert_eq!(state.known().len(), MAX_SESSIONS, "a known one needs no room");
    held.push(session(9_000));
    let ids: Vec<_> = state.known().iter().map(|endpoint| endpoint.id.to_string()).collect();
    assert_eq!(ids.len(), 11, "those that nobody holds made room: {ids:?}");
    held.extend((10..MAX_SESSIONS - 1).map(session));
    assert_eq!(state.known().len(), MAX_SESSIONS);
    let beyond = session(9_001);
    assert_eq!(state.known().len(), MAX_SESSIONS, "all are in use");
    assert!(!Arc::ptr_eq(&beyond, &session(9_001)), "one too many is not remembered");
}
