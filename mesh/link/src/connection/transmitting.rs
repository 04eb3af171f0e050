//! What is written, and in which order: control frames and heads first, then data in fair turns.

use bytes::Bytes;
use eastway_core::Timestamp;

use super::Connection;
use super::sending::MAX_PIECES;
use crate::error::LinkError;
use crate::event::Event;
use crate::frame::{END, Header, Kind, put_ping};
use crate::liveness::Due;
use crate::outgoing::Outgoing;
use crate::stream::{Phase, Sending, StreamId, Tail};

/// What so many bytes of data may bring back in grants of credit.
const BYTES_FOR_A_GRANT: usize = 4096;

impl Connection {
    /// Appends to `out` what is to be written now. Data is added until `out` holds `budget` bytes, which it exceeds by less than
    /// one quantum; control frames and heads are added in any case. Call it once for everything that is ready, after events were
    /// polled, and again when `out` was written.
    ///
    /// 64 to 256 KiB are a good budget: more only makes later frames wait.
    pub fn transmit(&mut self, now: Timestamp, out: &mut Outgoing, budget: usize) {
        let before = out.len();
        if !self.urgent.is_empty() {
            out.put(&self.urgent);
            self.urgent.clear();
            // One burst of heads must not keep its memory for as long as the connection lives.
            self.urgent.shrink_to(self.options.head_buffer);
            self.last_written = self.last;
        }
        if let Some(payload) = self.pong.take() {
            let mut frame = self.spares.take();
            frame.clear();
            put_ping(&mut frame, Kind::Pong, payload);
            out.put(&frame);
            self.spares.give(frame);
        }
        if self.ended.is_none() {
            self.transmit_data(now, out, budget);
            self.wake_waiting();
        }
        self.stats.bytes_sent += (out.len() - before) as u64;
    }

    /// Whether [`Connection::transmit`] has something to give now.
    pub fn has_output(&self) -> bool {
        let data = self.send.left > 0 && !self.schedule.is_empty() && self.ended.is_none();
        !self.urgent.is_empty() || self.pong.is_some() || data
    }

    /// When [`Connection::handle_timeout`] is to be called, if nothing happens before; `None` for never.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        if self.ended.is_some() { None } else { self.liveness.deadline(!self.streams.is_empty()) }
    }

    /// Does what is due at `now`: sends a ping, or gives the peer up.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.ended.is_some() {
            return;
        }
        match self.liveness.due(now, !self.streams.is_empty()) {
            Due::Nothing => {}
            Due::Ping => self.ping(now),
            Due::Lost(silence) => self.fail(LinkError::Unresponsive(silence)),
        }
    }

    /// Asks the peer for a sign of life, for example to measure the path ([`LinkStats::rtt`](crate::LinkStats::rtt)). Nothing
    /// happens while an earlier ping waits for its answer.
    pub fn ping(&mut self, now: Timestamp) {
        if self.ended.is_some() {
            return;
        }
        if let Some(payload) = self.liveness.ping(now) {
            put_ping(&mut self.urgent, Kind::Ping, payload);
        }
    }

    fn transmit_data(&mut self, now: Timestamp, out: &mut Outgoing, budget: usize) {
        while out.len() < budget {
            let Some(id) = self.schedule.next() else { break };
            if self.streams.get(id).is_none_or(|stream| stream.send.queued == 0) {
                continue;
            }
            if self.send.left == 0 {
                self.schedule.put_back(id);
                if self.send.blocked_since.is_none() {
                    self.send.blocked_since = Some(now);
                    self.liveness.awaits(now);
                }
                break;
            }
            self.turn(id, out);
        }
        self.budgets.windows.earn((self.send.unearned / BYTES_FOR_A_GRANT) as u32);
        self.send.unearned %= BYTES_FOR_A_GRANT;
    }

    /// One turn of one stream: one frame.
    fn turn(&mut self, id: StreamId, out: &mut Outgoing) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let send = &mut stream.send;
        let length = send.queued.min(usize::from(self.options.quantum)).min(self.send.left as usize);
        let last = length == send.queued;
        let end = last && matches!(send.tail, Tail::End);
        out.put(&Header::new(Kind::Data, if end { END } else { 0 }, id.number(), length as u16).bytes());
        put_data(send, length, out);
        send.queued -= length;
        self.send.left -= length as u32;
        self.send.queued -= length;
        self.send.unearned += length;
        self.stats.data_sent += length as u64;
        if !last {
            self.schedule.again(id);
        } else if send.phase == Phase::Ended
            && let Tail::Trailers(frame) = std::mem::replace(&mut send.tail, Tail::Written)
        {
            out.put(&frame);
            self.spares.give(frame);
        }
        let room = send.queued <= self.options.stream_buffer / 2 && send.queue.len() <= MAX_PIECES / 2;
        if send.wants_room && !send.starved && room {
            send.wants_room = false;
            self.events.push_back(Event::Writable(id));
        }
        let stops = send.stops.filter(|_| matches!(send.tail, Tail::Written));
        match stops {
            Some(reason) => self.reset_with(id, reason, 0),
            None if last => self.retire(id),
            None => {}
        }
    }

    /// Tells those that wait for room in the buffers of the connection. Heads first: they must not wait for credit, as data may.
    /// Of those with data, the longest waiting come first, and as many as find some room; all of them once nothing is queued, because
    /// then nothing else would wake those that are left.
    fn wake_waiting(&mut self) {
        while let Some(id) = self.waiting_heads.pop_front() {
            self.wake(id);
        }
        let mut room = self.options.connection_buffer.saturating_sub(self.send.queued);
        while room > 0 || self.send.queued == 0 {
            let Some(id) = self.waiting.pop_front() else { break };
            if self.wake(id) {
                room = room.saturating_sub(usize::from(self.options.quantum));
            }
        }
        if self.wants_open && self.may_open().is_ok() {
            self.wants_open = false;
            self.events.push_back(Event::Openable);
        }
    }

    /// Tells a stream that it may send, if it is open and waits for that.
    fn wake(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(id) else { return false };
        let waits = std::mem::take(&mut stream.send.wants_room);
        if waits {
            self.events.push_back(Event::Writable(id));
        }
        waits
    }
}

/// Moves `length` bytes from the queue to `out`.
fn put_data(send: &mut Sending, mut length: usize, out: &mut Outgoing) {
    while length > 0 {
        let Some(mut piece) = send.queue.pop_front() else { return };
        if piece.len() > length {
            let rest: Bytes = piece.split_off(length);
            send.queue.push_front(rest);
        }
        length -= piece.len();
        out.put_shared(piece);
    }
}
