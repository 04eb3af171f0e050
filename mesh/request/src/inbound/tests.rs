//! What becomes of calls, and what an application and its callers are told.

use eastway_core::head::{Edit, Fields};

use super::*;
use crate::answer::AnswerEnd;
use crate::testing::{Lines, World, head};
use crate::traffic_policy::TrafficPolicy;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn options() -> InboundOptions {
    InboundOptions {
        suffix: "mesh.internal".to_owned(),
        service: Some(ServiceName::new("shop", "payments")),
        trust_domain: "us-east.mesh.internal".to_owned(),
    }
}

fn caller(cluster: &str) -> Arc<SpiffeId> {
    Arc::new(SpiffeId::workload(&format!("{cluster}.mesh.internal"), "shop", "storefront"))
}

fn begin(recorder: &Lines, cluster: &str, layer: Layer, head: &RequestHead<'_>) -> Inbound<Lines> {
    let mut rng = fastrand::Rng::with_seed(5);
    Inbound::begin(recorder, &options(), (&caller(cluster), layer), head, Timestamp::from_millis(1_000), &mut rng)
}

/// What the cluster of `world` declares of its service.
fn rules(world: &World) -> InboundRules {
    let spec = world.entry.view().spec.clone();
    InboundRules { ports: spec.ports, export: spec.export.unwrap_or_default() }
}

/// What comes of a call's head.
fn admitted(cluster: &str, layer: Layer, method: &str, authority: &str) -> String {
    let world = World::new("a", TrafficPolicy::default());
    let head = RequestHead { authority, ..head(method, "/", &()) };
    let mut call = begin(&world.recorder, cluster, layer, &head);
    loop {
        return match call.step() {
            InboundStep::Rules => {
                call.ruled(Ok(Arc::new(rules(&world))), &world.mesh);
                continue;
            }
            InboundStep::Forward(..) => "forward".to_owned(),
            InboundStep::Stream => "stream".to_owned(),
            InboundStep::Either => "either".to_owned(),
            InboundStep::Serve => "serve".to_owned(),
            InboundStep::Refuse(refusal) => refusal.reason.to_string(),
        };
    }
}

#[test]
fn who_may_call_what_is_as_the_table_says() {
    const NAME: &str = "payments.shop.mesh.internal";
    let (own, peer, other) = ("us-east", "eu-west", "ap-south");
    for (cluster, layer, method, authority, expected) in [
        (own, Layer::Connection, "GET", NAME, "forward"),
        (own, Layer::Connection, "GET", "payments.shop.mesh.internal:5432", "forward"),
        (own, Layer::Connection, "GET", "refunds.shop.mesh.internal", "unknown_service"),
        (own, Layer::Connection, "GET", "example.com", "foreign_host"),
        (own, Layer::Connection, "GET", "", "foreign_host"),
        (own, Layer::Connection, "CONNECT", "payments.shop.mesh.internal:5432", "stream"),
        (own, Layer::Connection, "CONNECT", "payments.shop.mesh.internal:80", "serve"),
        (own, Layer::Connection, "CONNECT", "payments.shop.mesh.internal:50051", "serve"),
        (own, Layer::Connection, "CONNECT", "payments.shop.mesh.internal:22", "unknown_port"),
        (own, Layer::Connection, "CONNECT", NAME, "unknown_port"),
        (own, Layer::Connected, "GET", NAME, "forward"),
        (own, Layer::Connected, "CONNECT", "payments.shop.mesh.internal:5432", "malformed_request"),
        (peer, Layer::Connection, "GET", NAME, "forward"),
        (peer, Layer::Connection, "CONNECT", "payments.shop.mesh.internal:5432", "stream"),
        (peer, Layer::Connected, "GET", NAME, "forward"),
        (other, Layer::Connection, "GET", NAME, "identity_refused"),
        (other, Layer::Connection, "CONNECT", "payments.shop.mesh.internal:5432", "identity_refused"),
        (other, Layer::Connected, "GET", NAME, "identity_refused"),
    ] {
        assert_eq!(admitted(cluster, layer, method, authority), expected, "{cluster} {layer:?} {method} {authority}");
    }
}

#[test]
fn what_is_not_known_yet_is_told() {
    let recorder = Lines::default();
    let mut call = begin(&recorder, "eu-west", Layer::Connection, &head("GET", "/", &()));
    assert!(matches!(call.step(), InboundStep::Rules));
    call.ruled(Err(Reason::DiscoveryTimeout), &World::new("a", TrafficPolicy::default()).mesh);
    assert!(matches!(call.step(), InboundStep::Refuse(refusal) if refusal.reason == Reason::DiscoveryTimeout));
    drop(call);
    assert_eq!(recorder.take(), ["request: 503 discovery_timeout"]);
}

