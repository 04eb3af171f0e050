//! The permit for the one probe of a half-open breaker.
//!
//! It is apart from the breaker, because a pick takes it without the breaker's lock.

use crate::sync::atomic::{AtomicBool, Ordering};

/// A permit that one holder at a time can have.
#[derive(Debug, Default)]
pub struct ProbePermit(AtomicBool);

impl ProbePermit {
    /// Takes the permit; false if somebody has it.
    pub fn try_take(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether somebody has it.
    pub fn is_taken(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Gives it back. Only its holder may.
    pub fn release(&self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use crate::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn one_thread_of_many_gets_it() {
        for _ in 0..200 {
            let (permit, taken) = (ProbePermit::default(), AtomicU32::new(0));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        if permit.try_take() {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(taken.load(Ordering::Relaxed), 1);
            assert!(permit.is_taken());
            permit.release();
            assert!(!permit.is_taken());
            assert!(permit.try_take());
        }
    }
}
