//! What a connection wants to have written, in the order of the wire.
//!
//! Headers, heads and small payloads are copied into one buffer; large payloads are kept as they are. A pass of the run queue
//! thus ends in few large pieces, which a shell writes at once: [`Outgoing`] is a [`Buf`], and gives out its pieces by
//! [`Buf::chunks_vectored`]. Its buffers are used again for the next pass.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Payloads below this size are copied: a piece of its own would cost more. In bytes.
const COPY_BELOW: usize = 2048;

/// Bytes to be written. Filled by [`Connection::transmit`](crate::Connection::transmit), emptied by the shell.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// What was copied; `parts` say where it stands among the other pieces.
    copied: Vec<u8>,
    parts: VecDeque<Part>,
    /// How much of `copied` was written.
    written: usize,
    remaining: usize,
}

#[derive(Debug)]
enum Part {
    /// The bytes of `copied` up to this place.
    Copied(usize),
    Shared(Bytes),
}

impl Outgoing {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether everything was written.
    pub const fn is_empty(&self) -> bool {
        self.remaining == 0
    }

    /// Bytes that are still to be written.
    pub const fn len(&self) -> usize {
        self.remaining
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
        self.remaining += bytes.len();
        let end = self.copied.len();
        match self.parts.back_mut() {
            Some(Part::Copied(last)) => *last = end,
            _ => self.parts.push_back(Part::Copied(end)),
        }
    }

    pub(crate) fn put_shared(&mut self, bytes: Bytes) {
        if bytes.len() < COPY_BELOW {
            self.put(&bytes);
        } else {
            self.remaining += bytes.len();
            self.parts.push_back(Part::Shared(bytes));
        }
    }

    fn slice<'a>(&'a self, part: &'a Part, from: usize) -> &'a [u8] {
        match part {
            Part::Copied(end) => self.copied.get(from..*end).unwrap_or_default(),
            Part::Shared(bytes) => bytes,
        }
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| self.slice(part, self.written))
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut from = self.written;
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(self.slice(part, from));
            if let Part::Copied(end) = part {
                from = *end;
            }
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        count = count.min(self.remaining);
        self.remaining -= count;
        while let Some(part) = self.parts.front_mut() {
            let length = match part {
                Part::Copied(end) => *end - self.written,
                Part::Shared(bytes) => bytes.len(),
            };
            let step = length.min(count);
            count -= step;
            match part {
                Part::Copied(_) => self.written += step,
                Part::Shared(bytes) => bytes.advance(step),
            }
            if step < length {
                return;
            }
            self.parts.pop_front();
        }
        self.copied.clear();
        self.written = 0;
        // One unusual pass must not keep its memory for as long as the connection lives.
        self.copied.shrink_to(KEPT);
    }
}

/// Bytes of the buffer that stay allocated between passes.
const KEPT: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> (Outgoing, Vec<u8>) {
        let mut out = Outgoing::new();
        let mut all = Vec::new();
        for round in 0..4_u8 {
            let small = vec![round; 10];
            let large = vec![round + 100; COPY_BELOW + usize::from(round)];
            out.put(&small);
            out.put_shared(Bytes::from(small.clone()));
            out.put_shared(Bytes::from(large.clone()));
            all.extend([small.clone(), small, large].concat());
        }
        (out, all)
    }

    #[test]
    fn pieces_come_out_in_order_whatever_is_written_at_once() {
        for step in [1, 7, 20, 2048, 5000, usize::MAX] {
            let (mut out, all) = filled();
            let mut read = Vec::new();
            while out.has_remaining() {
                let chunk = out.chunk();
                let step = step.min(chunk.len());
                read.extend_from_slice(&chunk[..step]);
                out.advance(step);
            }
            assert!(read == all && out.is_empty() && out.chunk().is_empty());
        }
    }

    #[test]
    fn small_payloads_join_the_piece_before_them() {
        let (mut out, all) = filled();
        let mut slices = [IoSlice::new(&[]); 16];
        assert_eq!(out.chunks_vectored(&mut slices), 8);
        assert_eq!(slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>(), all);
        out.advance(25);
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(out.chunks_vectored(&mut slices), 2);
        assert_eq!([&slices[0][..], &slices[1][..]].concat(), all[25..40 + COPY_BELOW]);
        assert_eq!(out.len(), all.len() - 25);
    }

    #[test]
    fn it_can_be_filled_while_it_is_written() {
        let mut out = Outgoing::new();
        out.put(b"abc");
        out.advance(1);
        out.put(b"def");
        assert_eq!(out.chunk(), b"bcdef");
        out.advance(9);
        assert!(out.is_empty());
    }
}
