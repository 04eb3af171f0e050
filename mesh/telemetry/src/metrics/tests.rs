use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eastway_core::{Reason, ServiceName, ZoneId};

use super::*;

fn metrics() -> Arc<Metrics> {
    Metrics::new(&TelemetryNode {
        role: "gateway",
        name: "gw-1".to_owned(),
        cluster: "us-east".to_owned(),
        zone: None,
        version: "0.1.0",
    })
}

fn party(service: &str, zone: &str) -> Party {
    Party::new(ServiceName::new("shop", service), zone.parse().expect("a zone"))
}

/// Samples by name with labels, as rendered.
fn samples(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = metrics.render();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').expect("a value"))
        .map(|(k, v)| (k.to_owned(), v.parse().expect("a number")))
        .collect()
}

fn sum(metrics: &Metrics, prefix: &str) -> f64 {
    samples(metrics).iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum()
}

/// The names of a sample's labels.
fn label_names(sample: &str) -> BTreeSet<String> {
    let labels = sample.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches('}'));
    let pairs = labels.split("\",").filter_map(|pair| pair.split_once("=\""));
    pairs.map(|(name, _)| name.to_owned()).filter(|name| name != "le").collect()
}

#[test]
fn a_request_is_counted_with_both_places_reason_and_level() {
    let metrics = metrics();
    let traffic = TrafficMetrics::new(&metrics, 10);
    let (source, destination) = (party("storefront", "us-east/a"), party("payments", "eu-west/b"));
    let route = traffic.route(Direction::Outbound, &source, &destination);
    route.finish(Code::of(200), None, Some(2), Duration::from_millis(20));
    route.finish(Code::NoAnswer, Some(Reason::ConnectFailed), Some(2), Duration::from_millis(250));
    route.finish(Code::of(200), None, Some(40), Duration::from_millis(20));
    let samples = samples(&metrics);
    let peers = "direction=\"outbound\",source_service=\"shop/storefront\",source_cluster=\"us-east\",source_zone=\"a\",\
                 destination_service=\"shop/payments\",destination_cluster=\"eu-west\",destination_zone=\"b\"";
    for rest in [
        "code=\"2xx\",reason=\"none\",failover_level=\"2\"",
        "code=\"none\",reason=\"connect_failed\",failover_level=\"2\"",
        "code=\"2xx\",reason=\"none\",failover_level=\"7+\"",
    ] {
        assert_eq!(samples.get(&format!("eastway_requests_total{{{peers},{rest}}}")), Some(&1.0), "{samples:#?}");
    }
    assert_eq!(samples[&format!("eastway_request_duration_seconds_count{{{peers}}}")], 3.0);
    assert_eq!(samples[&format!("eastway_request_duration_seconds_bucket{{le=\"0.025\",{peers}}}")], 2.0);
}

#[test]
fn a_request_that_never_found_a_place_has_all_labels_too() {
    let metrics = metrics();
    let traffic = TrafficMetrics::new(&metrics, 10);
    let route = traffic.route(Direction::Outbound, &party("storefront", "us-east/a"), &Party::unknown());
    route.finish(Code::of(404), Some(Reason::UnknownService), None, Duration::ZERO);
    let text = metrics.render();
    assert!(
        text.contains(
            "destination_service=\"_unknown\",destination_cluster=\"_unknown\",destination_zone=\"_unknown\""
        )
    );
    assert!(text.contains("reason=\"unknown_service\",failover_level=\"none\"} 1"), "{text}");
}

#[test]
fn beyond_the_limit_places_are_counted_together_and_none_is_lost() {
    let metrics = metrics();
    let traffic = TrafficMetrics::new(&metrics, 3);
    let (mut cache, source) = (traffic.cache(), party("storefront", "us-east/a"));
    for round in 0..2 {
        for number in 0..50 {
            let destination = party(&format!("s{number}"), "us-east/a");
            let route = cache.route(Direction::Outbound, &source, &destination);
            route.finish(Code::Success, None, Some(0), Duration::from_millis(round));
        }
    }
    let counters: Vec<_> =
        samples(&metrics).into_keys().filter(|name| name.starts_with("eastway_requests_total")).collect();
    assert_eq!(counters.len(), 4, "{counters:#?}");
    assert_eq!(sum(&metrics, "eastway_requests_total"), 100.0);
    assert!(counters.iter().any(|name| name.contains("destination_service=\"_other\"")), "{counters:#?}");
    // The limit holds per pair of places: the three that came first keep their own numbers.
    assert!(counters.iter().any(|name| name.contains("destination_service=\"shop/s2\"")), "{counters:#?}");
}

