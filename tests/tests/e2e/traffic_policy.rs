//! Does what an operator, a caller or an application says of calls have its effect?

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use eastway_tests::apps::App;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, StoreKind, reaches, service};
use eastway_tests::wire::Wire;
use eastway_tests::{check, client, eventually};

use crate::http_within::{connect, switch, switch_with};
use crate::opaque::TCP;

/// A cluster in which `spec` is said of payments.
fn cluster(spec: &str) -> Lab {
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, "").declare("us-east", &[service("payments", spec)]);
    lab.start_gateway("us-east");
    lab
}

/// What a node's administration server says of payments.
fn explanation(node: &LabNode) -> Result<serde_json::Value, String> {
    let answered = client::get(node.at(15000), "/explain/shop/payments")?;
    check(answered.status == 200, || format!("{answered:?}"))?;
    Ok(answered.json())
}

/// Waits until the caller's sidecar knows so many endpoints that serve, without a request to any of them: a port that no
/// service has is found out after the service was looked up.
fn knows(storefront: &LabNode, endpoints: usize) {
    eventually("the endpoints are known", || {
        client::get(storefront.proxy(), "http://payments.shop.mesh.internal:9999/")?;
        let explained = explanation(storefront)?;
        let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        let localities: Vec<_> =
            list(&explained["priorities"]).iter().flat_map(|priority| list(&priority["localities"])).collect();
        let ready = localities
            .iter()
            .flat_map(|locality| list(&locality["endpoints"]))
            .filter(|end| end["health"] == "ready")
            .count();
        check(ready == endpoints, || format!("{explained}"))
    });
}

/// Payments speaks HTTP, and something else.
const PORTS: &str = "ports: [{ port: 80 }, { port: 9000, protocol: tcp }]";

fn answer(head: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n{head}\r\nok")
}

#[test]
fn an_attempt_that_takes_too_long_is_repeated_elsewhere() {
    let mut lab = cluster("retries: { perTry: 300ms }");
    // The first request waits for ever at whoever gets it; its second attempt goes to the other one.
    let waiting = Arc::new(AtomicUsize::new(1));
    let hosts = [lab.host(), lab.host()];
    let _apps = hosts.map(|ip| {
        let waiting = Arc::clone(&waiting);
        App::start((ip, 8080).into(), move |mut connection| {
            if connection.request().is_some() {
                if waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                    let _ = connection.wire.rest();
                    return;
                }
                connection.wire.send(answer(""));
            }
        })
    });
    for (ip, zone) in hosts.into_iter().zip(["a", "b"]) {
        lab.beside("us-east", zone, ip, "");
    }
    let storefront = lab.storefront("us-east", "a");
    knows(&storefront, 2);
    let answered = client::get(storefront.proxy(), PAYMENTS).expect("an answer");
    assert_eq!((answered.status, waiting.load(Ordering::SeqCst)), (200, 0), "{answered:?}");
    let retried = storefront.metric("eastway_attempts_total", &[r#"attempt="retry""#, r#"result="success""#]);
    assert_eq!(retried, Ok(1.0));
}

/// A cluster with one application, which remembers what it was asked, and its caller.
fn with_one_app() -> (Lab, App, LabNode) {
    let mut lab = cluster("");
    let ip = lab.host();
    let app = App::answering((ip, 8080).into(), answer(""));
    lab.beside("us-east", "a", ip, "");
    let storefront = lab.storefront("us-east", "a");
    knows(&storefront, 1);
    (lab, app, storefront)
}

#[test]
fn the_time_that_a_caller_gives_is_passed_on() {
    let (_lab, app, storefront) = with_one_app();
    let header = "x-envoy-expected-rq-timeout-ms: 5000";
    let answered = client::send(storefront.proxy(), "GET", PAYMENTS, &[header], b"").expect("an answer");
    assert_eq!(answered.status, 200);
    let seen = app.seen().last().cloned().unwrap_or_default().to_lowercase();
    let left = seen.lines().find_map(|line| line.strip_prefix("x-envoy-expected-rq-timeout-ms: "));
    let left: u64 = left.and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| panic!("no time in {seen}"));
    assert!((1..5_000).contains(&left), "{left} ms are left of 5000");
}

