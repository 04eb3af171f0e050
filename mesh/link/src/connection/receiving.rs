//! Bytes from the peer, cut into frames.

use eastway_core::{Reason, Timestamp};

use super::{Connection, Side};
use crate::error::LinkError;
use crate::event::Event;
use crate::frame::{END, HEADER_BYTES, Header, Kind};
use crate::stream::{Phase, StreamId};

/// What of the current frame was received so far. Only headers and heads are kept until they are whole; data is handed on
/// as it comes.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// The beginning of a header, or of the payload that `next` waits for.
    partial: Vec<u8>,
    next: Next,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    Header,
    /// The whole payload of a frame that is handled at once.
    Payload(Header),
    /// Data, of which so many bytes are missing.
    Data { stream: StreamId, end: bool, left: usize },
    /// The payload of a frame that is skipped, of which so many bytes are missing.
    Skipped(usize),
}

impl Assembly {
    /// Bytes that are kept.
    pub(super) fn kept(&self) -> usize {
        self.partial.len()
    }

    /// Of which stream data is missing in the current frame, and how much.
    #[cfg(test)]
    pub(super) fn missing(&self) -> (Option<StreamId>, usize) {
        match self.next {
            Next::Data { stream, left, .. } => (Some(stream), left),
            _ => (None, 0),
        }
    }
}

