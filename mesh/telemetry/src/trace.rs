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
pub use eastway_core::trace::TraceContext;
use eastway_core::trace::TraceParent;
use fastrand::Rng;

pub use self::span::Span;
use crate::TelemetryNode;
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
    pub node: TelemetryNode,
}

impl TraceOptions {
    /// The defaults: 1 % of the requests.
    pub fn new(endpoint: impl Into<String>, node: TelemetryNode, clock: fn() -> Timestamp) -> Self {
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
        TraceContext::begin(parent, sampled, record, rng)
    }

    /// The span of this hop, if the request is recorded. `start` comes from the tracer's clock.
    pub fn span(&self, kind: SpanKind, name: &'static str, context: &TraceContext, start: Timestamp) -> Option<Span> {
        if !context.is_recorded() {
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

#[cfg(test)]
mod tests;
