//! Counts the allocations of a thread, so that tests can hold hot paths to their promises. A test that uses this crate has its
//! allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[expect(unsafe_code, reason = "an allocator cannot be written without; it only counts and forwards to the system's")]
// SAFETY: every call is forwarded unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How often this thread has allocated so far. What grows counts as well.
pub fn so_far() -> u64 {
    ALLOCATIONS.get()
}

/// How often this thread allocates while `work` runs.
pub fn during(work: impl FnOnce()) -> u64 {
    let before = so_far();
    work();
    so_far() - before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_and_what_grows_is_counted_and_nothing_else() {
        let mut kept = Vec::new();
        assert_eq!(during(|| kept.push(1_u64)), 1);
        assert_eq!(during(|| kept.reserve_exact(100)), 1);
        assert_eq!(during(|| kept.push(2)), 0);
        assert_eq!(during(|| drop(kept)), 0);
    }
}
