//! One span: written by one hop, handed to the queue when it ends.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use eastway_core::{Reason, Timestamp};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind as OtlpKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{Exporting, SpanKind, TraceContext, attribute};

/// Attributes of one span; more are dropped and counted in the span.
const MAX_ATTRIBUTES: usize = 64;

/// A span that is being written. One that is dropped without [`Span::end`] is exported as given up.
#[derive(Debug)]
pub struct Span(Option<Box<Recording>>);

#[derive(Debug)]
struct Recording {
    exporting: Arc<Exporting>,
    start: Timestamp,
    data: SpanData,
}

/// The identity of the span in the exporter's terms.
fn span_context(context: &TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from(context.trace_id()),
        SpanId::from(context.span_id()),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    )
}

impl Span {
    pub(super) fn new(
        exporting: &Arc<Exporting>,
        kind: SpanKind,
        name: &'static str,
        context: &TraceContext,
        start: Timestamp,
    ) -> Self {
        let since = (exporting.clock)().since(start);
        let now = wall_clock();
        let started = now.checked_sub(since).unwrap_or(now);
        let data = SpanData {
            span_context: span_context(context),
            parent_span_id: SpanId::from(context.parent_id()),
            parent_span_is_remote: kind == SpanKind::Server && context.parent_id() != 0,
            span_kind: match kind {
                SpanKind::Server => OtlpKind::Server,
                SpanKind::Client => OtlpKind::Client,
                SpanKind::Internal => OtlpKind::Internal,
            },
            name: Cow::Borrowed(name),
            start_time: started,
            end_time: started,
            attributes: Vec::with_capacity(16),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: exporting.queue.scope().clone(),
        };
        Self(Some(Box::new(Recording { exporting: Arc::clone(exporting), start, data })))
    }

    /// Sets an attribute; the last value of a name counts.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        let Some(data) = self.data() else { return };
        let value = value.into();
        let attributes = &mut data.attributes;
        match attributes.iter().position(|known| known.key.as_str() == key) {
            Some(known) => attributes[known].value = value,
            None if attributes.len() < MAX_ATTRIBUTES => attributes.push(KeyValue::new(key, value)),
            None => data.dropped_attributes_count += 1,
        }
    }

    /// The answer's status. To the side that asked 4xx is an error as well, to the side that answered only 5xx.
    pub fn status(&mut self, status: u16) {
        self.set(attribute::HTTP_RESPONSE_STATUS_CODE, i64::from(status));
        let client = self.data().is_some_and(|data| data.span_kind == OtlpKind::Client);
        if status >= if client { 400 } else { 500 } {
            self.error(status.to_string());
        }
    }

    /// The work failed for `reason`. To the side that answers, a caller's own fault is no error.
    pub fn fail(&mut self, reason: Reason) {
        self.set(attribute::REASON, reason.code());
        let server = self.data().is_some_and(|data| data.span_kind == OtlpKind::Server);
        if server && reason.status() < 500 {
            return;
        }
        self.set(attribute::ERROR_TYPE, reason.code());
        if let Some(data) = self.data() {
            data.status = Status::error(reason.meaning());
        }
    }

    /// Ends the span now.
    pub fn end(mut self) {
        self.finish(None);
    }

    /// Ends the span at a time of the tracer's clock.
    pub fn end_at(mut self, at: Timestamp) {
        self.finish(Some(at));
    }

    fn error(&mut self, kind: String) {
        let known = self.data().is_some_and(|data| data.status != Status::Unset);
        if !known {
            self.set(attribute::ERROR_TYPE, kind);
            if let Some(data) = self.data() {
                data.status = Status::error("");
            }
        }
    }

    fn data(&mut self) -> Option<&mut SpanData> {
        self.0.as_mut().map(|recording| &mut recording.data)
    }

    fn finish(&mut self, at: Option<Timestamp>) {
        if let Some(recording) = self.0.take() {
            let Recording { exporting, start, mut data } = *recording;
            let end = at.unwrap_or_else(|| (exporting.clock)());
            data.end_time = data.start_time + end.since(start);
            exporting.queue.push(data);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.set(attribute::CANCELLED, true);
            self.finish(None);
        }
    }
}

/// The wall clock, only to place a span that is recorded anyway; lengths come from the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "collectors want wall-clock time; nothing is decided by it")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