#[test]
fn a_worker_finds_its_routes_without_allocating() {
    let metrics = metrics();
    let traffic = TrafficMetrics::new(&metrics, 100);
    let (mut cache, mut other) = (traffic.cache(), traffic.cache());
    let source = party("storefront", "us-east/a");
    let places: Vec<_> = (0..20).map(|number| party("payments", &format!("eu-west/z{number}"))).collect();
    for place in &places {
        let route = cache.route(Direction::Outbound, &source, place);
        route.finish(Code::Success, None, Some(1), Duration::ZERO);
        assert!(Arc::ptr_eq(&route, &other.route(Direction::Outbound, &source, place)), "workers share the counters");
        assert!(!Arc::ptr_eq(&route, &other.route(Direction::Inbound, &source, place)), "directions do not");
    }
    let allocated = eastway_allocations::during(|| {
        for place in &places {
            let route = cache.route(Direction::Outbound, &source, place);
            let request = route.start();
            route.finish(Code::Success, None, Some(1), Duration::from_millis(3));
            drop(request);
        }
    });
    assert_eq!(allocated, 0);
}

#[tokio::test]
async fn gauges_fall_also_when_the_work_is_given_up_or_panics() {
    let metrics = metrics();
    let route = TrafficMetrics::new(&metrics, 10).route(Direction::Inbound, &Party::unknown(), &Party::unknown());
    let peer = TunnelMetrics::new(&metrics, 10).peer("eu-west", "quic");
    let begin = || (route.start(), peer.connected(), peer.stream(StreamSide::Opened));
    let gauges = || {
        ["eastway_requests_in_flight", "eastway_tunnel_connections", "eastway_tunnel_streams_active"]
            .map(|name| sum(&metrics, name))
    };
    let held = begin();
    assert_eq!(gauges(), [1.0; 3]);
    let hangs = async {
        let _held = begin();
        std::future::pending::<()>().await;
    };
    assert!(tokio::time::timeout(Duration::from_millis(1), hangs).await.is_err());
    let panics = tokio::spawn({
        let held = begin();
        async move {
            let _held = held;
            std::panic::resume_unwind(Box::new("for the test"));
        }
    });
    assert!(panics.await.is_err());
    assert_eq!(gauges(), [1.0; 3]);
    drop(held);
    assert_eq!(gauges(), [0.0; 3]);
}

#[test]
fn a_tunnel_counts_streams_bytes_refusals_and_rtt() {
    let metrics = metrics();
    let peer = TunnelMetrics::new(&metrics, 1).peer("eu-west", "quic");
    let stream = peer.stream(StreamSide::Accepted);
    stream.peer().sent(700);
    stream.peer().received(300);
    peer.rtt(Duration::from_millis(80));
    peer.refused(Reason::NotExported);
    let samples = samples(&metrics);
    let labels = "peer_cluster=\"eu-west\",protocol=\"quic\"";
    for (name, value) in [
        (format!("eastway_tunnel_streams_total{{{labels},side=\"accepted\"}}"), 1.0),
        (format!("eastway_tunnel_streams_total{{{labels},side=\"opened\"}}"), 0.0),
        (format!("eastway_tunnel_sent_bytes_total{{{labels}}}"), 700.0),
        (format!("eastway_tunnel_received_bytes_total{{{labels}}}"), 300.0),
        (format!("eastway_tunnel_rtt_seconds{{{labels}}}"), 0.08),
        (format!("eastway_tunnel_streams_refused_total{{{labels},reason=\"not_exported\"}}"), 1.0),
    ] {
        assert_eq!(samples.get(&name), Some(&value), "{name} in {samples:#?}");
    }
}

#[test]
fn what_is_open_now_is_told_by_cluster() {
    let metrics = metrics();
    let tunnels = TunnelMetrics::new(&metrics, 10);
    assert_eq!(tunnels.open(), []);
    let (west, south) = (tunnels.peer("eu-west", "quic"), tunnels.peer("ap-south", "quic"));
    let (_connection, stream) = (west.connected(), west.stream(StreamSide::Opened));
    let open = |cluster: &str, connections, streams| OpenTunnels {
        cluster: cluster.into(),
        protocol: "quic",
        connections,
        streams,
    };
    assert_eq!(tunnels.open(), [open("ap-south", 0, 0), open("eu-west", 1, 1)]);
    drop((stream, south));
    assert_eq!(tunnels.open(), [open("ap-south", 0, 0), open("eu-west", 1, 0)]);
}

#[test]
fn peers_beyond_the_limit_share_one_label() {
    let metrics = metrics();
    let tunnels = TunnelMetrics::new(&metrics, 2);
    let peers: Vec<_> = (0..5).map(|n| tunnels.peer(&format!("c{n}"), "quic")).collect();
    assert!(Arc::ptr_eq(&peers[0], &tunnels.peer("c0", "quic")));
    assert!(Arc::ptr_eq(&peers[3], &peers[4]));
    assert!(metrics.render().contains("peer_cluster=\"_other\""));
}