#[test]
fn a_grpc_deadline_is_the_callers_own_or_none() {
    let (_lab, app, storefront) = with_one_app();
    let grpc = "content-type: application/grpc";
    let passed_on = |headers: &[&str]| {
        let answered = client::send(storefront.proxy(), "POST", PAYMENTS, headers, b"").expect("an answer");
        assert_eq!(answered.status, 200);
        let seen = app.seen().last().cloned().unwrap_or_default().to_lowercase();
        seen.lines().find_map(|line| line.strip_prefix("grpc-timeout: ").map(|text| text.trim().to_owned()))
    };
    // Streams may go on for as long as they like.
    assert_eq!(passed_on(&[grpc]), None);
    let left = passed_on(&[grpc, "grpc-timeout: 1H"]).expect("a deadline");
    let millis: u64 = left.strip_suffix('m').and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{left}"));
    assert!((3_500_000..3_600_000).contains(&millis), "{left} are left of an hour");
}

#[test]
fn what_an_application_says_of_its_load_reaches_who_picks() {
    let mut lab = cluster("");
    let ip = lab.host();
    let _app =
        App::answering((ip, 8080).into(), answer("endpoint-load-metrics: TEXT application_utilization=0.75\r\n"));
    lab.beside("us-east", "a", ip, "");
    let storefront = lab.storefront("us-east", "a");
    knows(&storefront, 1);
    eventually("explain tells the utilisation", || {
        assert_eq!(client::get(storefront.proxy(), PAYMENTS)?.status, 200);
        let explained = explanation(&storefront)?;
        let utilisation = explained["priorities"][0]["localities"][0]["endpoints"][0]["utilisation"].as_f64();
        check(utilisation.is_some_and(|used| (0.6..=0.76).contains(&used)), || format!("{utilisation:?}"))
    });
}

#[test]
fn what_needs_a_connection_beyond_their_limit_is_refused_with_the_reason() {
    let mut lab = cluster("limits: { maxConnections: 2 }, retries: { attempts: 1 }");
    let ip = lab.host();
    let _app = App::switching((ip, 8080).into());
    lab.beside("us-east", "a", ip, "");
    let storefront = lab.storefront("us-east", "a");
    knows(&storefront, 1);
    // What changes its protocol after a body has a connection of its own, and everything else shares one.
    let open = || switch_with(storefront.proxy(), "Content-Length: 2\r\n\r\nhi");
    let shared = eventually("a stream of the shared connection", || switch(storefront.proxy()));
    let held = eventually("a connection", open);
    let refused = open().err().unwrap_or_else(|| panic!("a third connection"));
    assert!(refused.contains("request_limit"), "{refused}");
    drop(held);
    eventually("its place is given back", || open().map(drop));
    drop(shared);
}

#[test]
fn one_connection_carries_all_requests_and_streams_to_an_endpoint_from_the_first_burst_on() {
    let mut lab = cluster(&format!("{PORTS}, limits: {{ maxConnections: 1 }}"));
    let ip = lab.host();
    // Nothing is answered, so that everything is under way at once.
    let app = App::start((ip, 8080).into(), |mut connection| {
        if connection.request().is_some() {
            let _ = connection.wire.rest();
        }
    });
    lab.beside("us-east", "a", ip, "");
    let storefront = lab.storefront("us-east", "a");
    knows(&storefront, 1);
    let _requests = [(); 8].map(|()| {
        let mut wire = Wire::to(storefront.proxy());
        wire.send(format!("GET {PAYMENTS} HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\n\r\n"));
        wire
    });
    let _streams = [(); 8].map(|()| connect(storefront.proxy(), TCP).expect("a stream"));
    eventually("the requests are at the application", || {
        check(app.seen().len() == 8, || format!("{} of 8", app.seen().len()))
    });
}

/// Opens a stream, or says what the proxy said instead.
type Open<'a> = &'a dyn Fn() -> Result<Wire, String>;

