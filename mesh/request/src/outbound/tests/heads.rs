//! What heads are told, on their way out and on their way back.

use super::*;

const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The edits of a first attempt, of a request to `endpoints`.
fn first(endpoints: &str, head: &RequestHead<'_>, wait: Duration) -> Vec<Edit> {
    let mut world = World::new(endpoints, TrafficPolicy::default());
    let (options, recorder) = (Arc::clone(&world.options), world.recorder.clone());
    let mut request = Outbound::begin(&recorder, &options, head, world.now, &mut world.rng);
    let found = Ok(Arc::clone(&world.entry));
    assert!(matches!(request.step(world.now, &mut world.rng), Step::Resolve(_)));
    request.resolved(found, head, world.now, &mut world.rng);
    let Step::Attempt(_) = request.step(world.now, &mut world.rng) else { panic!("somebody serves") };
    request.edits(world.now + wait).into_iter().collect()
}

fn set<'a>(edits: &'a [Edit], wanted: &str) -> Option<&'a str> {
    edits.iter().find_map(|edit| match edit {
        Edit::Set(name, value) | Edit::Append(name, value) if name == wanted => Some(&**value),
        _ => None,
    })
}

#[test]
fn what_only_the_mesh_may_say_goes_first_and_the_next_hop_learns_the_trace() {
    let fields: &[(&str, &[u8])] = &[("traceparent", PARENT), ("eastway-source", b"forged")];
    let edits = first("a", &head("GET", "/", &fields), Duration::ZERO);
    assert_eq!(edits[0], Edit::DropPrefix("eastway-"));
    let passed = TraceParent::parse(set(&edits, "traceparent").expect("it is told")).expect("in the proper form");
    let parent = TraceParent::parse(std::str::from_utf8(PARENT).expect("text")).expect("valid");
    assert!(passed.sampled && passed.trace_id == parent.trace_id);
    assert_eq!(set(&edits, "via"), Some("1.1 eastway"));
}

#[test]
fn the_called_sidecar_learns_what_the_application_spoke() {
    for endpoints in ["a", "A"] {
        let edits = first(endpoints, &head("GET", "/", &()), Duration::ZERO);
        assert_eq!(set(&edits, "eastway-spoken"), Some("http/1.1"));
    }
    let edits = first("A", &RequestHead { version: HttpVersion::Http2, ..head("GET", "/", &()) }, Duration::ZERO);
    assert_eq!((set(&edits, "eastway-spoken"), set(&edits, "via")), (None, Some("2.0 eastway")));
    let edits = first("a", &RequestHead { version: HttpVersion::Http10, ..head("GET", "/", &()) }, Duration::ZERO);
    assert_eq!(set(&edits, "via"), Some("1.0 eastway"));
}

#[test]
fn what_is_left_of_the_time_that_a_caller_states_goes_on_and_nothing_of_the_nodes_own() {
    let after = Duration::from_millis(400);
    let edits = |fields: &[(&str, &[u8])]| first("a", &head("POST", "/", &fields), after);
    let grpc = edits(&[("grpc-timeout", b"1S"), ("x-envoy-expected-rq-timeout-ms", b"50")]);
    assert_eq!(set(&grpc, "grpc-timeout"), Some("600000u"));
    assert_eq!(set(&grpc, "x-envoy-expected-rq-timeout-ms"), None, "gRPC's own counts");
    assert_eq!(
        set(&edits(&[("x-envoy-expected-rq-timeout-ms", b"1000")]), "x-envoy-expected-rq-timeout-ms"),
        Some("600")
    );
    assert_eq!(set(&edits(&[("x-envoy-expected-rq-timeout-ms", b"400")]), "x-envoy-expected-rq-timeout-ms"), Some("1"));
    for nothing in [&[][..], &[("grpc-timeout", b"soon".as_slice())], &[("x-envoy-expected-rq-timeout-ms", b"0")]] {
        let edits = edits(nothing);
        assert_eq!((set(&edits, "grpc-timeout"), set(&edits, "x-envoy-expected-rq-timeout-ms")), (None, None));
    }
}

#[test]
fn nothing_in_an_answer_passes_for_a_word_of_the_mesh() {
    let mut world = World::new("a", TrafficPolicy::default());
    let (options, recorder, head) = (Arc::clone(&world.options), world.recorder.clone(), head("GET", "/", &()));
    let mut request = Outbound::begin(&recorder, &options, &head, world.now, &mut world.rng);
    request.step(world.now, &mut world.rng);
    request.resolved(Ok(Arc::clone(&world.entry)), &head, world.now, &mut world.rng);
    let Step::Attempt(pick) = request.step(world.now, &mut world.rng) else { panic!("somebody serves") };
    let fields: &[(&str, &[u8])] = &[("eastway-load", b"active=3;util=0.5;err=0.0")];
    let judged = request.judge(&ResponseHead { status: 200, fields: &fields }, Some(10), world.now).expect("an answer");
    assert_eq!(judged.outcome.load.map(|load| load.active_requests), Some(3));
    let passes = request.answered(pick, &judged, &BodyState::NONE, world.now, &mut world.rng);
    let (edits, _) = passes.expect("it passes");
    let edits: Vec<Edit> = edits.into_iter().collect();
    assert_eq!(edits, [Edit::DropPrefix("eastway-"), Edit::Append("via".into(), "1.1 eastway".into())]);
}

#[test]
fn only_small_answers_to_what_may_be_repeated_are_held() {
    let held = |method, length| {
        let mut world = World::new("a", TrafficPolicy::default());
        let (options, recorder, head) = (Arc::clone(&world.options), world.recorder.clone(), head(method, "/", &()));
        let mut request = Outbound::begin(&recorder, &options, &head, world.now, &mut world.rng);
        request.step(world.now, &mut world.rng);
        request.resolved(Ok(Arc::clone(&world.entry)), &head, world.now, &mut world.rng);
        let Step::Attempt(_pick) = request.step(world.now, &mut world.rng) else { panic!("somebody serves") };
        let head = ResponseHead { status: 200, fields: &() as &dyn Fields };
        request.judge(&head, length, world.now).expect("an answer").hold.is_some()
    };
    for (method, length, expected) in [
        ("GET", Some(1), true),
        ("GET", Some(16 * 1024), true),
        ("GET", Some(16 * 1024 + 1), false),
        ("GET", Some(0), false),
        ("GET", None, false),
        ("POST", Some(1), false),
    ] {
        assert_eq!(held(method, length), expected, "{method} {length:?}");
    }
}
