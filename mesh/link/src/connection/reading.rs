//! What the application reads from a stream, and the credit that it gives back by that.

use bytes::Bytes;

use super::Connection;
use crate::frame::{Kind, put_number};
use crate::stream::{Phase, StreamId};

/// Credit is granted in portions of this part of a window: often enough that the peer does not run dry, and seldom enough that
/// grants cost nothing.
const PORTION: u32 = 4;

impl Connection {
    /// Takes the first piece of what was received on a stream and not read yet. Empty if there is nothing, also when the stream
    /// is closed: to be called until then, because what is left is not told of again.
    ///
    /// The peer gets no credit for it before [`consume`](Self::consume) is called.
    pub fn read(&mut self, id: StreamId) -> Bytes {
        let Some(stream) = self.streams.get_mut(id) else { return Bytes::new() };
        stream.recv.told = false;
        let data = stream.recv.data.take();
        stream.recv.taken += data.len();
        self.recv.unread -= data.len();
        self.retire(id);
        data
    }

    /// The same for everything that was received, appended to a buffer of the caller: it then needs no memory of its own. Returns how many bytes.
    pub fn read_into(&mut self, id: StreamId, out: &mut Vec<u8>) -> usize {
        let Some(stream) = self.streams.get_mut(id) else { return 0 };
        stream.recv.told = false;
        let length = stream.recv.data.drain_into(out);
        stream.recv.taken += length;
        self.recv.unread -= length;
        self.retire(id);
        length
    }

    /// Says that the application has done with `count` bytes that were read: the peer may send as many again. More than was read
    /// does not count. When a stream ends, everything that was read of it counts as consumed.
    pub fn consume(&mut self, id: StreamId, count: usize) {
        let portion = self.options.stream_window / PORTION;
        let Some(stream) = self.streams.get_mut(id) else { return };
        let recv = &mut stream.recv;
        let count = count.min(recv.taken);
        recv.taken -= count;
        recv.owed += count as u32;
        // Who has sent everything needs no credit.
        if recv.owed >= portion && recv.phase != Phase::Ended {
            put_number(&mut self.urgent, Kind::Window, 0, id.number(), recv.owed);
            recv.credit += recv.owed;
            recv.owed = 0;
        }
        self.grant_connection(count);
    }

    /// Gives credit of the connection back.
    pub(super) fn grant_connection(&mut self, count: usize) {
        self.recv.owed += count as u32;
        if self.recv.owed >= self.options.connection_window / PORTION && self.ended.is_none() {
            put_number(&mut self.urgent, Kind::Window, 0, 0, self.recv.owed);
            self.recv.left += self.recv.owed;
            self.recv.owed = 0;
        }
    }
}
