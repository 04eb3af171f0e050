//! The header of a frame, and the frames of fixed form.
//!
//! ```text
//!  0        2      3       4            8
//!  +--------+------+-------+------------+---------
//!  | length | kind | flags | stream id  | payload
//!  +--------+------+-------+------------+---------
//! ```
//!
//! Numbers are big-endian. A frame is at most 65,535 bytes of payload, and a head is always one frame: there is nothing that
//! continues a frame, and hence no state between two frames of a head that a peer could keep open.

use crate::error::Malformed;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 8;

/// Kinds from here on may be skipped by who does not know them; unknown ones below are an error.
pub(crate) const FIRST_IGNORABLE: u8 = 0x80;

/// The payload is the last of its direction.
pub(crate) const END: u8 = 0x01;
/// Of an OPEN: the stream carries opaque bytes instead of a request.
pub(crate) const OPAQUE: u8 = 0x02;
/// Of a RESET: the sender's application has seen nothing of the stream.
pub(crate) const UNPROCESSED: u8 = 0x01;

/// The longest explanation in a GOODBYE, in bytes.
pub(crate) const MAX_TEXT: usize = 256;

/// Fixed part of a GOODBYE: a code and a stream id.
pub(crate) const GOODBYE_BYTES: usize = 8;

/// The longest HELLO, in bytes: many times what today's has, so that later versions can say more.
pub(crate) const MAX_HELLO: usize = 1024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 0x01,
    Open = 0x02,
    Interim = 0x03,
    Response = 0x04,
    Data = 0x05,
    Trailers = 0x06,
    Reset = 0x07,
    Window = 0x08,
    Ping = 0x09,
    Pong = 0x0a,
    Drain = 0x0b,
    Goodbye = 0x0c,
    /// Of a later version, and meaningless here by its own statement.
    Ignorable = FIRST_IGNORABLE,
}

impl Kind {
    const fn of(byte: u8) -> Result<Self, Malformed> {
        Ok(match byte {
            0x01 => Self::Hello,
            0x02 => Self::Open,
            0x03 => Self::Interim,
            0x04 => Self::Response,
            0x05 => Self::Data,
            0x06 => Self::Trailers,
            0x07 => Self::Reset,
            0x08 => Self::Window,
            0x09 => Self::Ping,
            0x0a => Self::Pong,
            0x0b => Self::Drain,
            0x0c => Self::Goodbye,
            FIRST_IGNORABLE.. => Self::Ignorable,
            _ => return Err(Malformed::Kind(byte)),
        })
    }

    const fn flags(self) -> u8 {
        match self {
            Self::Open => END | OPAQUE,
            Self::Response | Self::Data => END,
            Self::Reset => UNPROCESSED,
            Self::Ignorable => u8::MAX,
            _ => 0,
        }
    }

    /// Whether the stream id is that of a stream (`Some(true)`), zero (`Some(false)`), or either.
    const fn on_stream(self) -> Option<bool> {
        match self {
            Self::Open | Self::Interim | Self::Response | Self::Data | Self::Trailers | Self::Reset => Some(true),
            Self::Hello | Self::Ping | Self::Pong | Self::Drain | Self::Goodbye => Some(false),
            Self::Window | Self::Ignorable => None,
        }
    }

    const fn fits(self, length: usize, flags: u8, max_head: usize) -> bool {
        match self {
            Self::Hello => length >= 2 && length <= MAX_HELLO,
            Self::Open | Self::Interim | Self::Response | Self::Trailers => length <= max_head,
            // Data without bytes says something only if it ends its direction.
            Self::Data => length > 0 || flags & END != 0,
            Self::Reset | Self::Window | Self::Drain => length == 4,
            Self::Ping | Self::Pong => length == 8,
            Self::Goodbye => length >= GOODBYE_BYTES && length <= GOODBYE_BYTES + MAX_TEXT,
            Self::Ignorable => true,
        }
    }
}

/// The first bytes of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of payload.
    pub(crate) length: u16,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    /// The stream, or zero for the connection.
    pub(crate) stream: u32,
}

impl Header {
    pub(crate) const fn new(kind: Kind, flags: u8, stream: u32, length: u16) -> Self {
        Self { length, kind, flags, stream }
    }

