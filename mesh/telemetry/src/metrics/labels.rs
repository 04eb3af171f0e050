//! The values that labels may have.

use std::fmt;

use eastway_core::{ServiceName, ZoneId};
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder};

/// The value of labels whose true value would exceed the limit on their number.
pub const OTHER: &str = "_other";
/// The value of labels that are not known, for example the zone of a request that no endpoint was found for.
pub const UNKNOWN: &str = "_unknown";

/// One side of a request: a service and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Party {
    /// The service; `None` if the mesh does not know it. Never a name that only a request states.
    pub service: Option<ServiceName>,
    /// Cluster and zone; `None` if not known.
    pub zone: Option<ZoneId>,
}

impl Party {
    /// `service` in `zone`.
    pub const fn new(service: ServiceName, zone: ZoneId) -> Self {
        Self { service: Some(service), zone: Some(zone) }
    }

    /// A place of which the service is not known.
    pub const fn place(zone: ZoneId) -> Self {
        Self { service: None, zone: Some(zone) }
    }

    /// `service`, wherever it is.
    pub const fn service_only(service: ServiceName) -> Self {
        Self { service: Some(service), zone: None }
    }

    /// Nothing is known.
    pub const fn unknown() -> Self {
        Self { service: None, zone: None }
    }

    /// What stands for all parties beyond the limit.
    pub(super) fn other() -> Self {
        Self { service: Some(ServiceName::new(OTHER, OTHER)), zone: Some(ZoneId::new(OTHER, OTHER)) }
    }

    fn encode(&self, names: [&'static str; 3], encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let zone = self.zone.as_ref();
        (names[0], Service(self.service.as_ref())).encode(encoder.encode_label())?;
        (names[1], zone.map_or(UNKNOWN, |zone| &zone.cluster)).encode(encoder.encode_label())?;
        (names[2], zone.map_or(UNKNOWN, |zone| &zone.zone)).encode(encoder.encode_label())
    }
}

/// `NAMESPACE/SERVICE`, written without an intermediate string.
struct Service<'a>(Option<&'a ServiceName>);

impl EncodeLabelValue for Service<'_> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        use fmt::Write;
        match self.0 {
            None => encoder.write_str(UNKNOWN),
            Some(ServiceName { namespace, service }) if &**namespace == OTHER => encoder.write_str(service),
            Some(name) => write!(encoder, "{name}"),
        }
    }
}

/// Which way requests go, seen from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the application beside the sidecar.
    Outbound,
    /// To the application beside the sidecar.
    Inbound,
    /// Through a gateway.
    Relay,
}

/// Both sides of a request and the way it goes: the labels that all traffic metrics share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peers {
    pub(super) direction: Direction,
    pub(super) source: Party,
    pub(super) destination: Party,
}

/// The names of the labels of [`Peers`].
pub(super) const PEER_LABELS: [&str; 7] = [
    "direction",
    "source_service",
    "source_cluster",
    "source_zone",
    "destination_service",
    "destination_cluster",
    "destination_zone",
];

impl EncodeLabelSet for Peers {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let [direction, rest @ ..] = PEER_LABELS;
        (direction, self.direction.as_str()).encode(encoder.encode_label())?;
        self.source.encode([rest[0], rest[1], rest[2]], encoder)?;
        self.destination.encode([rest[3], rest[4], rest[5]], encoder)
    }
}

/// Defines the label values of fieldless enums.
macro_rules! values {
    ($($type:ident { $($member:ident = $value:literal),* $(,)? })*) => {$(
        impl $type {
            /// Every member.
            pub const ALL: &[Self] = &[$(Self::$member),*];

            /// The value of the label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$member => $value),* }
            }
        }
    )*};
}
pub(super) use values;

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// 1xx: the connection was handed over.
    Informational,
    /// 2xx.
    Success,
    /// 3xx.
    Redirection,
    /// 4xx.
    ClientError,
    /// 5xx, and what HTTP does not know.
    ServerError,
    /// Nothing was answered, or the stream is opaque.
    NoAnswer,
}

impl Code {
    /// The class of a status code.
    pub const fn of(status: u16) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

/// Which attempt of its request an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptKind {
    /// The first.
    First,
    /// A repetition.
    Retry,
    /// The one request that tries out an ejected endpoint or locality.
    Probe,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptResult {
    /// The destination answered, and is not to blame for what it said.
    Success,
    /// The destination, or the way to it, failed.
    Failure,
    /// Given up: the caller went away, or another attempt was faster.
    Cancelled,
}

values! {
    Direction { Outbound = "outbound", Inbound = "inbound", Relay = "relay" }
    Code {
        Informational = "1xx", Success = "2xx", Redirection = "3xx", ClientError = "4xx", ServerError = "5xx",
        NoAnswer = "none",
    }
    AttemptKind { First = "first", Retry = "retry", Probe = "probe" }
    AttemptResult { Success = "success", Failure = "failure", Cancelled = "cancelled" }
}
