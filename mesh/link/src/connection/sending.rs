//! What the application sends on a stream.

use bytes::Bytes;
use eastway_core::{Reason, Timestamp};

use super::opening::put_head;
use super::{Connection, Side};
use crate::error::SendError;
use crate::frame::{END, Header, Kind, UNPROCESSED, put_number};
use crate::head::{HeadError, HeaderField, ResponseHead, encode_response, encode_trailers};
use crate::stream::{MAX_INTERIM, Phase, Stream, StreamId, Tail};
use crate::streams::Streams;

/// More pieces of data than this do not wait for one stream: small ones cost more memory than they have bytes.
pub(super) const MAX_PIECES: usize = 1024;

impl Connection {
    /// Sends the head of a response, or accepts an opaque stream with status 200. With `end` it has no body.
    ///
    /// # Errors
    /// Why nothing was sent.
    pub fn send_response(
        &mut self,
        id: StreamId,
        head: ResponseHead<'_, impl IntoIterator<Item: HeaderField>>,
        end: bool,
    ) -> Result<(), SendError> {
        if head.is_interim() {
            return Err(SendError::State);
        }
        let stream = Self::before_head(&mut self.streams, self.side, id)?;
        let left = stream.asked.body_of(&head);
        if end && left.is_some_and(|left| left > 0) {
            return Err(SendError::Length);
        }
        let flags = if end { END } else { 0 };
        let max = usize::from(self.peer.max_head_bytes);
        self.put_urgent(id, Header::new(Kind::Response, flags, id.number(), 0), |out| encode_response(head, max, out))?;
        if let Some(stream) = self.streams.get_mut(id) {
            stream.send.left = left;
            stream.send.phase = if end { Phase::Ended } else { Phase::Body };
            if end {
                stream.send.tail = Tail::Written;
            }
        }
        self.retire(id);
        Ok(())
    }

    /// Sends an interim head (1xx except 101) of a response whose final head is still to come.
    ///
    /// # Errors
    /// Why nothing was sent. [`SendError::Interim`] may be ignored: interim heads are hints.
    pub fn send_interim(
        &mut self,
        id: StreamId,
        head: ResponseHead<'_, impl IntoIterator<Item: HeaderField>>,
    ) -> Result<(), SendError> {
        if !head.is_interim() {
            return Err(SendError::State);
        }
        let stream = Self::before_head(&mut self.streams, self.side, id)?;
        if stream.send.interim == MAX_INTERIM {
            return Err(SendError::Interim);
        }
        let max = usize::from(self.peer.max_head_bytes);
        self.put_urgent(id, Header::new(Kind::Interim, 0, id.number(), 0), |out| encode_response(head, max, out))?;
        if let Some(stream) = self.streams.get_mut(id) {
            stream.send.interim += 1;
        }
        Ok(())
    }

    /// Sends data: takes from the front of `data` as much as the stream has credit and buffers have room for, and leaves the
    /// rest. If something is left, an [`Event::Writable`](crate::Event::Writable) says when to call again. With `end` the body
    /// ends with this data, provided that all of it was taken. Returns how many bytes were taken.
    ///
    /// # Errors
    /// Why nothing was taken.
    pub fn send_data(&mut self, id: StreamId, data: &mut Bytes, end: bool, now: Timestamp) -> Result<usize, SendError> {
        let connection_room = self.options.connection_buffer.saturating_sub(self.send.queued);
        let stream = Self::in_body(&mut self.streams, id)?;
        if !stream.send.fits(data.len(), end) {
            return Err(SendError::Length);
        }
        if data.is_empty() {
            return if end { self.finish(id).map(|()| 0) } else { Ok(0) };
        }
        let send = &mut stream.send;
        let mut stream_room = self.options.stream_buffer.saturating_sub(send.queued);
        if send.queue.len() >= MAX_PIECES {
            stream_room = 0;
        }
        let taken = data.len().min(send.credit as usize).min(stream_room).min(connection_room);
        if taken > 0 {
            if send.queued == 0 {
                self.schedule.enter(id);
            }
            send.queue.push_back(data.split_to(taken));
            send.queued += taken;
            send.credit -= taken as u32;
            send.left = send.left.map(|left| left.saturating_sub(taken as u64));
            self.send.queued += taken;
        }
        if !data.is_empty() {
            let waits_already = std::mem::replace(&mut send.wants_room, true);
            if send.credit == 0 {
                if !std::mem::replace(&mut send.starved, true) {
                    self.stats.starved += 1;
                    self.liveness.awaits(now);
                }
            } else if connection_room == taken && !waits_already {
                self.waiting.push_back(id);
            }
        } else if end {
            send.phase = Phase::Ended;
            send.tail = Tail::End;
        }
        Ok(taken)
    }

