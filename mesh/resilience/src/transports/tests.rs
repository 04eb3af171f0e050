use proptest::prelude::*;

use super::*;

const BOTH: &[Transport] = &[Transport::Quic, Transport::Tcp];

const fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn choice() -> TransportChoice {
    TransportChoice::new(TransportConfig::default(), BOTH, at(0))
}

/// Works: the last ping was answered.
fn up(now: u64) -> TransportFacts {
    TransportFacts { state: PathState::Up, answered: Some(at(now)), loss: Some(0.0), silent_since: None }
}

/// Fell silent at `since`, and is down.
fn down(since: u64) -> TransportFacts {
    let answered = since.checked_sub(1).map(at);
    TransportFacts { state: PathState::Down, answered, loss: None, silent_since: Some(at(since)) }
}

fn losing(now: u64, loss: f64) -> TransportFacts {
    TransportFacts { loss: Some(loss), ..up(now) }
}

/// One that uses QUIC, while TCP works as well.
fn on_quic() -> TransportChoice {
    let mut choice = choice();
    choice.observe(Transport::Quic, up(10), at(10));
    choice.observe(Transport::Tcp, up(10), at(10));
    assert_eq!((choice.used(), choice.cause(), choice.state()), (Some(Transport::Quic), None, PathState::Up));
    choice
}

/// One that had to leave QUIC at `now`.
fn on_tcp(now: u64) -> TransportChoice {
    let mut choice = on_quic();
    choice.observe(Transport::Tcp, up(now), at(now));
    choice.observe(Transport::Quic, down(now), at(now));
    assert_eq!((choice.used(), choice.cause()), (Some(Transport::Tcp), Some(Cause::Blocked)));
    choice
}

#[test]
fn the_preferred_transport_has_a_head_start() {
    let mut choice = choice();
    choice.observe(Transport::Tcp, up(100), at(100));
    assert_eq!((choice.used(), choice.state()), (None, PathState::Unknown));
    assert_eq!(choice.poll(at(100)), Some(at(500)));
    choice.observe(Transport::Quic, up(400), at(400));
    assert_eq!(choice.used(), Some(Transport::Quic));
}

#[test]
fn another_is_used_if_the_preferred_one_does_not_come_up_in_time() {
    let mut choice = choice();
    choice.observe(Transport::Tcp, up(100), at(100));
    assert_eq!(choice.poll(at(500)), None);
    assert_eq!(
        (choice.used(), choice.cause(), choice.state()),
        (Some(Transport::Tcp), Some(Cause::Blocked), PathState::Up)
    );
}

#[test]
fn nobody_waits_for_a_preferred_transport_that_has_failed() {
    let mut choice = choice();
    choice.observe(Transport::Quic, down(0), at(50));
    choice.observe(Transport::Tcp, up(60), at(60));
    assert_eq!(choice.used(), Some(Transport::Tcp));
}

#[test]
fn a_path_is_down_only_if_every_transport_is() {
    let mut choice = choice();
    choice.observe(Transport::Tcp, down(0), at(10));
    assert_eq!(choice.state(), PathState::Unknown);
    choice.observe(Transport::Quic, down(0), at(20));
    assert_eq!(choice.state(), PathState::Down);
    choice.observe(Transport::Tcp, up(30), at(30));
    assert_eq!((choice.state(), choice.used()), (PathState::Up, Some(Transport::Tcp)));
}

#[test]
fn one_that_goes_down_is_replaced_by_one_that_answered_since_then_and_by_no_other() {
    let mut choice = on_quic();
    // Both fell silent at 1000: the gateway is gone. That TCP is not judged to be down yet makes no difference.
    choice.observe(Transport::Tcp, up(990), at(1010));
    choice.observe(Transport::Quic, down(1000), at(1310));
    assert_eq!((choice.used(), choice.state()), (Some(Transport::Quic), PathState::Down));
    choice.observe(Transport::Tcp, up(1200), at(1400));
    assert_eq!((choice.used(), choice.state()), (Some(Transport::Tcp), PathState::Up));
}

#[test]
fn the_preferred_one_returns_when_it_has_worked_for_a_while() {
    let mut choice = on_tcp(1000);
    choice.observe(Transport::Quic, up(2000), at(2000));
    assert_eq!(choice.poll(at(2000)), Some(at(7000)));
    // A break begins it anew.
    choice.observe(Transport::Quic, TransportFacts { state: PathState::Suspect, ..up(6000) }, at(6500));
    choice.observe(Transport::Quic, up(6600), at(6600));
    assert_eq!(choice.poll(at(7000)), Some(at(11_600)));
    assert_eq!((choice.used(), choice.cause()), (Some(Transport::Tcp), Some(Cause::Recovering)));
    choice.poll(at(11_600));
    assert_eq!((choice.used(), choice.cause()), (Some(Transport::Quic), None));
}

#[test]
fn each_failure_soon_after_a_return_doubles_the_while_up_to_a_bound() {
    let mut choice = on_tcp(1000);
    let mut now = 2000;
    for expected in [5, 10, 20, 40, 80, 160, 300, 300] {
        choice.observe(Transport::Quic, up(now), at(now));
        assert_eq!(choice.poll(at(now)), Some(at(now + expected * 1000)));
        now += expected * 1000;
        choice.poll(at(now));
        assert_eq!(choice.used(), Some(Transport::Quic));
        now += 1000;
        choice.observe(Transport::Tcp, up(now), at(now));
        choice.observe(Transport::Quic, down(now), at(now));
        assert_eq!((choice.used(), choice.cause()), (Some(Transport::Tcp), Some(Cause::Blocked)));
    }
    // One that works for long begins with the shortest again.
    choice.observe(Transport::Quic, up(now), at(now));
    now += 300_000;
    choice.poll(at(now));
    now += 3_000_001;
    choice.observe(Transport::Tcp, up(now), at(now));
    choice.observe(Transport::Quic, down(now), at(now));
    choice.observe(Transport::Quic, up(now), at(now));
    assert_eq!(choice.poll(at(now)), Some(at(now + 5000)));
}

