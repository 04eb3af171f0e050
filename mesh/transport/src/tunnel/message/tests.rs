//! Tests of the messages.

use proptest::prelude::*;

use super::*;
use crate::testing::caller;

/// Without its length.
fn body(encoded: Bytes) -> Bytes {
    encoded.slice(4..)
}

fn opens() -> impl Strategy<Value = StreamOpen> {
    let trace = (1_u128.., 1_u64.., any::<bool>());
    let trace = trace.prop_map(|(trace_id, span_id, sampled)| TraceParent { trace_id, span_id, sampled });
    let exclude = prop::collection::vec("[a-z0-9-]{1,20}".prop_map(EndpointId::new), 0..5);
    let zone = prop::option::of("[a-z]{1,8}");
    let text = "[ -~]{0,80}";
    ("[a-z.:0-9]{1,60}", zone, exclude, 1_u32.., prop::option::of(trace), text, text).prop_map(
        |(authority, zone, exclude, attempt, traceparent, tracestate, baggage)| StreamOpen {
            authority,
            source: caller(),
            zone,
            exclude,
            attempt,
            traceparent,
            tracestate,
            baggage,
        },
    )
}

proptest! {
    #[test]
    fn opening_messages_round_trip(open in opens()) {
        prop_assert_eq!(StreamOpen::decode(&body(open.encode().expect("small"))).expect("decoded"), open);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = StreamOpen::decode(&bytes);
        let _ = StreamReply::decode(&bytes);
    }
}

#[test]
fn answers_round_trip() {
    let accepted = StreamAccepted {
        endpoint: EndpointId::new("payments-1"),
        zone: Some("a".to_owned()),
        load: LoadReport::from_header("active=3;util=0.5"),
    };
    let mut replies = vec![
        StreamReply::Accepted(accepted),
        StreamReply::Accepted(StreamAccepted { endpoint: EndpointId::new("x"), zone: None, load: None }),
    ];
    let refused = |&reason| StreamReply::Refused { reason, message: "details".to_owned() };
    replies.extend(Reason::ALL.iter().map(refused));
    for reply in replies {
        assert_eq!(StreamReply::decode(&body(reply.encode().expect("small"))), Ok(reply));
    }
}

#[test]
fn a_message_without_the_essentials_is_malformed() {
    let wire = wire::StreamOpen { source: caller().to_string(), ..wire::StreamOpen::default() };
    assert_eq!(StreamOpen::decode(&wire.encode_to_vec()), Err(Malformed::Missing("authority")));
    let wire = wire::StreamOpen { authority: "a.b.mesh.internal:80".to_owned(), ..wire::StreamOpen::default() };
    assert!(matches!(StreamOpen::decode(&wire.encode_to_vec()), Err(Malformed::Source(_))));
    assert_eq!(StreamReply::decode(&[]), Err(Malformed::Missing("outcome")));
}

#[test]
fn a_message_that_names_more_than_32_endpoints_to_avoid_is_malformed() {
    let named = |count: usize| {
        let exclude = (0..count).map(|n| format!("p-{n}")).collect();
        let (authority, source) = ("a.b.mesh.internal:80".to_owned(), caller().to_string());
        let wire = wire::StreamOpen { authority, source, exclude, ..wire::StreamOpen::default() };
        StreamOpen::decode(&wire.encode_to_vec()).map(|open| open.exclude.len())
    };
    assert_eq!(named(32), Ok(32));
    assert_eq!(named(33), Err(Malformed::Excluded(33)));
    assert_eq!(named(9_000), Err(Malformed::Excluded(9_000)));
}

#[test]
fn hints_that_cannot_be_read_do_not_cost_the_request() {
    let wire = wire::StreamOpen {
        authority: "a.b.mesh.internal:80".to_owned(),
        source: caller().to_string(),
        exclude: vec![String::new()],
        traceparent: "nonsense".to_owned(),
        ..wire::StreamOpen::default()
    };
    let open = StreamOpen::decode(&wire.encode_to_vec()).expect("read");
    assert_eq!(open, StreamOpen::new("a.b.mesh.internal:80", caller()));
}

#[test]
fn a_reason_of_a_newer_version_is_safe_to_retry() {
    let refused = wire::StreamRefused { reason: 4_000_000_000, message: "new".to_owned() };
    let wire = wire::StreamReply { outcome: Some(wire::stream_reply::Outcome::Refused(refused)) };
    let Ok(StreamReply::Refused { reason, message }) = StreamReply::decode(&wire.encode_to_vec()) else {
        panic!("a refusal")
    };
    assert!(reason.nothing_sent());
    assert!(message.contains("4000000000") && message.contains("new"));
}

#[test]
fn a_refusal_always_fits() {
    let reply = StreamReply::Refused { reason: Reason::Internal, message: "é".repeat(1 << 20) };
    assert!(reply.encode().expect("fits").len() < 2048);
}
