//! Buffers that belong to the worker and are lent to its connections while something is under way.
//!
//! Most connections are idle most of the time, and hold none. Buffers that come back are kept for the next, so that in the
//! steady state none is allocated.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;

/// The buffers of one worker. Clones share them.
#[derive(Clone)]
pub struct Buffers(Rc<Pool>);

struct Pool {
    /// Bytes of each input buffer.
    size: usize,
    /// Buffers of each kind that are kept while nobody needs them.
    kept: usize,
    inputs: RefCell<Vec<Box<[u8]>>>,
    outputs: RefCell<Vec<Vec<u8>>>,
    lent: Cell<usize>,
}

/// An output buffer that grew beyond this is not kept.
const LARGE_OUTPUT: usize = 64 * 1024;

impl Buffers {
    /// Input buffers of `size` bytes, of which up to `kept` are kept unused.
    pub fn new(size: usize, kept: usize) -> Self {
        let pool = Pool { size, kept, inputs: RefCell::default(), outputs: RefCell::default(), lent: Cell::new(0) };
        Self(Rc::new(pool))
    }

    /// Those that all connections of this thread share.
    pub fn of_this_thread() -> Self {
        thread_local!(static BUFFERS: Buffers = Buffers::default());
        BUFFERS.with(Self::clone)
    }

    /// How many buffers connections hold now.
    pub fn lent(&self) -> usize {
        self.0.lent.get()
    }

    /// The bytes of each input buffer.
    pub fn size(&self) -> usize {
        self.0.size
    }

    fn lend<T>(&self, kept: &RefCell<Vec<T>>, new: impl FnOnce() -> T) -> T {
        self.0.lent.set(self.0.lent.get() + 1);
        let old = kept.borrow_mut().pop();
        old.unwrap_or_else(new)
    }

    fn take_back<T>(&self, kept: &RefCell<Vec<T>>, buffer: Option<T>) {
        self.0.lent.set(self.0.lent.get().saturating_sub(1));
        let mut kept = kept.borrow_mut();
        if let Some(buffer) = buffer.filter(|_| kept.len() < self.0.kept) {
            kept.push(buffer);
        }
    }
}

impl Default for Buffers {
    /// Buffers of 32 KiB, of which 256 are kept.
    fn default() -> Self {
        Self::new(32 * 1024, 256)
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("size", &self.0.size).field("lent", &self.lent()).finish_non_exhaustive()
    }
}

/// What was read and not dealt with yet: `start <= end <= bytes.len()` holds at all times.
pub(super) struct Input {
    buffers: Buffers,
    /// Empty while no buffer is rented.
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Input {
    pub(super) fn new(buffers: Buffers) -> Self {
        Self { buffers, bytes: Box::default(), start: 0, end: 0 }
    }

    /// The bytes that were not dealt with yet.
    pub(super) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// So many bytes were dealt with.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Gives the buffer back if there is nothing in it.
    pub(super) fn release(&mut self) {
        if self.start < self.end {
            return;
        }
        (self.start, self.end) = (0, 0);
        if !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            let usual = bytes.len() == self.buffers.0.size;
            self.buffers.take_back(&self.buffers.0.inputs, Some(bytes).filter(|_| usual));
        }
    }

    /// Room to read into, for up to `most` bytes in all; none if there are as many already.
    pub(super) fn room(&mut self, most: usize) -> &mut [u8] {
        let size = self.buffers.0.size;
        if self.bytes.is_empty() {
            self.bytes = self.buffers.lend(&self.buffers.0.inputs, || vec![0; size].into_boxed_slice());
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        // Rather than by a few bytes at a time behind a long head, it is read with more room.
        let little = |len: usize, end: usize| len - end < size / 4;
        if little(self.bytes.len(), self.end) && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if little(self.bytes.len(), self.end) && self.bytes.len() < most {
            let mut larger = std::mem::take(&mut self.bytes).into_vec();
            larger.resize((2 * larger.len()).min(most), 0);
            self.bytes = larger.into_boxed_slice();
        }
        &mut self.bytes[self.end..]
    }

    /// So many bytes were read into the room.
    pub(super) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Takes the bytes that were not dealt with, and gives the buffer back.
    pub(super) fn take_rest(&mut self) -> Bytes {
        let rest = Bytes::copy_from_slice(self.data());
        self.start = self.end;
        self.release();
        rest
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.start = self.end;
        self.release();
    }
}

/// What is to be sent and was not yet.
pub(super) struct Output {
    buffers: Buffers,
    /// Without capacity while no buffer is rented.
    bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    pub(super) const fn new(buffers: Buffers) -> Self {
        Self { buffers, bytes: Vec::new(), sent: 0 }
    }

    /// To be appended to.
    pub(super) fn writer(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = self.buffers.lend(&self.buffers.0.outputs, || Vec::with_capacity(4096));
        }
        &mut self.bytes
    }

    /// What was not sent yet.
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// So many bytes were sent.
    pub(super) fn sent(&mut self, count: usize) {
        self.sent = (self.sent + count).min(self.bytes.len());
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }

    /// Gives the buffer back if there is nothing in it.
    pub(super) fn release(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > 0 {
            let bytes = std::mem::take(&mut self.bytes);
            let usual = bytes.capacity() <= LARGE_OUTPUT;
            self.buffers.take_back(&self.buffers.0.outputs, Some(bytes).filter(|_| usual));
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.bytes.clear();
        self.release();
    }
}
