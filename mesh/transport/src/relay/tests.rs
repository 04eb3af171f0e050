//! Tests of relays, over memory, TCP and tunnels.

mod ends;
mod limits;
mod volume;
