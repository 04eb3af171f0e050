//! The codec by itself, then whole connections against hyper's.

mod codec;
mod connections;
mod halves;
mod harness;
mod responses;
mod smuggling;