#[test]
fn a_stream_counts_against_every_limit_until_it_ends() {
    for (limits, own, reason) in [
        ("maxRequests: 1", "", "stream_limit"),
        // Numbers of the sidecar's own, for the service and for each endpoint.
        ("", "limits: { opaqueStreams: 1 }\n", "stream_limit"),
        ("", "limits: { endpointRequests: 1 }\n", "request_limit"),
    ] {
        let mut lab = cluster(&format!("{PORTS}, limits: {{ {limits} }}, retries: {{ attempts: 1 }}"));
        let ip = lab.host();
        let _app = App::switching((ip, 8080).into());
        lab.beside("us-east", "a", ip, "");
        let storefront = lab.storefront_with("us-east", "a", own);
        knows(&storefront, 1);
        let connected = || connect(storefront.proxy(), TCP);
        let switched = || switch(storefront.proxy());
        let kinds: [(&str, Open<'_>); 2] = [("CONNECT", &connected), ("101", &switched)];
        for (kind, open) in kinds {
            let what = format!("a stream by {kind}, with {limits}{own}");
            let held = eventually(&what, open);
            for (second, open) in kinds {
                let refused = open().err().unwrap_or_else(|| panic!("{what}: another one by {second} beside it"));
                assert!(refused.contains(reason), "{what}, and by {second}: {refused}");
            }
            drop(held);
        }
        eventually("the place is given back", || connected().map(drop));
    }
}

#[test]
fn numbers_of_a_service_are_taken_at_sighup_and_a_fence_is_never_crossed() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
    lab.payments("eu-west", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "eu-west/a");
    let gateway = lab.gateway("us-east");
    let peer = lab.peer("eu-west", "imports: ['shop/*']");
    let fenced = service("payments", "export: ['*'], balancing: { algorithm: random, residency: [us-east] }");
    lab.declare("us-east", &[fenced, peer.clone()]);
    lab.process(&gateway.name).signal("HUP");
    eventually("no request leaves the region any more", || {
        let answered = client::get(storefront.proxy(), PAYMENTS)?;
        check(answered.reason() == Some("no_ready_endpoint"), || format!("{answered:?}"))
    });
    // A name of the other cluster is fenced in as well.
    let there = client::get(storefront.proxy(), "http://payments.shop.eu-west.mesh.internal/").expect("an answer");
    assert_eq!(there.reason(), Some("no_ready_endpoint"), "{there:?}");
    let nonsense = service("payments", "export: ['*'], balancing: { mode: envoy, ramp: 5s }");
    lab.declare("us-east", &[nonsense, peer.clone()]);
    lab.process(&gateway.name).signal("HUP");
    eventually("the gateway says what is wrong", || {
        let log = lab.process(&gateway.name).log();
        check(log.contains("it has no effect with `mode: envoy`"), || "not a word of it".to_owned())
    });
    lab.declare("us-east", &[service("payments", "export: ['*']"), peer]);
    lab.process(&gateway.name).signal("HUP");
    reaches(storefront.proxy(), "eu-west/a");
}

#[test]
fn a_fence_for_the_callers_of_a_cluster_shuts_nobody_else_out() {
    let mut lab = Lab::new();
    lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
    lab.payments("eu-west", "a", "payments-1");
    let beside = lab.storefront("eu-west", "a");
    reaches(beside.proxy(), "eu-west/a");
    let (gateway, peer) = (lab.gateway("eu-west"), lab.peer("us-east", "imports: ['shop/*']"));
    lab.declare("eu-west", &[service("payments", "export: ['*'], balancing: { residency: [us-east] }"), peer]);
    lab.process(&gateway.name).signal("HUP");
    eventually("its own callers may not stay in the region", || {
        let answered = client::get(beside.proxy(), PAYMENTS)?;
        check(answered.reason() == Some("no_ready_endpoint"), || format!("{answered:?}"))
    });
    // A caller that has no session yet.
    let beyond = lab.storefront("us-east", "a");
    reaches(beyond.proxy(), "eu-west/a");
}
