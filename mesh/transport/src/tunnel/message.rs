//! The messages that open a stream, as plain values, and their protobuf form.

use bytes::Bytes;
use eastway_core::endpoint::MAX_EXCLUDED;
use eastway_core::trace::TraceParent;
use eastway_core::{EndpointId, LoadReport, Reason, SpiffeId};
use eastway_proto::tunnel::v1 as wire;
use prost::Message;

use super::codec;
use super::malformed::Malformed;

/// What a stream shall be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOpen {
    /// `SERVICE.NAMESPACE[.CLUSTER].SUFFIX:PORT`.
    pub authority: String,
    /// The verified identity of the caller.
    pub source: SpiffeId,
    /// The zone that the caller's balancer chose: a hint.
    pub zone: Option<String>,
    /// Endpoints to avoid, at most [`MAX_EXCLUDED`].
    pub exclude: Vec<EndpointId>,
    /// Which attempt of its request this is, from 1.
    pub attempt: u32,
    /// The trace that the stream belongs to, and the span that caused it.
    pub traceparent: Option<TraceParent>,
    /// W3C `tracestate`, passed on as it is.
    pub tracestate: String,
    /// W3C `baggage`, passed on as it is.
    pub baggage: String,
}

/// Says that a stream is connected.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamAccepted {
    /// The endpoint that the remote gateway chose.
    pub endpoint: EndpointId,
    /// Its zone.
    pub zone: Option<String>,
    /// Its load as last reported.
    pub load: Option<LoadReport>,
}

/// The answer to an opening message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum StreamReply {
    Accepted(StreamAccepted),
    Refused { reason: Reason, message: String },
}

impl StreamOpen {
    /// A first attempt to reach `authority` for `source`, without hints and without a trace.
    pub fn new(authority: impl Into<String>, source: SpiffeId) -> Self {
        Self {
            authority: authority.into(),
            source,
            zone: None,
            exclude: Vec::new(),
            attempt: 1,
            traceparent: None,
            tracestate: String::new(),
            baggage: String::new(),
        }
    }

    /// The message with its length before it; `None` if it is too large.
    pub(super) fn encode(&self) -> Option<Bytes> {
        codec::encode(&wire::StreamOpen {
            authority: self.authority.clone(),
            source: self.source.to_string(),
            zone: self.zone.clone().unwrap_or_default(),
            exclude: self.exclude.iter().map(ToString::to_string).collect(),
            attempt: self.attempt,
            traceparent: self.traceparent.map(|parent| parent.to_string()).unwrap_or_default(),
            tracestate: self.tracestate.clone(),
            baggage: self.baggage.clone(),
        })
    }

    /// Reads the message. Hints and traces that cannot be read are left out: they must not cost a request.
    pub(super) fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let wire = wire::StreamOpen::decode(message)?;
        if wire.authority.is_empty() {
            return Err(Malformed::Missing("authority"));
        }
        if wire.exclude.len() > MAX_EXCLUDED {
            return Err(Malformed::Excluded(wire.exclude.len()));
        }
        Ok(Self {
            authority: wire.authority,
            source: wire.source.parse()?,
            zone: some(wire.zone),
            exclude: wire.exclude.into_iter().filter(|id| !id.is_empty()).map(EndpointId::new).collect(),
            attempt: wire.attempt.max(1),
            traceparent: TraceParent::parse(&wire.traceparent),
            tracestate: wire.tracestate,
            baggage: wire.baggage,
        })
    }
}

impl StreamReply {
    /// The message with its length before it; `None` if it is too large, which a refusal never is.
    pub(super) fn encode(&self) -> Option<Bytes> {
        let outcome = match self {
            Self::Accepted(accepted) => wire::stream_reply::Outcome::Accepted(wire::StreamAccepted {
                endpoint: accepted.endpoint.to_string(),
                zone: accepted.zone.clone().unwrap_or_default(),
                load: accepted.load.map(|load| load.to_header()).unwrap_or_default(),
            }),
            Self::Refused { reason, message } => wire::stream_reply::Outcome::Refused(wire::StreamRefused {
                reason: reason.number(),
                message: message.chars().take(MAX_TEXT).collect(),
            }),
        };
        codec::encode(&wire::StreamReply { outcome: Some(outcome) })
    }

    /// Reads the message. A reason of a newer version reads as one that is always safe to retry: a refused stream was
    /// connected to nothing.
    pub(super) fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let reply = wire::StreamReply::decode(message)?;
        match reply.outcome.ok_or(Malformed::Missing("outcome"))? {
            wire::stream_reply::Outcome::Accepted(wire) if wire.endpoint.is_empty() => {
                Err(Malformed::Missing("endpoint"))
            }
            wire::stream_reply::Outcome::Accepted(wire) => Ok(Self::Accepted(StreamAccepted {
                endpoint: EndpointId::new(wire.endpoint),
                zone: some(wire.zone),
                load: some(wire.load).as_deref().and_then(LoadReport::from_header),
            })),
            wire::stream_reply::Outcome::Refused(wire::StreamRefused { reason, message }) => {
                Ok(match Reason::from_number(reason) {
                    Some(reason) => Self::Refused { reason, message },
                    None => Self::Refused {
                        reason: Reason::NoReadyEndpoint,
                        message: format!("reason {reason} of a newer version: {message}"),
                    },
                })
            }
        }
    }
}

/// Protobuf has no absent text, only an empty one.
fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// The longest text of a refusal, in characters.
const MAX_TEXT: usize = 512;

#[cfg(test)]
mod tests;
