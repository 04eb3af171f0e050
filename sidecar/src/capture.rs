//! What the host captures for the sidecar, and how it is set to: `eastway sidecar capture`.
//!
//! Connections to names' addresses lead to the sidecar, and those that come from other hosts to the application's own ports are
//! refused, or lead to it as well. All else stays untouched: no byte of it passes through here. The rules are one table of
//! nftables, replaced as a whole; while the sidecar does not run, what they lead to it is refused, and what was refused
//! stays so. A sidecar never connects to a name's address, so that nothing can go in circles.
//!
//! `rules` says what the kernel is to do, `host` does and undoes it, `around` finds ways around it; `listeners` is the
//! running sidecar's part.

mod around;
mod host;
mod listeners;
mod rules;

pub use around::Around;
pub use host::{CaptureError, HostCapture, Standing};
pub(crate) use listeners::{bind, listen};