    /// Ends the body.
    ///
    /// # Errors
    /// Why it was not ended; [`SendError::Length`] if it is shorter than its head states.
    pub fn finish(&mut self, id: StreamId) -> Result<(), SendError> {
        let stream = Self::in_body(&mut self.streams, id)?;
        if !stream.send.fits(0, true) {
            return Err(SendError::Length);
        }
        stream.send.phase = Phase::Ended;
        if stream.send.queued > 0 {
            stream.send.tail = Tail::End;
            return Ok(());
        }
        // Without data there is no turn to wait for.
        stream.send.tail = Tail::Written;
        self.urgent.extend_from_slice(&Header::new(Kind::Data, END, id.number(), 0).bytes());
        self.retire(id);
        Ok(())
    }

    /// Ends the body with trailers.
    ///
    /// # Errors
    /// Why it was not ended; [`SendError::Length`] if it is shorter than its head states.
    pub fn send_trailers(
        &mut self,
        id: StreamId,
        fields: impl IntoIterator<Item: HeaderField>,
    ) -> Result<(), SendError> {
        let max = usize::from(self.peer.max_head_bytes);
        let stream = Self::in_body(&mut self.streams, id)?;
        if !stream.send.fits(0, true) {
            return Err(SendError::Length);
        }
        let header = Header::new(Kind::Trailers, 0, id.number(), 0);
        if stream.send.queued > 0 {
            let mut frame = self.spares.take();
            frame.clear();
            put_head(&mut frame, header, |out| encode_trailers(fields, max, out))?;
            stream.send.tail = Tail::Trailers(frame);
            stream.send.phase = Phase::Ended;
            return Ok(());
        }
        self.put_urgent(id, header, |out| encode_trailers(fields, max, out))?;
        if let Some(stream) = self.streams.get_mut(id) {
            stream.send.tail = Tail::Written;
            stream.send.phase = Phase::Ended;
        }
        self.retire(id);
        Ok(())
    }

    /// Gives a stream up, in both directions. What was not written yet is not sent, and what was not read is gone. Nothing
    /// happens if it is closed already.
    pub fn reset(&mut self, id: StreamId, reason: Reason) {
        self.reset_with(id, reason, 0);
    }

    /// Says that the rest of what the peer sends on a stream is not wanted. It is told so when everything that this side sends was
    /// written; until then what comes can be read. Nothing happens if the peer has sent everything.
    pub fn stop(&mut self, id: StreamId, reason: Reason) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.recv.phase == Phase::Ended {
            return;
        }
        if matches!(stream.send.tail, Tail::Written) {
            self.reset_with(id, reason, 0);
        } else {
            stream.send.stops = Some(reason);
        }
    }

    /// Refuses a stream that the peer opened, of which the application has seen nothing: the peer may repeat it elsewhere. Once
    /// a response has begun, it is a [`reset`](Self::reset).
    pub fn refuse(&mut self, id: StreamId, reason: Reason) {
        let unanswered =
            self.streams.get(id).is_some_and(|stream| stream.send.phase == Phase::Head && stream.send.interim == 0);
        self.reset_with(id, reason, if unanswered { UNPROCESSED } else { 0 });
    }

    pub(super) fn reset_with(&mut self, id: StreamId, reason: Reason, flags: u8) {
        let Some(stream) = self.streams.get(id) else { return };
        let ended = stream.recv.phase == Phase::Ended;
        // Who has read the end of a stream and written its own knows it no more.
        if !(ended && matches!(stream.send.tail, Tail::Written)) {
            put_number(&mut self.urgent, Kind::Reset, flags, id.number(), reason.number());
            self.stats.failed += 1;
        }
        self.late_after(id);
        self.close_stream(id);
    }

    /// Puts a head before all data, unless too much waits there already.
    fn put_urgent(
        &mut self,
        id: StreamId,
        header: Header,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), HeadError>,
    ) -> Result<(), SendError> {
        if self.urgent.len() > self.options.head_buffer {
            let stream = self.streams.get_mut(id).ok_or(SendError::Gone)?;
            if !std::mem::replace(&mut stream.send.wants_room, true) {
                self.waiting_heads.push_back(id);
            }
            return Err(SendError::Busy);
        }
        Ok(put_head(&mut self.urgent, header, encode)?)
    }

    fn before_head(streams: &mut Streams, side: Side, id: StreamId) -> Result<&mut Stream, SendError> {
        let stream = streams.get_mut(id).ok_or(SendError::Gone)?;
        let may = side == Side::Accepting && stream.send.phase == Phase::Head;
        if may { Ok(stream) } else { Err(SendError::State) }
    }

    fn in_body(streams: &mut Streams, id: StreamId) -> Result<&mut Stream, SendError> {
        let stream = streams.get_mut(id).ok_or(SendError::Gone)?;
        if stream.send.phase == Phase::Body { Ok(stream) } else { Err(SendError::State) }
    }
}
