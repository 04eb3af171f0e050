//! Frames that are handled as a whole, and what they cost.

use eastway_core::{Reason, Timestamp};

use super::{Connection, Side};
use crate::error::{Flood, LinkError, Malformed};
use crate::event::Event;
use crate::frame::{Header, Kind, UNPROCESSED};
use crate::hello::{Hello, MAX_WINDOW};
use crate::stream::{Asked, Phase, StreamId, Tail};

impl Connection {
    pub(super) fn frame(&mut self, header: Header, payload: &[u8], now: Timestamp) -> Result<(), LinkError> {
        match header.kind {
            Kind::Hello => self.on_hello(payload),
            Kind::Open => self.on_open(header, payload, now),
            Kind::Interim | Kind::Response => self.on_response(header, payload, now),
            Kind::Trailers => self.on_trailers(header, payload, now),
            Kind::Reset => self.on_reset(header, number(header, payload)?, now),
            Kind::Window => self.on_window(header, number(header, payload)?, now),
            Kind::Ping => self.on_ping(payload, now),
            Kind::Pong => self.on_pong(payload, now),
            Kind::Drain => {
                if self.drain.theirs.is_some() {
                    self.stray(now)?;
                }
                self.on_drain(number(header, payload)?)
            }
            Kind::Goodbye => self.on_goodbye(payload),
            // Handled before their payloads.
            Kind::Data | Kind::Ignorable => Ok(()),
        }
    }

    fn on_hello(&mut self, payload: &[u8]) -> Result<(), LinkError> {
        if self.greeted {
            return Err(LinkError::Hello);
        }
        let hello = Hello::read(payload)?;
        self.greeted = true;
        self.liveness.greeted();
        // Streams that were opened before have the base so far.
        let (base, more) = (self.peer, hello.stream_window - self.peer.stream_window);
        self.send.left += hello.connection_window - base.connection_window;
        self.peer = hello;
        for id in self.streams.ids() {
            self.add_credit(id, more);
        }
        if self.wants_open && self.may_open().is_ok() {
            self.wants_open = false;
            self.events.push_back(Event::Openable);
        }
        Ok(())
    }

    fn on_reset(&mut self, header: Header, number: u32, now: Timestamp) -> Result<(), LinkError> {
        let id = StreamId::new(header.stream);
        if self.side == Side::Accepting && self.streams.get(id).is_some() {
            self.came_to_nothing(now)?;
        }
        let Some(stream) = self.streams.get_mut(id) else { return self.stray_on(id, now) };
        let known = Reason::from_number(number);
        let keeps = self.side == Side::Connecting || matches!(stream.asked, Asked::Tunnel);
        if keeps && stream.recv.phase == Phase::Ended {
            // The response is complete; only the rest of the request is not wanted. Of opaque bytes the same holds both ways.
            self.stop_sending(id, known.unwrap_or(Reason::UpstreamReset));
            return Ok(());
        }
        self.stats.failed += 1;
        // Who has answered has processed, whatever it says.
        let unanswered = stream.recv.phase == Phase::Head && stream.recv.interim == 0;
        let refused = header.has(UNPROCESSED) && self.side == Side::Connecting && unanswered;
        // Of an answer that breaks off, what came is the application's.
        if self.side == Side::Connecting && !stream.recv.data.is_empty() {
            let data = stream.recv.data.take();
            stream.recv.taken += data.len();
            self.recv.unread -= data.len();
            self.events.push_back(Event::Rest { stream: id, data });
        }
        self.close_stream(id);
        self.events.push_back(if refused {
            Event::Refused { stream: id, reason: known.unwrap_or(Reason::NoReadyEndpoint) }
        } else {
            Event::Reset { stream: id, reason: known.unwrap_or(Reason::UpstreamReset) }
        });
        Ok(())
    }

