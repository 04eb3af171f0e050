//! Opening streams.

use eastway_core::Timestamp;

use super::{Connection, Side};
use crate::error::OpenError;
use crate::frame::{END, HEADER_BYTES, Header, Kind, OPAQUE};
use crate::head::{HeadError, HeaderField, OpaqueHead, RequestHead, encode_opaque, encode_request};
use crate::stream::{Asked, Phase, StreamId, Tail};

/// The limit of a DRAIN that refuses nothing that is on its way, and hence no number of a stream.
pub(super) const NO_LIMIT: u32 = u32::MAX;

impl Connection {
    /// Opens a stream for a request. With `end` it has no body.
    ///
    /// # Errors
    /// Why no stream was opened; nothing was sent then.
    pub fn open_request(
        &mut self,
        head: RequestHead<'_, impl IntoIterator<Item: HeaderField>>,
        end: bool,
        now: Timestamp,
    ) -> Result<StreamId, OpenError> {
        if end && head.length.is_some_and(|length| length > 0) {
            return Err(HeadError::Length.into());
        }
        let left = if end { None } else { head.length };
        let asked = Asked::by(head.method);
        let max = usize::from(self.peer.max_head_bytes);
        let flags = if end { END } else { 0 };
        let id = self.open(flags, now, |out| encode_request(head, max, out))?;
        if let Some(stream) = self.streams.get_mut(id) {
            stream.asked = asked;
            stream.send.left = left;
        }
        Ok(id)
    }

    /// Opens a stream of opaque bytes. Bytes may be sent before the peer has accepted it.
    ///
    /// # Errors
    /// Why no stream was opened; nothing was sent then.
    pub fn open_opaque(
        &mut self,
        head: OpaqueHead<'_, impl IntoIterator<Item: HeaderField>>,
        now: Timestamp,
    ) -> Result<StreamId, OpenError> {
        let max = usize::from(self.peer.max_head_bytes);
        let id = self.open(OPAQUE, now, |out| encode_opaque(head, max, out))?;
        if let Some(stream) = self.streams.get_mut(id) {
            stream.asked = Asked::Tunnel;
        }
        Ok(id)
    }

    /// Whether a stream could be opened now.
    ///
    /// # Errors
    /// Why not. Unlike the calls that open, it asks for no [`Event::Openable`](crate::Event::Openable).
    pub fn may_open(&self) -> Result<(), OpenError> {
        if self.ended.is_some() {
            Err(OpenError::Closed)
        } else if self.side == Side::Accepting {
            Err(OpenError::Side)
        } else if self.is_draining() {
            Err(OpenError::Draining)
        } else if self.last + 1 == NO_LIMIT {
            Err(OpenError::Exhausted)
        } else if self.streams.len() >= self.peer.max_streams as usize {
            Err(OpenError::StreamLimit)
        } else if self.urgent.len() > self.options.head_buffer {
            Err(OpenError::Busy)
        } else {
            Ok(())
        }
    }

    fn open(
        &mut self,
        flags: u8,
        now: Timestamp,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), HeadError>,
    ) -> Result<StreamId, OpenError> {
        if let Err(error) = self.may_open() {
            self.wants_open |= matches!(error, OpenError::StreamLimit | OpenError::Busy);
            return Err(error);
        }
        let id = StreamId::new(self.last + 1);
        put_head(&mut self.urgent, Header::new(Kind::Open, flags, id.number(), 0), encode)?;
        self.last = id.number();
        let ended = flags & END != 0;
        let stream = self.streams.insert(id);
        stream.send.phase = if ended { Phase::Ended } else { Phase::Body };
        stream.send.tail = if ended { Tail::Written } else { Tail::Open };
        stream.send.credit = self.peer.stream_window;
        stream.recv.credit = self.options.stream_window;
        self.liveness.awaits(now);
        self.stats.opened += 1;
        Ok(id)
    }
}

/// Appends a frame with a head in it, or nothing.
pub(super) fn put_head(
    out: &mut Vec<u8>,
    header: Header,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<(), HeadError>,
) -> Result<(), HeadError> {
    let start = out.len();
    out.extend_from_slice(&header.bytes());
    let encoded = encode(out).and_then(|()| {
        // The size of a head is never less than its encoding, and no limit exceeds a frame.
        let length = out.len().saturating_sub(start + HEADER_BYTES);
        u16::try_from(length).map_err(|_| HeadError::TooLarge)
    });
    match encoded {
        Ok(length) => {
            if let Some(place) = out.get_mut(start..start + 2) {
                place.copy_from_slice(&length.to_be_bytes());
            }
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}
