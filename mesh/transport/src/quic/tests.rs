//! Tests of endpoints and tunnels, over the loopback interface.

mod farewells;
mod handshakes;
mod vanished;
mod volume;
