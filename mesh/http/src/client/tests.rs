//! Connections that work, that fail in every way, and the pool.

mod connections;
mod early;
mod failures;
mod pooling;
