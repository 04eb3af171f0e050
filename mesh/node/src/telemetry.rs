//! The metrics and the traces of a node.

use std::sync::Arc;

use eastway_runtime::clock;
use eastway_runtime::sections::Otlp;
use eastway_telemetry::TelemetryNode;
use eastway_telemetry::metrics::{Metrics, TraceMetrics};
use eastway_telemetry::trace::{TraceOptions, Tracer};

use crate::NodeError;

/// The registry of `node`, and its tracer, which exports to `otlp` or nowhere.
///
/// # Errors
/// [`NodeError::Tracing`].
pub fn telemetry(node: TelemetryNode, otlp: Option<&Otlp>) -> Result<(Arc<Metrics>, Tracer), NodeError> {
    let metrics = Metrics::new(&node);
    let Some(otlp) = otlp else { return Ok((metrics, Tracer::disabled())) };
    let mut options = TraceOptions::new(&otlp.endpoint, node, clock::now);
    options.sampling = otlp.sampling;
    options.queue = otlp.queue;
    options.timeout = otlp.timeout;
    let tracer = Tracer::start(options, &TraceMetrics::new(&metrics)).map_err(NodeError::Tracing)?;
    Ok((metrics, tracer))
}