impl Connection {
    /// Takes what was read from the transport, in pieces of any size. Everything is used; nothing of it is kept but the beginning
    /// of a frame, and data that the application has not read.
    ///
    /// # Errors
    /// Why the connection has ended, now or before. The same is told by [`Event::Closed`], and what is left to
    /// [`transmit`](Self::transmit) tells the peer.
    pub fn receive(&mut self, mut input: &[u8], now: Timestamp) -> Result<(), LinkError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        self.liveness.heard(now);
        self.stats.bytes_received += input.len() as u64;
        while self.ended.is_none() {
            match self.step(input, now) {
                Ok(Some(rest)) => input = rest,
                Ok(None) => break,
                Err(error) => self.fail(error),
            }
        }
        // Answers that nobody reads must not pile up: no proper peer comes near this.
        if self.ended.is_none() && self.urgent.len() > self.options.head_buffer.saturating_mul(2) + MOST_ANSWERS {
            self.fail(LinkError::Backlog);
        }
        self.ended.clone().map_or(Ok(()), Err)
    }

    /// Uses the beginning of `input`, and gives the rest; `None` if more is needed.
    fn step<'a>(&mut self, input: &'a [u8], now: Timestamp) -> Result<Option<&'a [u8]>, LinkError> {
        match self.assembly.next {
            Next::Header => {
                let Some((header, rest)) = self.header(input) else { return Ok(None) };
                let header = Header::read(header, usize::from(self.options.max_head_bytes))?;
                self.begin(header, now)?;
                Ok(Some(rest))
            }
            Next::Payload(header) => self.payload(header, input, now),
            Next::Data { stream, end, left } => {
                let (data, rest) = input.split_at(left.min(input.len()));
                let left = left - data.len();
                self.data(stream, data, left);
                self.assembly.next = if left > 0 { Next::Data { stream, end, left } } else { Next::Header };
                if left > 0 {
                    return Ok(None);
                }
                if end {
                    self.end_of_data(stream);
                }
                Ok(Some(rest))
            }
            Next::Skipped(left) => {
                let (skipped, rest) = input.split_at(left.min(input.len()));
                let left = left - skipped.len();
                self.assembly.next = if left > 0 { Next::Skipped(left) } else { Next::Header };
                Ok((left == 0).then_some(rest))
            }
        }
    }

    /// The header of the next frame, if all of it is there.
    fn header<'a>(&mut self, input: &'a [u8]) -> Option<([u8; HEADER_BYTES], &'a [u8])> {
        let partial = &mut self.assembly.partial;
        if partial.is_empty()
            && let Some((header, rest)) = input.split_first_chunk()
        {
            return Some((*header, rest));
        }
        let (more, rest) = input.split_at((HEADER_BYTES - partial.len()).min(input.len()));
        partial.extend_from_slice(more);
        let header = *partial.first_chunk()?;
        partial.clear();
        Some((header, rest))
    }

    /// Decides what happens with the payload of a frame.
    fn begin(&mut self, header: Header, now: Timestamp) -> Result<(), LinkError> {
        if !self.greeted && header.kind != Kind::Hello {
            return Err(LinkError::Hello);
        }
        let length = usize::from(header.length);
        self.assembly.next = match header.kind {
            Kind::Data => {
                let stream = StreamId::new(header.stream);
                self.begin_data(stream, u32::from(header.length), header.has(END), now)?;
                Next::Data { stream, end: header.has(END), left: length }
            }
            Kind::Ignorable => {
                self.stray(now)?;
                Next::Skipped(length)
            }
            _ => Next::Payload(header),
        };
        Ok(())
    }

    /// The payload of a frame that is handled as a whole.
    fn payload<'a>(&mut self, header: Header, input: &'a [u8], now: Timestamp) -> Result<Option<&'a [u8]>, LinkError> {
        let length = usize::from(header.length);
        if self.assembly.partial.is_empty()
            && let Some((payload, rest)) = input.split_at_checked(length)
        {
            self.assembly.next = Next::Header;
            self.frame(header, payload, now)?;
            return Ok(Some(rest));
        }
        let missing = length - self.assembly.partial.len();
        let (more, rest) = input.split_at(missing.min(input.len()));
        self.assembly.partial.extend_from_slice(more);
        if more.len() < missing {
            return Ok(None);
        }
        self.assembly.next = Next::Header;
        let mut payload = std::mem::take(&mut self.assembly.partial);
        let result = self.frame(header, &payload, now);
        payload.clear();
        payload.shrink_to(KEPT);
        self.assembly.partial = payload;
        result.map(|()| Some(rest))
    }

    /// Checks a frame of data before its payload comes, and takes it off the credit.
    fn begin_data(&mut self, id: StreamId, length: u32, end: bool, now: Timestamp) -> Result<(), LinkError> {
        self.recv.left = self.recv.left.checked_sub(length).ok_or(LinkError::Credit)?;
        let Some(stream) = self.streams.get_mut(id) else {
            return self.begin_late_data(id, length, now);
        };
        let recv = &mut stream.recv;
        if recv.phase != Phase::Body {
            return Err(LinkError::State(id.number()));
        }
        recv.credit = recv.credit.checked_sub(length).ok_or(LinkError::Credit)?;
        if !recv.fits(u64::from(length), end) {
            // It would be read as another message behind this one.
            self.give_up(id, now)?;
        } else if let Some(left) = &mut recv.left {
            *left -= u64::from(length);
        }
        Ok(())
    }

    /// Data on a stream that is closed here: no more than was on its way when it was closed.
    fn begin_late_data(&mut self, id: StreamId, length: u32, now: Timestamp) -> Result<(), LinkError> {
        if id.number() > self.last {
            return Err(LinkError::State(id.number()));
        }
        if length == 0 {
            return self.stray(now);
        }
        let Some(late) = self.recv.late.checked_sub(u64::from(length)) else {
            return Err(LinkError::State(id.number()));
        };
        self.recv.late = late;
        Ok(())
    }

    /// A part of a frame of data; `left` bytes of the frame are still to come.
    fn data(&mut self, id: StreamId, data: &[u8], left: usize) {
        if data.is_empty() {
            return;
        }
        let Some(stream) = self.streams.get_mut(id) else {
            return self.grant_connection(data.len());
        };
        let recv = &mut stream.recv;
        recv.data.extend(data, left);
        self.recv.unread += data.len();
        self.stats.data_received += data.len() as u64;
        if !std::mem::replace(&mut recv.told, true) {
            self.events.push_back(Event::Readable(id));
        }
    }

    fn end_of_data(&mut self, id: StreamId) {
        if self.streams.get(id).is_some() {
            self.end_of_stream(id);
            self.events.push_back(Event::Finished { stream: id, trailers: None });
            self.retire(id);
        }
    }

    /// The peer sends nothing more on this stream.
    pub(super) fn end_of_stream(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.recv.phase = Phase::Ended;
            self.liveness.got();
        }
    }

    /// Ends a stream on which the peer sent what cannot be passed on. The connection is not in doubt: no frame changes how
    /// another one is read.
    pub(super) fn give_up(&mut self, id: StreamId, now: Timestamp) -> Result<(), LinkError> {
        let reason = match self.side {
            Side::Connecting => Reason::UpstreamProtocol,
            Side::Accepting => Reason::MalformedRequest,
        };
        if self.side == Side::Accepting {
            self.came_to_nothing(now)?;
        }
        self.reset(id, reason);
        self.events.push_back(Event::Reset { stream: id, reason });
        Ok(())
    }
}

/// Bytes of answers (resets, grants of credit) that may wait beside heads.
const MOST_ANSWERS: usize = 256 * 1024;

/// Bytes of the buffer of partial frames that stay allocated.
const KEPT: usize = 4096;
