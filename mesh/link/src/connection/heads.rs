//! Frames with heads in them.

use eastway_core::{Reason, Timestamp};

use super::{Connection, Side};
use crate::error::{Flood, LinkError};
use crate::event::Event;
use crate::frame::{END, Header, Kind, OPAQUE, UNPROCESSED, put_number};
use crate::head::{
    HeadError, OpaqueBuf, OpaqueHead, RequestBuf, RequestHead, ResponseBuf, TrailersBuf, decode_interim,
    decode_trailers,
};
use crate::stream::{Asked, MAX_INTERIM, Phase, StreamId};

/// What a head that opens a stream says about it.
struct Opened {
    event: Event,
    asked: Asked,
    length: Option<u64>,
}

impl Connection {
    pub(super) fn on_open(&mut self, header: Header, payload: &[u8], now: Timestamp) -> Result<(), LinkError> {
        let (id, end) = (StreamId::new(header.stream), header.has(END));
        if self.side == Side::Connecting || self.drain.theirs.is_some() {
            return Err(LinkError::State(id.number()));
        }
        let expected = self.last.saturating_add(1);
        if id.number() != expected || expected == u32::MAX {
            return Err(LinkError::StreamOrder { expected, found: id.number() });
        }
        self.last = id.number();
        self.stats.opened += 1;
        if self.drain.ours.is_some_and(|limit| id.number() > limit) {
            return self.refuse_open(id, end, Reason::Draining, now);
        }
        if self.is_full() {
            return self.refuse_open(id, end, Reason::Overloaded, now);
        }
        match self.opened(header, payload) {
            Ok(opened) => {
                self.admit(id, end, opened, now);
                Ok(())
            }
            Err(reason) => self.refuse_open(id, end, reason, now),
        }
    }

    /// Whether the peer has as many streams open as it may. Those that have ended and that the application has not read yet do not
    /// count for the peer, which does not know of them, but there are never more than as many again.
    fn is_full(&self) -> bool {
        let (all, most) = (self.streams.len(), self.options.max_streams as usize);
        all >= most && (all >= 2 * most || self.streams.count(|stream| !stream.is_closed()) >= most)
    }

    /// Reads the head that opens a stream, or says why it is refused.
    fn opened(&mut self, header: Header, payload: &[u8]) -> Result<Opened, Reason> {
        let (stream, end) = (StreamId::new(header.stream), header.has(END));
        let max = usize::from(self.options.max_head_bytes);
        if header.has(OPAQUE) {
            OpaqueHead::decode(payload, max).map_err(|_| Reason::MalformedOpen)?;
            let head = OpaqueBuf::checked(self.spares.take(), payload);
            return Ok(Opened { event: Event::Opaque { stream, head, end }, asked: Asked::Tunnel, length: None });
        }
        let head = RequestHead::decode(payload, max).map_err(|error| match error {
            HeadError::TooLarge => Reason::HeaderTooLarge,
            _ => Reason::MalformedRequest,
        })?;
        let (asked, length) = (Asked::by(head.method), head.length);
        if end && length.is_some_and(|length| length > 0) {
            return Err(Reason::MalformedRequest);
        }
        let head = RequestBuf::checked(self.spares.take(), payload);
        Ok(Opened { event: Event::Request { stream, head, end }, asked, length })
    }

    fn admit(&mut self, id: StreamId, end: bool, opened: Opened, now: Timestamp) {
        let stream = self.streams.insert(id);
        stream.asked = opened.asked;
        stream.send.credit = self.peer.stream_window;
        stream.recv.credit = self.options.stream_window;
        stream.recv.left = opened.length;
        stream.recv.phase = if end { Phase::Ended } else { Phase::Body };
        if !end {
            self.liveness.awaits(now);
        }
        self.last_served = id.number();
        self.events.push_back(opened.event);
    }

    /// Refuses a stream of which the application will see nothing.
    fn refuse_open(&mut self, id: StreamId, end: bool, reason: Reason, now: Timestamp) -> Result<(), LinkError> {
        self.came_to_nothing(now)?;
        self.stats.failed += 1;
        if !end {
            self.recv.late += u64::from(self.options.stream_window);
        }
        put_number(&mut self.urgent, Kind::Reset, UNPROCESSED, id.number(), reason.number());
        Ok(())
    }

    pub(super) fn on_response(&mut self, header: Header, payload: &[u8], now: Timestamp) -> Result<(), LinkError> {
        let (id, end, interim) = (StreamId::new(header.stream), header.has(END), header.kind == Kind::Interim);
        if self.side == Side::Accepting {
            return Err(LinkError::State(id.number()));
        }
        let max = usize::from(self.options.max_head_bytes);
        let Some(stream) = self.streams.get_mut(id) else { return self.stray_on(id, now) };
        if stream.recv.phase != Phase::Head {
            return Err(LinkError::State(id.number()));
        }
        let Ok(head) = decode_interim(payload, interim, max) else { return self.give_up(id, now) };
        let recv = &mut stream.recv;
        if interim {
            recv.interim += 1;
            if recv.interim > MAX_INTERIM {
                return Err(LinkError::Flood(Flood::Interim));
            }
            let head = ResponseBuf::checked(self.spares.take(), payload);
            self.events.push_back(Event::Interim { stream: id, head });
            return Ok(());
        }
        recv.left = stream.asked.body_of(&head);
        if end && recv.left.is_some_and(|left| left > 0) {
            return self.give_up(id, now);
        }
        recv.phase = Phase::Body;
        let head = ResponseBuf::checked(self.spares.take(), payload);
        self.events.push_back(Event::Response { stream: id, head, end });
        if end {
            self.end_of_stream(id);
            self.retire(id);
        }
        Ok(())
    }

    pub(super) fn on_trailers(&mut self, header: Header, payload: &[u8], now: Timestamp) -> Result<(), LinkError> {
        let id = StreamId::new(header.stream);
        let max = usize::from(self.options.max_head_bytes);
        let Some(stream) = self.streams.get(id) else { return self.stray_on(id, now) };
        if stream.recv.phase != Phase::Body {
            return Err(LinkError::State(id.number()));
        }
        if !stream.recv.fits(0, true) || decode_trailers(payload, max).is_err() {
            return self.give_up(id, now);
        }
        let trailers = TrailersBuf::checked(self.spares.take(), payload);
        self.end_of_stream(id);
        self.events.push_back(Event::Finished { stream: id, trailers: Some(trailers) });
        self.retire(id);
        Ok(())
    }
}
