//! Tunnels between gateways over TCP, for paths on which UDP does not get through: mutual TLS 1.3, and in it a link
//! ([`eastway_link`]) of whose streams only the opaque ones are used.
//!
//! A [`TcpCarrier`] dials for one kind of tunnels. What arrives comes by the listener of sidecars, which tells tunnels by the
//! application protocol that they ask for ([`ALPN`]), and hands them over ([`TcpArrivals`]) to the runtime that shall drive them.

mod carrier;
mod ends;
mod options;
mod stream;
mod tunnel;

pub use carrier::{TcpArrivals, TcpCarrier};
pub use options::TcpOptions;
pub use tunnel::TcpTunnel;

use crate::tunnel::Kind;

/// The application protocol of data tunnels over TCP.
const DATA: &[u8] = b"eastway-tunnel/1";
/// The application protocol of control tunnels over TCP.
const CONTROL: &[u8] = b"eastway-control/1";

/// The application protocols of tunnels over TCP.
pub const ALPN: &[&[u8]] = &[DATA, CONTROL];

/// What the tunnel is for that an application protocol asks for; `None` if it asks for none.
pub fn kind_of(alpn: &[u8]) -> Option<Kind> {
    match alpn {
        DATA => Some(Kind::Data),
        CONTROL => Some(Kind::Control),
        _ => None,
    }
}

const fn alpn_of(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Data => DATA,
        Kind::Control => CONTROL,
    }
}

#[cfg(test)]
mod tests;
