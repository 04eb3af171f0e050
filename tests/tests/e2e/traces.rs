//! One request is one trace, over every hop of both clusters, as an OTLP collector sees it.

use std::collections::BTreeSet;

use eastway_tests::lab::{Lab, LabNode, PAYMENTS, StoreKind, reaches};
use eastway_tests::protogen::root;
use eastway_tests::wire::Wire;
use eastway_tests::{check, client, eventually};

use crate::collector::{Collector, Span};
use crate::http_within::connect;
use crate::opaque::TCP;

const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// Two clusters of which every node exports to one collector; answers the caller.
fn lab(collector: &Collector) -> (Lab, LabNode) {
    let mut lab = Lab::new();
    for name in ["us-east", "eu-west"] {
        lab.plan(name, StoreKind::Embedded, &collector.telemetry());
    }
    for (name, peer) in [("us-east", "eu-west"), ("eu-west", "us-east")] {
        lab.resources(name, &[peer]);
        lab.start_gateway(name);
    }
    let payments = LabNode { name: "eu-west-payments-1".to_owned(), ip: lab.host() };
    let serving = format!(
        "  service: payments\ninbound: {{ listen: '{}', app: '{}' }}\n{}",
        payments.inbound(),
        payments.app(),
        collector.telemetry()
    );
    lab.configure("eu-west", "a", &payments, "payments", &serving);
    lab.restart_workload("eu-west", "a", &payments);
    let storefront = lab.storefront_with("us-east", "a", &collector.telemetry());
    (lab, storefront)
}

/// The span of this kind that the exporter of a cluster recorded, if there is exactly one.
fn only<'a>(spans: &'a [Span], exporter: &str, cluster: &str, kind: i32) -> Result<&'a Span, String> {
    let mut found =
        spans.iter().filter(|span| span.exporter == exporter && span.cluster == cluster && span.kind == kind);
    match (found.next(), found.next()) {
        (Some(span), None) => Ok(span),
        (first, second) => Err(format!("{exporter} in {cluster}: {first:?}, {second:?} in {spans:#?}")),
    }
}

#[test]
fn a_request_across_both_clusters_is_one_trace() {
    let collector = Collector::start();
    let (_lab, storefront) = lab(&collector);
    reaches(storefront.proxy(), "eu-west/a");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = "b7ad6b7169203331";
    let traceparent = format!("traceparent: 00-{trace}-{parent}-01");
    let answer = client::send(storefront.proxy(), "GET", &format!("{PAYMENTS}headers"), &[&traceparent], b"");
    let seen = answer.expect("an answer").json()["headers"]["traceparent"][0].clone();
    let (outer, attempt, inner) = eventually("the request's spans are exported", || {
        let spans = collector.trace(trace);
        let outer = only(&spans, "eastway-sidecar", "us-east", SERVER)?.clone();
        let attempt = only(&spans, "eastway-sidecar", "us-east", CLIENT)?.clone();
        let inner = only(&spans, "eastway-sidecar", "eu-west", SERVER)?.clone();
        Ok((outer, attempt, inner))
    });
    assert_eq!(outer.parent, parent, "the caller's span is the parent of all");
    assert_eq!(attempt.parent, outer.id);
    assert_eq!(inner.parent, attempt.id);
    // The application gets the context of the hop before it.
    assert_eq!(seen.as_str(), Some(format!("00-{trace}-{}-01", inner.id).as_str()));
    for (span, name, value) in [
        (&outer, "http.request.method", "GET"),
        (&outer, "http.response.status_code", "200"),
        (&outer, "eastway.destination.service", "shop/payments"),
        (&outer, "eastway.source.cluster", "us-east"),
        (&outer, "eastway.source.zone", "a"),
        (&attempt, "eastway.destination.cluster", "eu-west"),
        (&attempt, "eastway.destination.zone", "a"),
        (&attempt, "eastway.destination.endpoint", "eu-west-payments-1"),
        (&attempt, "eastway.attempt", "1"),
        (&inner, "eastway.source.cluster", "us-east"),
        (&inner, "eastway.destination.zone", "a"),
        (&inner, "http.response.status_code", "200"),
        (&outer, "url.path", "/headers"),
        (&outer, "url.scheme", "http"),
        (&outer, "server.address", "payments.shop.mesh.internal"),
        (&outer, "server.port", "80"),
        (&attempt, "url.full", "http://payments.shop.mesh.internal/headers"),
        (&inner, "eastway.source.identity", "spiffe://us-east.mesh.internal/ns/shop/sa/storefront"),
    ] {
        assert_eq!(span.attribute(name), value, "{name} of {span:#?}");
    }
    // It exists only in the other region, so nearer levels have nothing: that is a failover all the same.
    assert_eq!((outer.name.as_str(), attempt.attribute("eastway.level")), ("GET", "2"));
}

#[test]
fn the_gateways_that_open_a_tunnel_stream_belong_to_the_trace_that_wanted_it() {
    let collector = Collector::start();
    let (_lab, storefront) = lab(&collector);
    reaches(storefront.proxy(), "eu-west/a");
    let spans = eventually("a trace with both gateways", || {
        let all = collector.all();
        let entry = all.iter().find(|span| span.exporter == "eastway-gateway" && span.cluster == "us-east");
        let trace = &entry.ok_or("no span of us-east's gateway")?.trace;
        let spans = collector.trace(trace);
        let nodes = [("eastway-sidecar", "us-east"), ("eastway-gateway", "us-east"), ("eastway-gateway", "eu-west")];
        let has = |(exporter, cluster)| spans.iter().any(|span| span.exporter == exporter && span.cluster == cluster);
        check(nodes.into_iter().all(has), || format!("{spans:#?}")).map(|()| spans)
    });
    // Every parent but the first is a span of the same trace.
    let roots: Vec<&Span> = spans.iter().filter(|span| !spans.iter().any(|parent| parent.id == span.parent)).collect();
    assert_eq!(roots.len(), 1, "{spans:#?}");
    assert_eq!((roots[0].exporter.as_str(), roots[0].parent.as_str()), ("eastway-sidecar", ""), "{roots:#?}");
    let exit =
        spans.iter().find(|span| span.exporter == "eastway-gateway" && span.cluster == "eu-west").expect("found above");
    let entry = spans.iter().find(|span| span.id == exit.parent).expect("checked above");
    assert_eq!((entry.exporter.as_str(), entry.cluster.as_str()), ("eastway-gateway", "us-east"));
    assert_eq!(exit.attribute("eastway.source.cluster"), "us-east", "{exit:#?}");
}

