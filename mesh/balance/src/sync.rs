//! The locks of what threads share, beside the atomics of [`eastway_resilience::sync`]: parking_lot's, or a model checker's.

pub(crate) use eastway_resilience::sync::atomic;

#[cfg(not(eastway_interleave))]
pub(crate) use parking_lot::{Mutex, MutexGuard};

#[cfg(eastway_interleave)]
pub(crate) use checked::{Mutex, MutexGuard};

/// Shuttle's lock with parking_lot's face: a holder that unwound poisons nothing.
#[cfg(eastway_interleave)]
mod checked {
    use std::sync::PoisonError;

    pub(crate) use shuttle::sync::MutexGuard;

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