/// What an application is told of a request with these fields.
fn told(fields: &[(&str, &[u8])]) -> (Vec<Edit>, HttpVersion) {
    let mut call = begin(&Lines::default(), "us-east", Layer::Connection, &head("GET", "/", &fields));
    let InboundStep::Forward(edits, spoken) = call.step() else { panic!("it is admitted") };
    (edits.into_iter().collect(), spoken)
}

#[test]
fn an_application_is_told_the_verified_identity_and_nothing_that_a_caller_says_of_itself() {
    let (edits, spoken) = told(&[("eastway-source", b"forged"), ("eastway_source", b"forged")]);
    assert_eq!(edits[0], Edit::DropPrefix("eastway-"));
    let identity = "spiffe://us-east.mesh.internal/ns/shop/sa/storefront";
    assert_eq!(edits[1..], [Edit::Set("eastway-source".into(), identity.into())]);
    assert_eq!(spoken, HttpVersion::Http11);
    let head = RequestHead { version: HttpVersion::Http2, ..head("GET", "/", &()) };
    let mut call = begin(&Lines::default(), "us-east", Layer::Connection, &head);
    assert!(matches!(call.step(), InboundStep::Forward(_, HttpVersion::Http2)));
    let fields: &[(&str, &[u8])] = &[("eastway-spoken", b"http/1.1")];
    let mut call = begin(&Lines::default(), "us-east", Layer::Connection, &RequestHead { fields: &fields, ..head });
    assert!(matches!(call.step(), InboundStep::Forward(_, HttpVersion::Http11)), "over a session");
}

#[test]
fn a_trace_goes_on_unless_the_mesh_began_it_and_does_not_record_it() {
    let traceparent = |fields: &[(&str, &[u8])]| {
        let (edits, _) = told(fields);
        edits.into_iter().find_map(|edit| match edit {
            Edit::Set(name, value) if name == "traceparent" => Some(value.into_owned()),
            _ => None,
        })
    };
    let passed = traceparent(&[("traceparent", PARENT.as_bytes())]).expect("the caller brought it");
    assert!(passed.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && passed.ends_with("-00"), "{passed}");
    assert_eq!(traceparent(&[("eastway-traceparent", PARENT.as_bytes())]), None);
    assert_eq!(traceparent(&[]), None);
}

#[test]
fn an_answer_bears_the_load_and_nothing_that_an_application_says_in_the_meshs_name() {
    let recorder = Lines::default();
    let mut call = begin(&recorder, "us-east", Layer::Connection, &head("GET", "/", &()));
    assert!(matches!(call.step(), InboundStep::Forward(..)));
    let fields: &[(&str, &[u8])] = &[("proxy-status", b"forged"), ("grpc-status", b"0")];
    let (edits, mut answer) =
        call.answered(&ResponseHead { status: 200, fields: &fields }, Some("active=1".to_owned()));
    let edits: Vec<Edit> = edits.into_iter().collect();
    let load = Edit::Set("eastway-load".into(), "active=1".into());
    assert_eq!(edits, [Edit::DropPrefix("eastway-"), Edit::Drop("proxy-status".into()), load]);
    answer.data(3);
    answer.trailers(&[("grpc-status", b"13".as_slice())].as_slice());
    answer.end(AnswerEnd::Complete, Timestamp::from_millis(2_000));
    assert_eq!(recorder.take(), ["request: 200 grpc 13"]);
}

#[test]
fn every_call_is_recorded_once_however_it_ends() {
    let now = Timestamp::from_millis(2_000);
    let ended = |end: &dyn Fn(&mut Inbound<Lines>)| {
        let recorder = Lines::default();
        let mut call = begin(&recorder, "us-east", Layer::Connection, &head("GET", "/", &()));
        call.step();
        end(&mut call);
        drop(call);
        assert_eq!(std::rc::Rc::strong_count(&recorder.under_way), 1);
        recorder.take()
    };
    let answered = |call: &mut Inbound<Lines>, end| {
        let fields: &dyn Fields = &();
        call.answered(&ResponseHead { status: 200, fields }, None).1.end(end, now);
    };
    assert_eq!(ended(&|_| {}), ["request: nothing caller_gone"]);
    assert_eq!(ended(&|call| answered(call, AnswerEnd::Complete)), ["request: 200"]);
    assert_eq!(ended(&|call| answered(call, AnswerEnd::Dropped)), ["request: 200 caller_gone"]);
    assert_eq!(
        ended(&|call| answered(call, AnswerEnd::Failed(Reason::UpstreamReset))),
        ["request: 200 upstream_reset"]
    );
    assert_eq!(ended(&|call| drop(call.opened())), ["request: 200 caller_gone"]);
    let refused = ended(&|call| {
        call.failed(Reason::AppUnreachable);
        assert!(matches!(call.step(), InboundStep::Refuse(_)));
    });
    assert_eq!(refused, ["request: 503 app_unreachable"]);
}