#[test]
fn what_the_caller_does_not_record_is_recorded_nowhere_but_keeps_its_trace() {
    let collector = Collector::start();
    let (_lab, storefront) = lab(&collector);
    reaches(storefront.proxy(), "eu-west/a");
    let send = |trace: &str, flag: &str| {
        let traceparent = format!("traceparent: 00-{trace}-b7ad6b7169203331-{flag}");
        let answer = client::send(storefront.proxy(), "GET", &format!("{PAYMENTS}headers"), &[&traceparent], b"");
        answer.expect("an answer").json()["headers"]["traceparent"][0].as_str().unwrap_or_default().to_owned()
    };
    let unsampled = "11111111111111111111111111111111";
    let seen = send(unsampled, "00");
    assert!(seen.starts_with(&format!("00-{unsampled}-")) && seen.ends_with("-00"), "{seen}");
    // What was sent later is there, so what was sent before is not late.
    let sampled = "22222222222222222222222222222222";
    send(sampled, "01");
    for (exporter, cluster) in [("eastway-sidecar", "us-east"), ("eastway-sidecar", "eu-west")] {
        eventually("the recorded request is exported", || {
            only(&collector.trace(sampled), exporter, cluster, SERVER).map(drop)
        });
    }
    assert!(collector.trace(unsampled).is_empty(), "{:#?}", collector.trace(unsampled));
}

#[test]
fn a_refusal_is_recorded_with_its_reason() {
    let collector = Collector::start();
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Embedded);
    let storefront = lab.storefront_with("us-east", "a", &collector.telemetry());
    client::get(storefront.proxy(), "http://nothing.shop.mesh.internal/").expect("an answer");
    eventually("the refusal is exported", || {
        let all = collector.all();
        let mut refusals = all.iter().filter(|span| span.attribute("eastway.reason") == "unknown_service");
        let refused = refusals.any(|span| span.attribute("http.response.status_code") == "404");
        check(refused, || format!("{all:#?}"))
    });
}

/// The names in the first column of the table of `docs/metrics.md` that has this heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("docs/metrics.md")).expect("the document");
    let table = text.split(heading).nth(1).expect("the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

/// What is on one side only fails at once if it is not documented, and is waited for if it was not seen yet.
fn same(what: &str, documented: &BTreeSet<String>, seen: &BTreeSet<String>) -> Result<(), String> {
    let more: Vec<_> = seen.difference(documented).collect();
    assert!(more.is_empty(), "{what} that docs/metrics.md does not know: {more:?}");
    let missing: Vec<_> = documented.difference(seen).collect();
    check(missing.is_empty(), || format!("{what} not seen: {missing:?}"))
}

/// The names of a node's metrics.
fn metrics(node: &LabNode) -> Result<BTreeSet<String>, String> {
    let text = node.metrics()?;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    Ok(types.map(str::to_owned).collect())
}

#[test]
fn what_is_documented_of_spans_and_metrics_is_what_nodes_emit() {
    let collector = Collector::start();
    let (lab, storefront) = lab(&collector);
    reaches(storefront.proxy(), "eu-west/a");
    let proxy = storefront.proxy();
    // One is repeated, one refused, one is gRPC, one is cancelled, one is a stream.
    client::get(proxy, &format!("{PAYMENTS}status/503")).expect("an answer");
    client::get(proxy, "http://nothing.shop.mesh.internal/").expect("an answer");
    let grpc = "content-type: application/grpc";
    client::send(proxy, "POST", "http://nothing.shop.mesh.internal/", &[grpc], b"").expect("an answer");
    let mut wire = Wire::to(proxy);
    let head = "HTTP/1.1\r\nHost: payments.shop.mesh.internal\r\nContent-Length: 9\r\n\r\nhalf";
    wire.send(format!("POST {PAYMENTS}echo {head}"));
    drop(wire);
    let mut stream = connect(proxy, TCP).expect("a stream");
    stream.send("GET / HTTP/1.0\r\n\r\n");
    let attributes = documented("| Attribute | On | Meaning |");
    eventually("every attribute is seen", || {
        let seen = collector.all().iter().flat_map(|span| span.attributes.keys().cloned()).collect();
        same("attributes", &attributes, &seen)
    });
    let mut all = documented("| Metric | Kind | Labels | Meaning |");
    // No gateway refuses a stream here, no peer exceeds a bound, and no host captures (`capture` sees to that one).
    all.remove("eastway_plaintext_connections_total");
    all.remove("eastway_tunnel_streams_refused_total");
    all.remove("eastway_peer_cut_total");
    let nodes = [storefront.clone(), lab.gateway("us-east"), lab.gateway("eu-west")];
    eventually("every metric is seen", || {
        let seen: Result<Vec<_>, String> = nodes.iter().map(metrics).collect();
        same("metrics", &all, &seen?.into_iter().flatten().collect())
    });
}
