//! Over real TCP, byte by byte: what comes in, and what arrives upstream.

mod bad_input;
mod limits;
mod streams;
mod upgrades;
