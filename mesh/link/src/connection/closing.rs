//! How connections end: drained, closed, failed or lost.

use eastway_core::Reason;

use super::opening::NO_LIMIT;
use super::{Connection, Side};
use crate::error::{LinkError, Malformed};
use crate::event::Event;
use crate::frame::{GOODBYE_BYTES, Kind, put_goodbye, put_number};
use crate::stream::{Phase, StreamId};
use crate::varint::Reader;

impl Connection {
    /// Tells the peer that this side drains: no more streams shall be opened. Those that are open, and those on their way, are
    /// served. The connection can be [closed](Self::close) once [`is_drained`](Self::is_drained).
    pub fn drain(&mut self) {
        if self.ended.is_some() || self.drain.ours.is_some() {
            return;
        }
        let limit = match self.side {
            Side::Connecting => self.last,
            Side::Accepting => NO_LIMIT,
        };
        self.drain.ours = Some(limit);
        put_number(&mut self.urgent, Kind::Drain, 0, 0, limit);
    }

    /// The same for a side that has no more time: streams that are on their way are refused, too. The peer knows that nothing of
    /// them was processed, and repeats them elsewhere.
    pub fn drain_now(&mut self) {
        let limit = self.last;
        if self.ended.is_some() || self.drain.ours.is_some_and(|ours| ours <= limit) {
            return;
        }
        self.drain.ours = Some(limit);
        put_number(&mut self.urgent, Kind::Drain, 0, 0, limit);
    }

    /// Whether one side drains, nothing is open, and nothing can be on its way.
    pub fn is_drained(&self) -> bool {
        let settled = match self.side {
            Side::Connecting => self.is_draining(),
            Side::Accepting => self.drain.theirs.is_some() || self.drain.ours.is_some_and(|limit| limit != NO_LIMIT),
        };
        settled && self.streams.is_empty()
    }

    /// Ends the connection in order. Streams that are open are lost; drain before.
    pub fn close(&mut self) {
        self.close_saying("");
    }

    /// The same with a word for the peer, which it finds in [`LinkError::Goodbye`].
    pub fn close_saying(&mut self, word: &str) {
        if self.ended.is_none() {
            put_goodbye(&mut self.urgent, LinkError::Closed.code(), self.last_served, word);
            self.end(LinkError::Closed, NO_LIMIT);
        }
    }

    /// Says that the transport has ended, or failed. After a goodbye that is no loss.
    pub fn lost(&mut self) {
        if self.ended.is_none() {
            self.urgent.clear();
            self.end(LinkError::Lost, NO_LIMIT);
        }
    }

    /// Ends the connection, and tells the peer why.
    pub(super) fn fail(&mut self, error: LinkError) {
        if self.ended.is_some() {
            return;
        }
        if error == LinkError::Backlog {
            // The peer does not read; it shall at least not cost this memory any longer.
            self.urgent = Vec::new();
        }
        put_goodbye(&mut self.urgent, error.code(), self.last_served, &explain(&error));
        self.end(error, NO_LIMIT);
    }

    /// The peer said goodbye.
    pub(super) fn on_goodbye(&mut self, payload: &[u8]) -> Result<(), LinkError> {
        let mut reader = Reader::new(payload);
        let code = u32::from_be_bytes(reader.array().ok_or(Malformed::Length(GOODBYE_BYTES as u16))?);
        let served = u32::from_be_bytes(reader.array().ok_or(Malformed::Length(GOODBYE_BYTES as u16))?);
        let text: String = String::from_utf8_lossy(reader.rest).chars().filter(|c| !c.is_control()).collect();
        self.urgent.clear();
        self.end(LinkError::Goodbye { code, text }, served);
        Ok(())
    }

    /// The peer drains, up to `limit`.
    pub(super) fn on_drain(&mut self, limit: u32) -> Result<(), LinkError> {
        let first = self.drain.theirs.is_none();
        match self.side {
            // It opens none above, and has opened those below before it said so.
            Side::Accepting if limit != self.last => return Err(LinkError::State(limit)),
            Side::Accepting => self.drain.theirs = Some(limit),
            Side::Connecting => {
                self.drain.theirs = Some(self.drain.theirs.map_or(limit, |theirs| theirs.min(limit)));
                self.refuse_above(limit);
                // The answer tells the peer that nothing more is on its way.
                self.drain();
            }
        }
        if first {
            self.events.push_back(Event::Draining);
        }
        Ok(())
    }

    /// Closes the streams above `limit`, which the peer does not serve.
    fn refuse_above(&mut self, limit: u32) {
        if limit >= self.last {
            return;
        }
        for id in self.streams.ids().into_iter().filter(|id| id.number() > limit) {
            self.stats.failed += 1;
            self.late_after(id);
            self.close_stream(id);
            self.events.push_back(Event::Refused { stream: id, reason: Reason::Draining });
        }
    }

    /// What the peer may still send on a stream that is now closed is no violation.
    pub(super) fn late_after(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get(id).filter(|stream| stream.recv.phase != Phase::Ended) {
            self.recv.late += u64::from(stream.recv.credit);
        }
    }

    /// Ends everything. Streams above `served`, and those whose heads were never handed out, are surely unprocessed.
    fn end(&mut self, error: LinkError, served: u32) {
        let connecting = self.side == Side::Connecting;
        // First, so that closing streams grants no credit and announces no room.
        self.ended = Some(error.clone());
        for id in self.streams.ids() {
            let complete = self.streams.get(id).is_some_and(|stream| stream.recv.phase == Phase::Ended);
            if connecting && complete {
                // The response came before the end, perhaps in the same piece, and can still be read.
                self.stop_sending(id, Reason::UpstreamReset);
                continue;
            }
            self.stats.failed += 1;
            self.close_stream(id);
            let unprocessed = id.number() > served || id.number() > self.last_written;
            self.events.push_back(if connecting && unprocessed {
                Event::Refused { stream: id, reason: Reason::ConnectFailed }
            } else {
                Event::Lost(id)
            });
        }
        self.schedule.clear();
        self.waiting.clear();
        self.waiting_heads.clear();
        // Nothing follows a goodbye.
        self.pong = None;
        self.assembly = super::Assembly::default();
        self.events.push_back(Event::Closed(error));
    }
}

/// The error with its cause, for the peer's log.
fn explain(error: &LinkError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
