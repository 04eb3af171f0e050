//! The atomics of what threads share: those of the standard library, or a model checker's.
//!
//! Built with `--cfg eastway_interleave`, the same code runs under shuttle, which chooses at each access which thread goes
//! on, so that a test sees interleavings that a machine shows once a year. Nothing else names `std::sync::atomic` in
//! this crate and in `mesh/balance`, or the checker would not see it.

/// Atomic integers and booleans.
pub mod atomic {
    #[cfg(not(eastway_interleave))]
    pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

    #[cfg(eastway_interleave)]
    pub use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
}
