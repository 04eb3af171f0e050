//! HTTP between workloads: serving, calling, judging and refusing it.
//!
//! It serves HTTP/1.1, HTTP/2 and the link over any byte stream, calls upstreams over connections that it pools, judges every
//! message's framing in one strict module, and turns a [`Reason`](eastway_core::Reason) into a response in one place. The
//! sidecar and the gateway compose these parts. HTTP/2 is hyper's; everybody else sees [`Request`] and [`Response`], whoever
//! read them.
//!
//! It never decides where a request goes, never opens a socket and never logs a request. Everything here lives on a
//! data worker: a current-thread runtime with a `LocalSet`, so nothing needs to be `Send`.
//!
//! Suggested reading order: [`Request`], [`framing`], [`body`], [`wire`], [`server`], [`client`], [`refuse`], [`sweeper`].

pub mod body;
pub mod client;
pub mod exec;
pub mod framing;
#[doc(hidden)]
pub mod fuzzing;
mod h2_cause;
mod h2_heads;
mod h2_options;
mod limits;
pub mod link;
mod message;
pub mod names;
pub mod refuse;
pub mod server;
pub mod sweeper;
pub mod upgrade;
pub mod wire;

#[cfg(test)]
mod testing;

pub use body::{Body, BodyError, Kept};
pub use client::{ClientOptions, H1, H2, Pool, SendError};
pub use limits::{HeadLimits, MAX_FIELDS};
pub use message::{FieldList, Interim, Request, RequestHead, Response, ResponseHead};
pub use server::{ServerOptions, serve};
pub use sweeper::{Deadline, Sweeper};
pub use upgrade::Upgrading;
