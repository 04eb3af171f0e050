mod collector;

use std::time::Instant;

use eastway_core::Reason;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as Kind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use self::collector::{Collector, Manner, text};
use super::*;
use crate::metrics::Metrics;

const LONG: Duration = Duration::from_secs(10);
const PARENT: TraceParent =
    TraceParent { trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, span_id: 0x00f0_67aa_0ba9_02b7, sampled: true };

fn node() -> TelemetryNode {
    TelemetryNode {
        role: "sidecar",
        name: "storefront-1".to_owned(),
        cluster: "us-east".to_owned(),
        zone: Some("a".to_owned()),
        version: "0.1.0",
    }
}

/// A clock that stands still, so that lengths of spans are what the test says.
fn clock() -> Timestamp {
    Timestamp::from_millis(1_000)
}

struct Bench {
    collector: Collector,
    metrics: Arc<Metrics>,
    tracer: Tracer,
    rng: Rng,
}

impl Bench {
    async fn new(manner: Manner, change: impl FnOnce(&mut TraceOptions)) -> Self {
        let collector = Collector::start(manner).await;
        let metrics = Metrics::new(&node());
        let mut options = TraceOptions::new(collector.endpoint(), node(), clock);
        options.sampling = 1.0;
        options.delay = Duration::from_millis(5);
        change(&mut options);
        let tracer = Tracer::start(options, &TraceMetrics::new(&metrics)).expect("an endpoint");
        Self { collector, metrics, tracer, rng: Rng::with_seed(7) }
    }

    fn span(&mut self) -> Span {
        let context = self.tracer.sample(None, &mut self.rng);
        self.tracer.span(SpanKind::Server, "GET", &context, clock()).expect("sampled")
    }

    fn count(&self, metric: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {metric} in {text}"))
    }

    fn dropped(&self, cause: &str) -> u64 {
        self.count(&format!("eastway_spans_dropped_total{{cause=\"{cause}\"}}"))
    }

    /// Every span that ended is counted exactly once.
    fn accounted(&self) -> u64 {
        let dropped = ["queue_full", "export_failed", "shutdown"].map(|cause| self.dropped(cause));
        self.count("eastway_spans_exported_total") + dropped.iter().sum::<u64>()
    }
}

#[tokio::test]
async fn what_is_sent_on_names_the_span_that_is_exported() {
    let mut bench = Bench::new(Manner::Take, |_| {}).await;
    let context = bench.tracer.sample(Some(PARENT), &mut bench.rng);
    let server = bench.tracer.span(SpanKind::Server, "GET", &context, clock()).expect("sampled");
    let first = context.child(&mut bench.rng);
    let second = context.child(&mut bench.rng);
    for attempt in [&first, &second] {
        bench.tracer.span(SpanKind::Client, "GET", attempt, clock()).expect("sampled").end();
    }
    server.end();
    assert!(bench.tracer.flush(LONG).await);

    let spans = bench.collector.spans();
    assert_eq!(spans.len(), 3);
    assert!(spans.iter().all(|span| span.trace_id == PARENT.trace_id.to_be_bytes()));
    let sent = |context: &TraceContext| context.traceparent().span_id.to_be_bytes().to_vec();
    assert_eq!((&spans[0].span_id, &spans[0].parent_span_id), (&sent(&first), &sent(&context)));
    assert_eq!((&spans[1].span_id, &spans[1].parent_span_id), (&sent(&second), &sent(&context)));
    assert_eq!(spans[2].span_id, sent(&context));
    assert_eq!(spans[2].parent_span_id, PARENT.span_id.to_be_bytes());
    assert_eq!((spans[0].kind(), spans[2].kind()), (Kind::Client, Kind::Server));
    assert!(first.traceparent().sampled && first.is_recorded());
    assert_ne!(first.traceparent().span_id, second.traceparent().span_id);
}