#[test]
fn one_that_loses_far_more_than_another_for_long_is_left_and_returns_when_it_does_so_no_longer() {
    let mut choice = on_quic();
    choice.observe(Transport::Tcp, losing(1000, 0.02), at(1000));
    choice.observe(Transport::Quic, losing(1000, 0.2), at(1000));
    assert_eq!(choice.poll(at(1000)), Some(at(11_000)));
    choice.poll(at(10_999));
    assert_eq!(choice.used(), Some(Transport::Quic));
    choice.poll(at(11_000));
    assert_eq!((choice.used(), choice.cause()), (Some(Transport::Tcp), Some(Cause::Lossy)));
    choice.observe(Transport::Quic, losing(20_000, 0.05), at(20_000));
    choice.poll(at(100_000));
    assert_eq!(choice.used(), Some(Transport::Tcp), "it still loses too much");
    choice.observe(Transport::Quic, losing(100_000, 0.01), at(100_000));
    choice.poll(at(105_000));
    assert_eq!(choice.used(), Some(Transport::Quic));
}

#[test]
fn losses_that_another_has_as_well_change_nothing() {
    let mut choice = on_quic();
    choice.observe(Transport::Quic, losing(1000, 0.3), at(1000));
    choice.observe(Transport::Tcp, losing(1000, 0.2), at(1000));
    choice.poll(at(600_000));
    assert_eq!(choice.used(), Some(Transport::Quic));
    // Nor do those that end in time.
    choice.observe(Transport::Tcp, losing(600_000, 0.0), at(600_000));
    choice.observe(Transport::Quic, losing(605_000, 0.0), at(605_000));
    choice.poll(at(700_000));
    assert_eq!(choice.used(), Some(Transport::Quic));
}

#[test]
fn a_single_transport_is_used_as_it_is() {
    let mut choice = TransportChoice::new(TransportConfig::default(), &[Transport::Tcp], at(0));
    choice.observe(Transport::Quic, up(5), at(5));
    assert_eq!(choice.used(), None, "it may not be used");
    choice.observe(Transport::Tcp, up(10), at(10));
    assert_eq!((choice.used(), choice.cause()), (Some(Transport::Tcp), None));
    choice.observe(Transport::Tcp, down(20), at(20));
    assert_eq!((choice.used(), choice.state()), (Some(Transport::Tcp), PathState::Down));
}

#[derive(Clone, Debug)]
struct Observed {
    after: u64,
    transport: Transport,
    facts: (PathState, u64, u64, f64),
}

fn observed() -> impl Strategy<Value = Observed> {
    let state = prop_oneof![
        4 => Just(PathState::Up),
        1 => Just(PathState::Suspect),
        2 => Just(PathState::Down),
        1 => Just(PathState::Unknown),
    ];
    let transport = prop_oneof![Just(Transport::Quic), Just(Transport::Tcp)];
    (0..3000_u64, transport, state, 0..500_u64, 0..500_u64, prop_oneof![Just(0.0), Just(0.03), Just(0.2), Just(0.9)])
        .prop_map(|(after, transport, state, silent, answered, loss)| Observed {
            after,
            transport,
            facts: (state, silent, answered, loss),
        })
}

proptest! {
    #[test]
    fn whatever_is_observed_the_choice_keeps_its_word(all in proptest::collection::vec(observed(), 1..400)) {
        let mut choice = choice();
        let mut known = std::collections::BTreeMap::new();
        let mut now = 0;
        let mut returns: Vec<u64> = Vec::new();
        for Observed { after, transport, facts: (state, silent, answered, loss) } in all {
            now += after;
            let facts = TransportFacts {
                state,
                silent_since: (state == PathState::Down).then(|| at(now.saturating_sub(silent))),
                answered: Some(at(now.saturating_sub(answered))),
                loss: Some(loss),
            };
            let before = choice.used();
            known.insert(transport, facts);
            choice.observe(transport, facts, at(now));
            let next = choice.poll(at(now));
            prop_assert!(next.is_none_or(|next| next > at(now)));

            let Some(used) = choice.used() else { continue };
            let seen: TransportFacts = known.get(&used).copied().unwrap_or_default();
            prop_assert_eq!(choice.state(), seen.state);
            prop_assert_eq!(choice.cause().is_some(), used == Transport::Tcp);
            if before != Some(used) {
                prop_assert_eq!(seen.state, PathState::Up, "only one that works takes over");
                let left_down = before.and_then(|before| known.get(&before)).is_some_and(|was| was.state == PathState::Down);
                if used == Transport::Quic && before.is_some() && !left_down {
                    // While the other one works, there is a whole probation between two returns.
                    prop_assert!(returns.last().is_none_or(|last| now - last >= 5000));
                    returns.push(now);
                }
            }
            // A path over which something fresh is known to work is not down.
            if seen.state == PathState::Down {
                let silent_since = seen.silent_since.expect("set above");
                let fresh = |facts: &TransportFacts| facts.state == PathState::Up && facts.answered >= Some(silent_since);
                prop_assert!(!known.values().any(fresh));
            }
        }
        // When both work well for long, the preferred one is used.
        for _ in 0..2 {
            for transport in [Transport::Quic, Transport::Tcp] {
                choice.observe(transport, up(now), at(now));
            }
            now += 400_000;
            choice.poll(at(now));
        }
        prop_assert_eq!(choice.used(), Some(Transport::Quic));
    }
}
