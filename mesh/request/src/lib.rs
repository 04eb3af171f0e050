//! What is decided about a request, from its head to its end: pure state machines that are told what happened, and answer
//! what to do next.
//!
//! A shell reads and writes; [`Outbound`] and [`Inbound`] decide. The same code serves HTTP, gRPC and opaque streams, in
//! sidecars and gateways and in the simulation of them. Heads come in borrowed, and edits go out. There is no I/O here, no
//! clock and no type of an HTTP library: the time and a random source are handed in.
//!
//! Suggested reading order: [`outbound`], with a phase a file, and [`inbound`]; then [`route`] and [`filter`], [`answer`],
//! [`service`], [`sessions`] and [`gateways`], [`spoken`], [`record`].

pub mod answer;
pub mod filter;
pub mod gateways;
pub mod inbound;
pub mod outbound;
pub mod record;
pub mod request_match;
pub mod route;
pub mod service;
pub mod sessions;
pub mod spoken;
pub mod trace;
pub mod traffic_policy;

#[cfg(test)]
mod testing;

pub use answer::{Answer, AnswerEnd};
pub use inbound::{Inbound, InboundOptions, InboundStep, Layer};
pub use outbound::{BodyState, Call, Exit, Judged, Outbound, OutboundOptions, Step};
pub use record::{AttemptFacts, AttemptResult, Recorder, RequestFacts, RequestRecord};
pub use request_match::RequestMatch;
pub use route::{Route, RouteTable};
pub use service::ServiceEntry;
pub use spoken::Spoken;
pub use traffic_policy::TrafficPolicy;
