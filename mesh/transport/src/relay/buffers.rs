//! Read buffers, rented for the time between a read and the write that empties them.
//!
//! Each thread keeps a few of each size. A buffer may come back while parts of it still wait in a tunnel for their
//! acknowledgement: its free rest is used on, so that many small reads share one buffer instead of holding one each.

use std::cell::RefCell;

use bytes::BytesMut;

/// The sizes of buffers, in bytes.
pub(super) const SIZES: [usize; 3] = [16 << 10, 64 << 10, 256 << 10];

/// The index into [`SIZES`] that suits a direction which has moved so many bytes: most streams are short.
pub(super) const fn class_for(moved: u64) -> usize {
    if moved < 128 << 10 {
        0
    } else if moved < 10 << 20 {
        1
    } else {
        2
    }
}

/// An empty buffer with room for at least a quarter of its class's size.
pub(super) fn rent(class: usize) -> BytesMut {
    let kept = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        std::iter::from_fn(|| pool[class].pop()).find_map(|buffer| usable(class, buffer))
    });
    kept.ok().flatten().unwrap_or_else(|| BytesMut::with_capacity(SIZES[class]))
}

/// The empty buffer, if it still has or gets back enough room.
pub(super) fn usable(class: usize, mut buffer: BytesMut) -> Option<BytesMut> {
    let enough = buffer.try_reclaim(SIZES[class]) || buffer.capacity() >= SIZES[class] / 4;
    enough.then_some(buffer)
}

/// Gives a buffer back.
pub(super) fn give_back(class: usize, mut buffer: BytesMut) {
    buffer.clear();
    // A thread that is ending keeps nothing.
    let _ = POOL.try_with(|pool| {
        let kept = &mut pool.borrow_mut()[class];
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    });
}

thread_local! {
    static POOL: RefCell<[Vec<BytesMut>; SIZES.len()]> = RefCell::default();
}

/// Buffers of each size that a thread keeps: 2.6 MiB at most.
const KEPT: usize = 8;

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    fn kept(class: usize) -> usize {
        POOL.with(|pool| pool.borrow()[class].len())
    }

    #[test]
    fn buffers_grow_with_what_a_direction_has_moved() {
        let sizes: Vec<_> = [0, 100_000, 1 << 20, 100 << 20].map(|moved| SIZES[class_for(moved)] >> 10).into();
        assert_eq!(sizes, [16, 16, 64, 256]);
    }

    #[test]
    fn a_returned_buffer_is_rented_again_whole() {
        let mut buffer = rent(0);
        let address = buffer.chunk_mut().as_mut_ptr();
        buffer.put_bytes(1, 1000);
        drop(buffer.split().freeze());
        give_back(0, buffer);
        let mut again = rent(0);
        assert_eq!((again.chunk_mut().as_mut_ptr(), again.capacity()), (address, SIZES[0]));
    }

    #[test]
    fn the_rest_of_a_buffer_is_used_on_while_a_part_is_held() {
        let mut buffer = rent(0);
        buffer.put_bytes(1, 1000);
        let held = buffer.split().freeze();
        give_back(0, buffer);
        assert_eq!(rent(0).capacity(), SIZES[0] - 1000);
        assert_eq!(held.len(), 1000);
    }

    #[test]
    fn a_buffer_that_is_nearly_used_up_is_not_rented() {
        let mut buffer = rent(0);
        buffer.put_bytes(1, SIZES[0] - 100);
        let _held = buffer.split().freeze();
        give_back(0, buffer);
        assert_eq!(rent(0).capacity(), SIZES[0]);
    }

    #[test]
    fn a_thread_keeps_a_few_buffers_only() {
        let rented: Vec<_> = (0..KEPT + 5).map(|_| rent(2)).collect();
        rented.into_iter().for_each(|buffer| give_back(2, buffer));
        assert_eq!(kept(2), KEPT);
    }
}