    /// The peer takes no more of what this side sends. What it sent itself is complete, and stays until it is read.
    pub(super) fn stop_sending(&mut self, id: StreamId, reason: Reason) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let send = &mut stream.send;
        if !matches!(send.tail, Tail::Written) {
            self.send.queued -= std::mem::take(&mut send.queued);
            send.queue.clear();
            send.phase = Phase::Ended;
            send.tail = Tail::Written;
            if std::mem::take(&mut send.starved) {
                self.liveness.got();
            }
            self.stats.failed += 1;
            self.events.push_back(Event::Stopped { stream: id, reason });
        }
        self.retire(id);
    }

    fn on_window(&mut self, header: Header, count: u32, now: Timestamp) -> Result<(), LinkError> {
        if count == 0 {
            return Err(Malformed::NoCredit.into());
        }
        if !self.budgets.windows.take(now) {
            return Err(LinkError::Flood(Flood::Windows));
        }
        if header.stream == 0 {
            self.send.left = add(self.send.left, count)?;
            if let Some(since) = self.send.blocked_since.take() {
                self.stats.blocked += now - since;
                self.liveness.got();
            }
            return Ok(());
        }
        let id = StreamId::new(header.stream);
        let Some(stream) = self.streams.get(id) else { return self.stray_on(id, now) };
        // What is queued has its credit already, and counts like what is left.
        add(add(stream.send.credit, stream.send.queued as u32)?, count)?;
        self.add_credit(id, count);
        Ok(())
    }

    fn add_credit(&mut self, id: StreamId, count: u32) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let send = &mut stream.send;
        send.credit = send.credit.saturating_add(count);
        if count > 0 && std::mem::take(&mut send.starved) {
            self.liveness.got();
            if std::mem::take(&mut send.wants_room) {
                self.events.push_back(Event::Writable(id));
            }
        }
    }

    fn on_ping(&mut self, payload: &[u8], now: Timestamp) -> Result<(), LinkError> {
        let payload = *payload.first_chunk().ok_or(Malformed::Length(0))?;
        // Who has not got an answer does not ask again.
        if self.pong.is_some() || !self.budgets.pings.take(now) {
            return Err(LinkError::Flood(Flood::Pings));
        }
        self.pong = Some(payload);
        Ok(())
    }

    fn on_pong(&mut self, payload: &[u8], now: Timestamp) -> Result<(), LinkError> {
        let payload = *payload.first_chunk().ok_or(Malformed::Length(0))?;
        if self.liveness.pong(payload, now) { Ok(()) } else { Err(Malformed::Pong.into()) }
    }

    /// A stream of the peer came to nothing.
    pub(super) fn came_to_nothing(&mut self, now: Timestamp) -> Result<(), LinkError> {
        if self.budgets.resets.take(now) { Ok(()) } else { Err(LinkError::Flood(Flood::Resets)) }
    }

    /// A frame has no effect.
    pub(super) fn stray(&mut self, now: Timestamp) -> Result<(), LinkError> {
        if self.budgets.strays.take(now) { Ok(()) } else { Err(LinkError::Flood(Flood::Strays)) }
    }

    /// A frame came for a stream that is closed here; one that never was open is a violation.
    pub(super) fn stray_on(&mut self, id: StreamId, now: Timestamp) -> Result<(), LinkError> {
        if id.number() > self.last { Err(LinkError::State(id.number())) } else { self.stray(now) }
    }
}

/// The payload of a frame of four bytes.
fn number(header: Header, payload: &[u8]) -> Result<u32, LinkError> {
    let bytes = payload.first_chunk().ok_or(Malformed::Length(header.length))?;
    Ok(u32::from_be_bytes(*bytes))
}

/// More credit, up to the greatest that there can be.
fn add(credit: u32, count: u32) -> Result<u32, LinkError> {
    credit.checked_add(count).filter(|sum| *sum <= MAX_WINDOW).ok_or(LinkError::CreditOverflow)
}