    /// Reads a header, and refuses it if no frame of its kind looks like this. That happens before any payload is kept, so
    /// that a wrong length costs no memory.
    pub(crate) fn read(bytes: [u8; HEADER_BYTES], max_head: usize) -> Result<Self, Malformed> {
        let [l0, l1, kind, flags, s0, s1, s2, s3] = bytes;
        let header = Self {
            length: u16::from_be_bytes([l0, l1]),
            kind: Kind::of(kind)?,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
        };
        if flags & !header.kind.flags() != 0 {
            return Err(Malformed::Flags(flags));
        }
        if header.kind.on_stream().is_some_and(|on_stream| on_stream != (header.stream != 0)) {
            return Err(Malformed::StreamId(header.stream));
        }
        if !header.kind.fits(usize::from(header.length), flags, max_head) {
            return Err(Malformed::Length(header.length));
        }
        Ok(header)
    }

    pub(crate) fn bytes(self) -> [u8; HEADER_BYTES] {
        let [l0, l1] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, self.kind as u8, self.flags, s0, s1, s2, s3]
    }

    pub(crate) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame of four bytes of payload.
pub(crate) fn put_number(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, number: u32) {
    out.extend_from_slice(&Header::new(kind, flags, stream, 4).bytes());
    out.extend_from_slice(&number.to_be_bytes());
}

/// Appends a PING or a PONG.
pub(crate) fn put_ping(out: &mut Vec<u8>, kind: Kind, payload: [u8; 8]) {
    out.extend_from_slice(&Header::new(kind, 0, 0, 8).bytes());
    out.extend_from_slice(&payload);
}

/// Appends a GOODBYE. A longer text is cut, between two characters.
pub(crate) fn put_goodbye(out: &mut Vec<u8>, code: u32, last: u32, text: &str) {
    let text = text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default();
    let length = (GOODBYE_BYTES + text.len()) as u16;
    out.extend_from_slice(&Header::new(Kind::Goodbye, 0, 0, length).bytes());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_HEAD: usize = 1000;

    fn read(bytes: [u8; 8]) -> Result<Header, Malformed> {
        Header::read(bytes, MAX_HEAD)
    }

    #[test]
    fn headers_read_back() {
        for header in [
            Header::new(Kind::Hello, 0, 0, 2),
            Header::new(Kind::Open, END | OPAQUE, 1, 1000),
            Header::new(Kind::Data, END, u32::MAX, 0),
            Header::new(Kind::Data, 0, 7, u16::MAX),
            Header::new(Kind::Window, 0, 0, 4),
            Header::new(Kind::Window, 0, 9, 4),
            Header::new(Kind::Goodbye, 0, 0, 264),
        ] {
            assert_eq!(read(header.bytes()), Ok(header));
        }
    }

    #[test]
    fn a_header_that_fits_no_frame_is_refused_before_its_payload() {
        for (bytes, expected) in [
            ([0, 0, 0, 0, 0, 0, 0, 1], Malformed::Kind(0)),
            ([0, 0, 0x7f, 0, 0, 0, 0, 1], Malformed::Kind(0x7f)),
            ([0, 1, 5, 2, 0, 0, 0, 1], Malformed::Flags(2)),
            ([0, 8, 9, 1, 0, 0, 0, 0], Malformed::Flags(1)),
            ([0, 1, 5, 0, 0, 0, 0, 0], Malformed::StreamId(0)),
            ([0, 8, 9, 0, 0, 0, 0, 1], Malformed::StreamId(1)),
            ([0, 0, 5, 0, 0, 0, 0, 1], Malformed::Length(0)),
            ([0, 7, 9, 0, 0, 0, 0, 0], Malformed::Length(7)),
            ([3, 0xe9, 2, 0, 0, 0, 0, 1], Malformed::Length(1001)),
            ([4, 1, 1, 0, 0, 0, 0, 0], Malformed::Length(1025)),
            ([1, 9, 12, 0, 0, 0, 0, 0], Malformed::Length(265)),
        ] {
            assert_eq!(read(bytes), Err(expected), "{bytes:?}");
        }
    }

    #[test]
    fn kinds_of_later_versions_say_whether_they_may_be_skipped() {
        let header = read([0xff, 0xff, 0x90, 0xff, 1, 2, 3, 4]).expect("it may be skipped");
        assert_eq!((header.kind, header.length), (Kind::Ignorable, u16::MAX));
        assert_eq!(read([0, 0, 0x10, 0, 0, 0, 0, 0]), Err(Malformed::Kind(0x10)));
    }

    #[test]
    fn a_long_goodbye_is_cut_between_characters() {
        let mut out = Vec::new();
        put_goodbye(&mut out, 7, 3, &"ü".repeat(200));
        let header = read(*out.first_chunk().expect("a header")).expect("a goodbye");
        assert_eq!(usize::from(header.length), out.len() - HEADER_BYTES);
        assert!(std::str::from_utf8(&out[HEADER_BYTES + GOODBYE_BYTES..]).is_ok());
    }
}
