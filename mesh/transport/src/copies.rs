//! Copies of small pieces of data, which must outlive the buffer that they were read into.
//!
//! They are cut from slabs that a thread uses again as soon as nobody holds a piece of them, so that copying allocates nothing
//! in the steady state. A piece holds its slab as long as it lives: slabs are small, and what is large gets memory of its own.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Bytes of a slab.
const SLAB: usize = 8 * 1024;
/// The largest piece that is cut from one.
const SMALL: usize = SLAB / 4;
/// Slabs that a thread knows.
const SLABS: usize = 64;
/// Slabs that are asked for room before there is another.
const ASKED: usize = 4;

thread_local! {
    static SLABS_OF_THREAD: RefCell<VecDeque<BytesMut>> = const { RefCell::new(VecDeque::new()) };
}

/// The data, in memory of its own.
pub fn copied(data: &[u8]) -> Bytes {
    if data.is_empty() || data.len() > SMALL {
        return Bytes::copy_from_slice(data);
    }
    let cut = SLABS_OF_THREAD.try_with(|slabs| cut(&mut slabs.borrow_mut(), data));
    cut.unwrap_or_else(|_| Bytes::copy_from_slice(data))
}

fn cut(slabs: &mut VecDeque<BytesMut>, data: &[u8]) -> Bytes {
    let has_room = (0..slabs.len().min(ASKED)).any(|_| {
        let has_room = slabs[0].try_reclaim(data.len());
        if !has_room {
            // Those who hold its pieces will have let them go when its turn comes again.
            slabs.rotate_left(1);
        }
        has_room
    });
    if !has_room {
        slabs.truncate(SLABS - 1);
        slabs.push_front(BytesMut::with_capacity(SLAB));
    }
    let slab = &mut slabs[0];
    slab.extend_from_slice(data);
    slab.split().freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_what_was_copied_and_nobody_else_writes_to_them() {
        let pieces: Vec<_> = (0..1000_usize).map(|at| copied(&vec![at as u8; at % SMALL])).collect();
        for (at, piece) in pieces.iter().enumerate() {
            assert!(piece.len() == at % SMALL && piece.iter().all(|byte| *byte == at as u8));
        }
    }

    #[test]
    fn a_slab_is_used_again_once_its_pieces_are_gone() {
        let mut slabs = VecDeque::new();
        let first = cut(&mut slabs, &[1; SMALL]).as_ptr();
        for _ in 0..100 {
            let held: Vec<_> = (0..4).map(|_| cut(&mut slabs, &[1; SMALL])).collect();
            drop(held);
        }
        assert!(slabs.len() <= 2, "{}", slabs.len());
        assert!(slabs.iter_mut().any(|slab| slab.try_reclaim(SLAB) && slab.as_ptr() == first));
    }

    #[test]
    fn slabs_are_bounded_whatever_is_held() {
        let mut slabs = VecDeque::new();
        let held: Vec<_> = (0..10 * SLABS).map(|_| cut(&mut slabs, &[1; SMALL])).collect();
        assert_eq!(slabs.len(), SLABS);
        drop(held);
    }
}