#[test]
fn attempts_tell_first_ones_from_repetitions_and_probes() {
    let metrics = metrics();
    let place = party("payments", "us-east/b");
    let route = TrafficMetrics::new(&metrics, 10).route(Direction::Outbound, &party("storefront", "us-east/a"), &place);
    for kind in AttemptKind::ALL {
        for result in AttemptResult::ALL {
            route.attempt(*kind, *result);
            route.attempt(*kind, *result);
        }
    }
    let attempts: Vec<_> =
        samples(&metrics).into_iter().filter(|(name, _)| name.starts_with("eastway_attempts_total")).collect();
    assert_eq!(attempts.len(), 9);
    assert!(attempts.iter().all(|(_, count)| *count == 2.0), "{attempts:#?}");
}

#[test]
fn two_nodes_in_one_process_share_nothing() {
    let (one, two) = (metrics(), metrics());
    let [first, _second] = [&one, &two].map(|metrics| TrafficMetrics::new(metrics, 10));
    let route = first.route(Direction::Relay, &Party::unknown(), &Party::unknown());
    route.finish(Code::Success, None, None, Duration::ZERO);
    assert_eq!((sum(&one, "eastway_requests_total"), sum(&two, "eastway_requests_total")), (1.0, 0.0));
}

/// The sample names that a described metric may have.
fn sample_names(described: &Described) -> Vec<String> {
    match described.kind {
        "histogram" => ["_bucket", "_count", "_sum"].map(|suffix| format!("{}{suffix}", described.name)).to_vec(),
        _ => vec![described.name.to_owned()],
    }
}

#[test]
fn the_table_says_exactly_what_is_rendered() {
    let metrics = metrics();
    let _traces = TraceMetrics::new(&metrics);
    let route = TrafficMetrics::new(&metrics, 10).route(Direction::Relay, &Party::unknown(), &Party::unknown());
    route.finish(Code::Success, None, Some(0), Duration::ZERO);
    route.attempt(AttemptKind::First, AttemptResult::Success);
    route.streamed(1, 1);
    TunnelMetrics::new(&metrics, 10).peer("eu-west", "tcp").refused(Reason::Draining);
    let peers = PeerMetrics::new(&metrics);
    peers.cut("eu-west", "zones", 1);
    peers.paths("eu-west", "tcp", 1);
    peers.changes("eu-west", 1);
    PlainMetrics::new(&metrics).connected();

    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for sample in samples(&metrics).into_keys() {
        let name = sample.split('{').next().expect("a name").to_owned();
        seen.entry(name).or_default().extend(label_names(&sample));
    }
    let mut told = BTreeMap::new();
    for described in described() {
        let labels: BTreeSet<String> = described.labels.iter().map(|label| (*label).to_owned()).collect();
        told.extend(sample_names(described).into_iter().map(|name| (name, labels.clone())));
        assert!(described.name.starts_with("eastway_"), "{}", described.name);
    }
    assert_eq!(seen, told);
    let text = metrics.render();
    for Described { name, kind, help, .. } in described() {
        let name = if *kind == "counter" { name.trim_end_matches("_total") } else { name };
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}");
        assert!(text.contains(&format!("# HELP {name} {help}.\n")), "{name}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_written_table_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written.ends_with(&table()), "docs/metrics.md is stale; it must end with:\n{}", table());
}

#[test]
fn members_index_the_arrays_of_their_handles() {
    // Handles lie in arrays by `member as usize`: the list must be in the order of the definition.
    assert!(Code::ALL.iter().enumerate().all(|(index, code)| *code as usize == index));
    assert!(AttemptKind::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
    assert!(AttemptResult::ALL.iter().enumerate().all(|(index, result)| *result as usize == index));
    assert!(StreamSide::ALL.iter().enumerate().all(|(index, side)| *side as usize == index));
    assert!(DropCause::ALL.iter().enumerate().all(|(index, cause)| *cause as usize == index));
    assert_eq!(
        [99, 101, 204, 304, 404, 503, 999].map(Code::of).map(Code::as_str),
        ["5xx", "1xx", "2xx", "3xx", "4xx", "5xx", "5xx"]
    );
}

#[test]
fn zones_of_label_values_are_places() {
    let place = Party::place(ZoneId::new("us-east", "a"));
    let metrics = metrics();
    TrafficMetrics::new(&metrics, 1).route(Direction::Relay, &place, &place).finish(
        Code::Success,
        None,
        None,
        Duration::ZERO,
    );
    assert!(metrics.render().contains("source_service=\"_unknown\",source_cluster=\"us-east\",source_zone=\"a\""));
}
