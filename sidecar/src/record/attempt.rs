//! The record of one attempt.

use std::sync::Arc;

use eastway_core::{Reason, ServiceName, Timestamp, ZoneId};
use eastway_telemetry::metrics::{AttemptKind, AttemptResult, Direction, InFlight, Route};
use eastway_telemetry::trace::{Span, SpanKind, TraceContext, attribute};

use super::{Asked, Telemetry, span_source};
use crate::node::Node;

/// What becomes of one attempt. Dropping it writes it: as cancelled, unless it was told how the attempt ended.
pub(crate) struct AttemptRecord {
    route: Arc<Route>,
    kind: AttemptKind,
    result: AttemptResult,
    span: Option<Span>,
    _in_flight: InFlight,
}

/// Where an attempt goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Going<'a> {
    pub(crate) service: &'a ServiceName,
    pub(crate) zone: &'a ZoneId,
    /// The failover level.
    pub(crate) level: usize,
    /// It tries something half-open.
    pub(crate) probe: bool,
    /// Which attempt of its request it is, from 1.
    pub(crate) number: u32,
}

impl Going<'_> {
    /// Which attempt of its request it is.
    pub(crate) const fn kind(&self) -> AttemptKind {
        match (self.probe, self.number) {
            (true, _) => AttemptKind::Probe,
            (false, 1) => AttemptKind::First,
            (false, _) => AttemptKind::Retry,
        }
    }
}

impl AttemptRecord {
    /// An attempt that begins now.
    pub(crate) fn begin(
        telemetry: &Telemetry,
        asked: &Asked<'_>,
        trace: &TraceContext,
        going: &Going<'_>,
        now: Timestamp,
    ) -> Self {
        let node = &telemetry.node;
        let destination = Node::destination(going.service, Some(going.zone));
        let route = telemetry.route(Direction::Outbound, &node.own, &destination);
        let span = node.tracer.span(SpanKind::Client, attribute::span_name(asked.method), trace, now);
        let span = span.map(|mut span| {
            asked.describe(&mut span);
            let (scheme, authority) =
                if asked.path.is_empty() { ("", asked.authority) } else { ("http://", asked.authority) };
            span.set(attribute::URL_FULL, format!("{scheme}{authority}{}", asked.path));
            span_source(&mut span, node);
            span.set(attribute::DESTINATION_SERVICE, going.service.to_string());
            span.set(attribute::DESTINATION_CLUSTER, going.zone.cluster.clone());
            span.set(attribute::DESTINATION_ZONE, going.zone.zone.clone());
            span.set(attribute::LEVEL, going.level as i64);
            span.set(attribute::FORMER_LEVEL, going.level as i64);
            span.set(attribute::ATTEMPT, i64::from(going.number));
            if going.number > 1 {
                span.set(attribute::HTTP_REQUEST_RESEND_COUNT, i64::from(going.number - 1));
            }
            span
        });
        Self { _in_flight: route.start(), route, kind: going.kind(), result: AttemptResult::Cancelled, span }
    }

    /// The endpoint that it went to, once one was chosen.
    pub(crate) fn endpoint(&mut self, endpoint: &str) {
        if let Some(span) = &mut self.span {
            span.set(attribute::DESTINATION_ENDPOINT, endpoint.to_owned());
        }
    }

    /// The head of the answer is there. Whether the attempt succeeded is known at the answer's end.
    pub(crate) fn answered(&mut self, status: u16) {
        if let Some(span) = &mut self.span {
            span.status(status);
        }
    }

    /// It ended with an answer that says that the endpoint failed, or does not.
    pub(crate) fn ended(mut self, failed: bool) {
        self.result = if failed { AttemptResult::Failure } else { AttemptResult::Success };
    }

    /// It ended without a whole answer. What is not the destination's fault is no failure of it.
    pub(crate) fn failed(mut self, reason: Reason) {
        let cancelled = reason == Reason::CallerGone;
        self.result = if cancelled { AttemptResult::Cancelled } else { AttemptResult::Failure };
        if let Some(span) = &mut self.span {
            span.fail(reason);
        }
    }
}

impl Drop for AttemptRecord {
    fn drop(&mut self) {
        self.route.attempt(self.kind, self.result);
        if let Some(mut span) = self.span.take() {
            if self.result == AttemptResult::Cancelled {
                span.set(attribute::CANCELLED, true);
            }
            span.end();
        }
    }
}