#[tokio::test]
async fn attributes_and_the_resource_arrive_under_their_names() {
    let mut bench = Bench::new(Manner::Take, |_| {}).await;
    let mut span = bench.span();
    span.set(attribute::HTTP_REQUEST_METHOD, attribute::method("GET"));
    span.set(attribute::DESTINATION_CLUSTER, Arc::<str>::from("eu-west"));
    span.set(attribute::DESTINATION_ZONE, "wrong");
    span.set(attribute::DESTINATION_ZONE, String::from("b"));
    span.set(attribute::LEVEL, 2);
    span.status(200);
    span.end();
    assert!(bench.tracer.flush(LONG).await);

    let span = bench.collector.spans().remove(0);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("eastway.destination.cluster", "eu-west"),
        ("eastway.destination.zone", "b"),
        ("eastway.level", "2"),
    ] {
        assert_eq!(text(&span.attributes, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(span.attributes.len(), 5);
    assert!(span.parent_span_id.is_empty() || span.parent_span_id == [0; 8], "begins the trace");
    assert_eq!(bench.collector.resource("service.name").as_deref(), Some("eastway-sidecar"));
    assert_eq!(bench.collector.resource("eastway.cluster").as_deref(), Some("us-east"));
    assert_eq!(bench.collector.resource("eastway.zone").as_deref(), Some("a"));
}

#[tokio::test]
async fn lengths_come_from_the_monotonic_clock() {
    let mut bench = Bench::new(Manner::Take, |_| {}).await;
    bench.span().end_at(clock() + Duration::from_micros(1_234));
    bench.span().end_at(Timestamp::ZERO);
    assert!(bench.tracer.flush(LONG).await);
    let lengths: Vec<_> =
        bench.collector.spans().iter().map(|span| span.end_time_unix_nano - span.start_time_unix_nano).collect();
    assert_eq!(lengths, [1_234_000, 0]);
}

#[tokio::test]
async fn failures_are_errors_on_the_side_that_they_concern() {
    let mut bench = Bench::new(Manner::Take, |_| {}).await;
    let context = bench.tracer.sample(None, &mut bench.rng);
    for (kind, status) in [(SpanKind::Server, 404), (SpanKind::Client, 404), (SpanKind::Server, 503)] {
        let mut span = bench.tracer.span(kind, "GET", &context, clock()).expect("sampled");
        span.status(status);
        span.end();
    }
    let mut refused = bench.span();
    refused.fail(Reason::NoReadyEndpoint);
    refused.status(503);
    refused.end();
    let mut unknown = bench.span();
    unknown.fail(Reason::UnknownService);
    unknown.status(404);
    unknown.end();
    assert!(bench.tracer.flush(LONG).await);

    let spans = bench.collector.spans();
    let codes: Vec<_> = spans.iter().map(|span| span.status.as_ref().map_or(0, |status| status.code)).collect();
    let (unset, error) = (StatusCode::Unset as i32, StatusCode::Error as i32);
    assert_eq!(codes, [unset, error, error, error, unset], "what the caller did wrong is no error of who answers");
    assert_eq!(text(&spans[4].attributes, "eastway.reason").as_deref(), Some("unknown_service"));
    assert_eq!(text(&spans[2].attributes, "error.type").as_deref(), Some("503"));
    // The reason says more than the status that it became.
    assert_eq!(text(&spans[3].attributes, "error.type").as_deref(), Some("no_ready_endpoint"));
    assert_eq!(text(&spans[3].attributes, "eastway.reason").as_deref(), Some("no_ready_endpoint"));
}

#[tokio::test]
async fn a_span_whose_work_was_given_up_is_exported_and_says_so() {
    let mut bench = Bench::new(Manner::Take, |_| {}).await;
    drop(bench.span());
    assert!(bench.tracer.flush(LONG).await);
    let spans = bench.collector.spans();
    assert_eq!(text(&spans[0].attributes, "eastway.cancelled").as_deref(), Some("true"));
}

#[tokio::test]
async fn a_caller_who_does_not_sample_is_followed() {
    let mut bench = Bench::new(Manner::Take, |_| {}).await;
    let parent = TraceParent { sampled: false, ..PARENT };
    let context = bench.tracer.sample(Some(parent), &mut bench.rng);
    assert!(bench.tracer.span(SpanKind::Server, "GET", &context, clock()).is_none());
    let sent = context.child(&mut bench.rng).traceparent();
    assert_eq!((sent.trace_id, sent.sampled), (PARENT.trace_id, false));
    assert_ne!(sent.span_id, PARENT.span_id);
    assert!(bench.tracer.shutdown(LONG).await);
    assert_eq!((bench.collector.spans().len(), bench.accounted()), (0, 0));
}

#[tokio::test]
async fn the_configured_share_of_new_traces_is_recorded() {
    let mut bench = Bench::new(Manner::Take, |options| options.sampling = 0.25).await;
    let sampled = (0..10_000).filter(|_| bench.tracer.sample(None, &mut bench.rng).is_recorded()).count();
    assert!((2_300..2_700).contains(&sampled), "{sampled}");
}

#[tokio::test]
async fn an_unsampled_request_allocates_nothing() {
    let mut bench = Bench::new(Manner::Take, |options| options.sampling = 0.0).await;
    let Bench { tracer, rng, .. } = &mut bench;
    let parent = TraceParent { sampled: false, ..PARENT };
    let allocated = eastway_allocations::during(|| {
        for parent in [None, Some(parent)] {
            let context = tracer.sample(parent, rng);
            let span = tracer.span(SpanKind::Server, "GET", &context, clock());
            let attempt = context.child(rng);
            let inner = tracer.span(SpanKind::Client, "GET", &attempt, clock());
            assert!(span.is_none() && inner.is_none());
        }
    });
    assert_eq!(allocated, 0);
    // The measure itself works: a recorded span does allocate.
    let sampled = tracer.sample(Some(PARENT), rng);
    assert!(eastway_allocations::during(|| drop(tracer.span(SpanKind::Server, "GET", &sampled, clock()))) > 0);
}

#[test]
fn without_a_collector_the_callers_context_passes_unchanged() {
    let (tracer, mut rng) = (Tracer::disabled(), Rng::with_seed(1));
    let context = tracer.sample(Some(PARENT), &mut rng);
    assert_eq!(context.traceparent(), PARENT);
    // The next hop hangs from a span that exists, not from one that nobody exported.
    assert_eq!(context.child(&mut rng).traceparent(), PARENT);
    assert!(tracer.span(SpanKind::Server, "GET", &context, clock()).is_none());
    let new = tracer.sample(None, &mut rng).traceparent();
    assert!(new.trace_id != 0 && new.span_id != 0 && !new.sampled);
}

#[tokio::test]
async fn an_application_is_told_of_a_trace_that_its_caller_brought_or_that_is_recorded_and_of_no_other() {
    let mut bench = Bench::new(Manner::Take, |options| options.sampling = 0.0).await;
    let unsampled = TraceParent { sampled: false, ..PARENT };
    for parent in [PARENT, unsampled] {
        let context = bench.tracer.sample(Some(parent), &mut bench.rng);
        assert_eq!(context.announced(), Some(context.traceparent()), "its caller's decision, whatever it is");
        assert!(context.child(&mut bench.rng).announced().is_some());
    }
    let own = bench.tracer.sample(None, &mut bench.rng);
    assert_eq!(own.announced(), None, "its flag would forbid the application to record its own");
    assert_eq!(own.child(&mut bench.rng).announced(), None);
    // The next node of the mesh knows of it, and tells its application no more than this one.
    let next = bench.tracer.sample(Some(own.traceparent()), &mut bench.rng).unannounced();
    assert_eq!((next.announced(), next.traceparent().trace_id), (None, own.traceparent().trace_id));
    let recorded = bench.tracer.sample(Some(PARENT), &mut bench.rng).unannounced();
    assert!(recorded.announced().is_some());
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_and_never_waits() {
    let mut bench = Bench::new(Manner::Stall, |options| (options.queue, options.batch) = (4, 1)).await;
    bench.span().end();
    bench.collector.called(1).await;
    // One is on its way, four wait, and there is room for no more.
    for _ in 0..20 {
        bench.span().end();
    }
    assert_eq!(bench.dropped("queue_full"), 16);
    bench.collector.set(Manner::Take);
    assert!(bench.tracer.flush(LONG).await);
    assert_eq!(bench.count("eastway_spans_exported_total"), 5);
    assert_eq!((bench.collector.spans().len(), bench.accounted()), (5, 21));
}

#[tokio::test]
async fn shutting_down_hands_over_what_waits() {
    let mut bench = Bench::new(Manner::Take, |options| options.delay = Duration::from_secs(3_600)).await;
    let late = bench.span();
    for _ in 0..3 {
        bench.span().end();
    }
    assert!(bench.tracer.shutdown(LONG).await);
    assert_eq!(bench.collector.spans().len(), 3);
    late.end();
    assert_eq!(bench.dropped("shutdown"), 1);
    assert!(!bench.tracer.shutdown(LONG).await, "there is nothing left to shut down");
    assert_eq!(bench.accounted(), 4);
}

#[tokio::test]
async fn shutting_down_does_not_wait_for_a_collector_that_hangs() {
    let mut bench = Bench::new(Manner::Stall, |options| options.batch = 1).await;
    for _ in 0..3 {
        bench.span().end();
    }
    bench.collector.called(1).await;
    let begun = Instant::now();
    assert!(!bench.tracer.shutdown(Duration::from_millis(50)).await);
    assert!(begun.elapsed() < LONG);
    // The task ends at its next turn, and owns up to what it leaves.
    eventually(|| bench.accounted() == 3).await;
    assert_eq!(bench.dropped("shutdown"), 3);
}

#[tokio::test]
async fn a_collector_that_refuses_is_counted_and_survived() {
    let mut bench = Bench::new(Manner::Refuse, |_| {}).await;
    bench.span().end();
    assert!(!bench.tracer.flush(LONG).await);
    assert_eq!(bench.dropped("export_failed"), 1);
    bench.collector.set(Manner::Take);
    bench.span().end();
    assert!(bench.tracer.flush(LONG).await);
    assert_eq!(bench.collector.spans().len(), 1);
}

#[tokio::test]
async fn the_export_ends_with_the_last_tracer() {
    let mut bench = Bench::new(Manner::Take, |options| options.delay = Duration::from_secs(3_600)).await;
    bench.span().end();
    bench.tracer = Tracer::disabled();
    eventually(|| bench.collector.spans().len() == 1).await;
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_is_refused() {
    let metrics = TraceMetrics::new(&Metrics::new(&node()));
    let options = TraceOptions::new("http://[oops", node(), clock);
    let error = Tracer::start(options, &metrics).expect_err("refused");
    assert!(error.to_string().contains("http://[oops"), "{error}");
}

#[test]
fn unknown_methods_are_not_names() {
    assert_eq!((attribute::method("BREW"), attribute::span_name("BREW")), ("_OTHER", "HTTP"));
    assert_eq!((attribute::method("POST"), attribute::span_name("POST")), ("POST", "POST"));
}

async fn eventually(mut truth: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !truth() {
        assert!(Instant::now() < deadline, "it never became true");
        tokio::task::yield_now().await;
    }
}
