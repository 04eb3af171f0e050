//! What was received on a stream and not read.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Received data, in pieces: a reader that is slow makes no buffer grow that would have to be moved, and who keeps a piece does
/// not keep a whole window with it.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Pieces that nothing is added to any more, the first received first.
    full: VecDeque<Bytes>,
    /// The piece that grows.
    last: BytesMut,
    /// Bytes of all.
    len: usize,
}

impl Inbox {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a part of a frame, of which `left` bytes are still to come.
    pub(crate) fn extend(&mut self, data: &[u8], left: usize) {
        if !self.last.is_empty() && self.last.len() + data.len() > PIECE {
            self.full.push_back(std::mem::take(&mut self.last).freeze());
        }
        if self.last.capacity() == 0 {
            self.last.reserve(data.len() + left);
        }
        self.last.extend_from_slice(data);
        self.len += data.len();
    }

    /// Takes the piece that came first. Empty only if there is none.
    pub(crate) fn take(&mut self) -> Bytes {
        let piece = self.full.pop_front().unwrap_or_else(|| std::mem::take(&mut self.last).freeze());
        self.len -= piece.len();
        piece
    }

    /// Moves everything to `out`; how many bytes. The room of the last piece stays.
    pub(crate) fn drain_into(&mut self, out: &mut Vec<u8>) -> usize {
        self.full.drain(..).for_each(|piece| out.extend_from_slice(&piece));
        out.extend_from_slice(&self.last);
        self.last.clear();
        std::mem::take(&mut self.len)
    }

    /// Throws everything away, and the room that it took, unless it is small.
    pub(crate) fn clear(&mut self) {
        self.full = VecDeque::new();
        self.last.clear();
        if self.last.capacity() > KEPT_BYTES {
            self.last = BytesMut::new();
        }
        self.len = 0;
    }
}

/// Bytes that a piece grows to. A frame's payload is never cut, so that a piece of one frame may be larger by a little.
const PIECE: usize = 64 * 1024;
/// Room of a closed stream up to this size is kept for the next one.
const KEPT_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_pieces_of_bounded_size(
            parts in prop::collection::vec((0..=65_535_usize, any::<bool>()), 1..20)
        ) {
            let (mut inbox, mut sent, mut came) = (Inbox::default(), Vec::new(), Vec::new());
            for (number, (length, read)) in parts.into_iter().enumerate() {
                let part = vec![number as u8; length];
                inbox.extend(&part, 0);
                sent.extend_from_slice(&part);
                if read {
                    let piece = inbox.take();
                    prop_assert!(piece.len() <= PIECE);
                    came.extend_from_slice(&piece);
                }
                prop_assert_eq!(inbox.len(), sent.len() - came.len());
                prop_assert_eq!(inbox.is_empty(), sent.len() == came.len());
            }
            inbox.drain_into(&mut came);
            prop_assert!(inbox.is_empty() && inbox.take().is_empty() && came == sent);
        }
    }

    #[test]
    fn a_cleared_inbox_keeps_little() {
        let mut inbox = Inbox::default();
        (0..4).for_each(|_| inbox.extend(&[7; 40_000], 0));
        inbox.clear();
        assert!(inbox.is_empty() && inbox.take().is_empty());
        assert_eq!((inbox.full.capacity(), inbox.last.capacity()), (0, 0));
    }
}
