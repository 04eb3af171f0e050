//! One trace over all hops of a request, in W3C terms, exported by OTLP over gRPC.
//!
//! Whether a request is recorded is decided once, by [`Tracer::sample`], before any span exists: [`Tracer::span`] then gives
//! `None` for the others, and allocates nothing. Ids are drawn here and not by a library, so that the `traceparent` that a
//! hop sends on names exactly the span that the hop exports. No span is ever waited for: a full queue drops, and counts.
//! Called by the roles, once for each request and attempt.

pub mod attribute;
mod export;
mod span;

use std::sync::Arc;
use std::time::Duration;

use eastway_core::Timestamp;
use eastway_core::trace::TraceParent;
use fastrand::Rng;
use opentelemetry::trace::SpanContext;

pub use self::span::Span;
use crate::Node;
use crate::metrics::TraceMetrics;

/// How spans are sampled and exported.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// The collector, for example `http://127.0.0.1:4317`.
    pub endpoint: String,
    /// The share of the requests without a `traceparent` that is recorded, 0 to 1. A request with one follows its flag.
    pub sampling: f64,
    /// Finished spans that may wait for their export; beyond that they are dropped and counted. Default 8,192.
    pub queue: usize,
    /// Spans of one export at most. Default 512.
    pub batch: usize,
    /// How long a span waits for company before it is exported. Default 1 s.
    pub delay: Duration,
    /// How long one export may take. Default 10 s.
    pub timeout: Duration,
    /// The clock that the callers' timestamps come from.
    pub clock: fn() -> Timestamp,
    /// Who exports.
    pub node: Node,
}

impl TraceOptions {
    /// The defaults: 1 % of the requests.
    pub fn new(endpoint: impl Into<String>, node: Node, clock: fn() -> Timestamp) -> Self {
        Self {
            endpoint: endpoint.into(),
            sampling: 0.01,
            queue: 8_192,
            batch: 512,
            delay: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            clock,
            node,
        }
    }
}

/// Why tracing cannot start. That the collector does not answer is no reason: it may come later.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The endpoint is not an URL, or its TLS cannot be set up.
    #[error("no spans can be exported to `{endpoint}`")]
    Endpoint {
        /// What was written.
        endpoint: String,
        /// What the exporter says.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
}

/// What a span stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A request that this node answers.
    Server,
    /// A request that this node sends on: one for each attempt.
    Client,
    /// Work within the node.
    Internal,
}

/// Makes spans. Cheap to clone; shared by all workers.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    exporting: Option<Arc<Exporting>>,
}

/// What a tracer that exports needs.
#[derive(Debug)]
struct Exporting {
    sampling: f64,
    clock: fn() -> Timestamp,
    queue: export::Queue,
}

impl Tracer {
    /// A tracer that records nothing and passes the caller's context on as it came.
    pub const fn disabled() -> Self {
        Self { exporting: None }
    }

    /// A tracer that exports. Must be called on the control runtime: the export runs there as a task, until
    /// [`Tracer::shutdown`] or until the last clone is dropped.
    ///
    /// # Errors
    /// An endpoint that is not an URL.
    pub fn start(options: TraceOptions, metrics: &TraceMetrics) -> Result<Self, TraceError> {
        let queue = export::start(&options, metrics)?;
        let exporting = Exporting { sampling: options.sampling, clock: options.clock, queue };
        Ok(Self { exporting: Some(Arc::new(exporting)) })
    }

    /// Decides whether a request is recorded, and draws the id of this hop's span. Once for each request.
    ///
    /// A caller's decision stands. Without a caller's context a new trace begins, recorded with the configured share.
    pub fn sample(&self, parent: Option<TraceParent>, rng: &mut Rng) -> TraceContext {
        let (record, sampled) = match (&self.exporting, parent) {
            (Some(_), Some(parent)) => (parent.sampled, parent.sampled),
            (Some(exporting), None) => {
                let chosen = rng.f64() < exporting.sampling;
                (chosen, chosen)
            }
            (None, Some(parent)) => (false, parent.sampled),
            (None, None) => (false, false),
        };
        match parent {
            Some(TraceParent { trace_id, span_id, .. }) => {
                TraceContext { trace_id, parent: 0, span: span_id, sampled, record, brought: true }.child(rng)
            }
            None => {
                let (trace_id, span) = (rng.u128(1..), rng.u64(1..));
                TraceContext { trace_id, parent: 0, span, sampled, record, brought: false }
            }
        }
    }

    /// The span of this hop, if the request is recorded. `start` comes from the tracer's clock.
    pub fn span(&self, kind: SpanKind, name: &'static str, context: &TraceContext, start: Timestamp) -> Option<Span> {
        if !context.record {
            return None;
        }
        self.exporting.as_ref().map(|exporting| Span::new(exporting, kind, name, context, start))
    }

    /// Hands everything that ended so far to the collector. Returns whether all of it was taken within `limit`.
    pub async fn flush(&self, limit: Duration) -> bool {
        match &self.exporting {
            Some(exporting) => exporting.queue.flush(limit).await,
            None => true,
        }
    }

    /// Flushes and ends the export. Spans that end later are dropped and counted. Never takes longer than `limit`.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        match &self.exporting {
            Some(exporting) => exporting.queue.shutdown(limit).await,
            None => true,
        }
    }
}

/// A request's place in its trace at one hop: what came in, this hop's own span, and what goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    /// The span that caused this one; 0 if this one begins the trace.
    parent: u64,
    span: u64,
    sampled: bool,
    record: bool,
    /// The caller brought the trace.
    brought: bool,
}

impl TraceContext {
    /// What is sent on: its span id is the id of the span made with this context.
    pub const fn traceparent(&self) -> TraceParent {
        TraceParent { trace_id: self.trace_id, span_id: self.span, sampled: self.sampled }
    }

    /// What an application is told: nothing of a trace that the mesh began and does not record. It would take the flag
    /// `00` for the order not to record its own.
    pub const fn announced(&self) -> Option<TraceParent> {
        if self.sampled || self.brought { Some(self.traceparent()) } else { None }
    }

    /// The same context, of a trace of which only another node of the mesh told this one.
    #[must_use]
    pub const fn unannounced(self) -> Self {
        Self { brought: false, ..self }
    }

    /// The context of a part of this hop's work, for example of one attempt: the same trace, this span as its parent.
    ///
    /// If the trace is recorded elsewhere but not here, the context stays as it came, so that the next hop's span hangs
    /// from one that exists.
    #[must_use]
    pub fn child(&self, rng: &mut Rng) -> Self {
        if self.sampled && !self.record {
            return *self;
        }
        Self { parent: self.span, span: rng.u64(1..), ..*self }
    }

    /// Whether spans of this context are recorded here.
    pub const fn is_recorded(&self) -> bool {
        self.record
    }

    /// The trace's id, for logs.
    pub const fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The identity of the span in the exporter's terms.
    fn span_context(&self) -> SpanContext {
        use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};
        SpanContext::new(
            TraceId::from(self.trace_id),
            SpanId::from(self.span),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        )
    }
}

#[cfg(test)]
mod tests;
