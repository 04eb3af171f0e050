//! However a request ends, it is counted once, with its reason, in the metrics and in the access log.

use eastway_tests::apps::App;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, StoreKind};
use eastway_tests::wire::Wire;
use eastway_tests::{check, client, eventually};
use serde_json::Value;

use crate::http_within::{connect, known};
use crate::opaque::TCP;

/// An application that leaves a request without an answer, breaks one off, or echoes what is no HTTP.
fn odd(mut connection: eastway_tests::apps::Connection) {
    let Ok(head) = connection.wire.until("\r\n\r\n") else { return };
    connection.note(&head);
    if head.contains("/held") {
        let _ = connection.wire.rest();
    } else if head.contains("/cut") {
        connection.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nnot all of it");
    } else {
        connection.wire.send(&head);
        let _ = connection.wire.rest();
    }
}

/// One cluster with that application; answers it, the called sidecar and the caller's, both with an access log.
fn lab() -> (Lab, App, LabNode, LabNode) {
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Embedded);
    let ip = lab.host();
    let app = App::start((ip, 8080).into(), odd);
    let payments = lab.beside("us-east", "a", ip, "telemetry: { accessLog: { path: inbound.jsonl } }\n");
    let storefront = lab.storefront_with("us-east", "a", "telemetry: { accessLog: { path: outbound.jsonl } }\n");
    known(storefront.proxy(), "payments.shop.mesh.internal");
    (lab, app, payments, storefront)
}

/// Waits for the lines of an access log that name this reason, and answers the first.
fn logged(lab: &Lab, log: &str, reason: &str) -> Value {
    let path = lab.path(log);
    eventually(&format!("{log} tells of {reason}"), || {
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["reason"] == reason).ok_or(text)
    })
}

/// Waits until exactly one request in this direction was counted with these labels.
fn once(node: &LabNode, direction: &str, labels: &[&str]) {
    let direction = format!(r#"direction="{direction}""#);
    let labels = [&[direction.as_str()], labels].concat();
    eventually(&format!("{labels:?} at {}", node.name), || {
        let counted = node.metric("eastway_requests_total", &labels)?;
        check(counted == 1.0, || format!("{counted} in\n{}", node.metrics().unwrap_or_default()))
    });
}

#[test]
fn a_request_that_its_caller_cancels_is_counted_once_on_both_sides() {
    let (lab, app, payments, storefront) = lab();
    let mut wire = Wire::to(storefront.proxy());
    wire.send(format!(
        "POST {PAYMENTS}held HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\nContent-Length: 0\r\n\r\n"
    ));
    eventually("the request is at the application", || {
        check(app.seen().iter().any(|head| head.contains("/held")), || format!("{:?}", app.seen()))
    });
    drop(wire);
    let gone = [r#"code="none""#, r#"reason="caller_gone""#];
    once(&storefront, "outbound", &gone);
    once(&payments, "inbound", &gone);
    eventually("its attempt is counted", || {
        let counted = storefront.metric("eastway_attempts_total", &[r#"result="cancelled""#])?;
        check(counted == 1.0, || format!("{counted}"))
    });
    let line = logged(&lab, "outbound.jsonl", "caller_gone");
    assert_eq!((line["status"].as_u64(), line["attempts"][0]["kind"].as_str()), (Some(499), Some("first")), "{line}");
    let line = logged(&lab, "inbound.jsonl", "caller_gone");
    let source = line["source"].as_str().unwrap_or_default().to_owned();
    assert!(line["direction"] == "inbound" && source.ends_with("/sa/storefront"), "{line}");
}

#[test]
fn an_answer_that_breaks_off_is_no_success() {
    let (lab, _app, _, storefront) = lab();
    assert!(client::get(storefront.proxy(), &format!("{PAYMENTS}cut")).is_err(), "the answer is cut short");
    once(&storefront, "outbound", &[r#"code="none""#, r#"reason="upstream_reset""#]);
    let failed = storefront.metric("eastway_attempts_total", &[r#"result="failure""#]).expect("metrics");
    assert_eq!(failed, 1.0);
    let line = logged(&lab, "outbound.jsonl", "upstream_reset");
    assert_eq!((line["status"].as_u64(), line["received_bytes"].as_u64()), (Some(200), Some(13)), "{line}");
}

#[test]
fn the_bytes_of_a_stream_are_counted_while_it_is_open_and_the_stream_when_it_ends() {
    let (_lab, _app, payments, storefront) = lab();
    let before = storefront.metric("eastway_attempts_total", &[r#"attempt="first""#]).expect("metrics");
    let mut open = connect(storefront.proxy(), TCP).expect("a stream");
    open.send("some bytes\r\n\r\n");
    assert_eq!(open.exactly(14).expect("an echo"), b"some bytes\r\n\r\n");
    for (node, direction) in [(&storefront, r#"direction="outbound""#), (&payments, r#"direction="inbound""#)] {
        for name in ["eastway_stream_sent_bytes_total", "eastway_stream_received_bytes_total"] {
            eventually(&format!("{name} at {}", node.name), || {
                let counted = node.metric(name, &[direction])?;
                check(counted == 14.0, || format!("{counted}"))
            });
        }
    }
    let after = storefront.metric("eastway_attempts_total", &[r#"attempt="first""#, r#"result="success""#]);
    assert!(after.expect("metrics") > 0.0, "before: {before}");
    let ended = || storefront.metric("eastway_requests_total", &[r#"direction="outbound""#, r#"reason="none""#]);
    let (earlier, _) = (ended().expect("metrics"), open.finish());
    eventually("the stream is counted", || {
        let now = ended()?;
        check(now > earlier, || format!("{earlier}, then {now}"))
    });
}
