//! Tests of endpoints and tunnels, over the loopback interface.

mod handshakes;
mod streams;
mod volume;
