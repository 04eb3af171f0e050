//! Where a message's body is in the bytes that come: by length, by chunks, or until the connection closes.
//!
//! A [`Decoder`] looks at bytes and says how many of them are framing, and how many behind those are data. It copies and keeps
//! nothing, so that data goes on from the buffer that it was read into.

use crate::framing::{Length, ResponseLength};
use crate::names::is_forbidden_trailer;

/// Bytes of white space and extensions that all chunk heads of one body may have. Nobody needs them, and they are free for
/// whoever sends them but not for whoever reads.
const MAX_EXTENSIONS: u32 = 16 * 1024;

/// Bytes that the trailers of one message may take.
pub(super) const MAX_TRAILERS: usize = 16 * 1024;

/// Trailer fields that one message may have.
pub(super) const MAX_TRAILER_FIELDS: usize = 64;

/// The state of reading one body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decoder {
    /// It has ended, or there is none.
    #[default]
    Ended,
    /// So many bytes are to come.
    Length(u64),
    /// Chunks are to come.
    Chunked(Chunks),
    /// All that comes belongs to it.
    UntilClose,
}

/// The state between the bytes of a chunked body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    at: At,
    /// What is left of the chunk, or its size as far as it was read.
    left: u64,
    extensions: u32,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// The first digit of a size.
    #[default]
    Size,
    /// More digits.
    Digits,
    /// White space behind the size.
    Space,
    /// An extension.
    Extension,
    /// The line feed that ends the size's line.
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    Trailers,
}

/// What was found in some bytes: `skip` of them are framing and done with; then comes what `step` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of framing at the front.
    pub skip: usize,
    /// What follows them.
    pub step: Step,
}

/// What follows the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet: more bytes are needed. Those that were not skipped must be shown again, with more behind them.
    More,
    /// So many bytes of data. [`Decoder::taken`] says how many of them were dealt with.
    Data(usize),
    /// So many bytes of trailers, the empty line at their end included. They are to be taken whole.
    Trailers(usize),
    /// The body has ended.
    End,
}

/// A body is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A chunk's size is no number, or too large for one.
    #[error("a chunk has no valid size")]
    Size,
    /// Too many chunk extensions, or a line feed among them.
    #[error("a chunk's extensions are too long or no extensions")]
    Extension,
    /// A chunk is not followed by the end of a line.
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// Trailers that are no fields, too many or too long, or that would change what the message is.
    #[error("the trailers are no trailers")]
    Trailers,
}

impl Decoder {
    /// For a request's body.
    pub fn of_request(length: Length) -> Self {
        match length {
            Length::Known(0) | Length::Unstated => Self::Ended,
            Length::Known(length) => Self::Length(length),
            Length::Chunked => Self::Chunked(Chunks::default()),
        }
    }

    /// For a response's body.
    pub fn of_response(length: ResponseLength) -> Self {
        match length {
            ResponseLength::Nothing | ResponseLength::Known(0) => Self::Ended,
            ResponseLength::Known(length) => Self::Length(length),
            ResponseLength::Chunked => Self::Chunked(Chunks::default()),
            ResponseLength::UntilClose => Self::UntilClose,
        }
    }

    /// Whether the body has ended.
    pub const fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Looks at the bytes that were not dealt with yet.
    ///
    /// # Errors
    /// [`Malformed`] if this is no body. Nothing more can be read then.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Decoded, Malformed> {
        match self {
            Self::Ended => Ok(Decoded { skip: 0, step: Step::End }),
            _ if bytes.is_empty() => Ok(Decoded { skip: 0, step: Step::More }),
            Self::UntilClose => Ok(Decoded { skip: 0, step: Step::Data(bytes.len()) }),
            Self::Length(left) => Ok(Decoded { skip: 0, step: Step::Data(within(*left, bytes.len())) }),
            Self::Chunked(chunks) => {
                let decoded = chunks.step(bytes)?;
                if decoded.step == Step::End {
                    *self = Self::Ended;
                }
                Ok(decoded)
            }
        }
    }

    /// How many bytes of data come next, without framing between them, as far as it was said.
    pub(super) const fn data_left(&self) -> u64 {
        match self {
            Self::Length(left) | Self::Chunked(Chunks { at: At::Data, left, .. }) => *left,
            Self::Ended | Self::Chunked(_) | Self::UntilClose => 0,
        }
    }

    /// So many bytes of the last [`Step`] were dealt with.
    pub const fn taken(&mut self, count: usize) {
        match self {
            Self::Length(left) => {
                *left = left.saturating_sub(count as u64);
                if *left == 0 {
                    *self = Self::Ended;
                }
            }
            Self::Chunked(Chunks { at: At::Trailers, .. }) => *self = Self::Ended,
            Self::Chunked(chunks) => {
                chunks.left = chunks.left.saturating_sub(count as u64);
                if chunks.left == 0 {
                    chunks.at = At::DataReturn;
                }
            }
            Self::Ended | Self::UntilClose => {}
        }
    }

    /// The connection has ended. Whether the body is complete by that.
    pub const fn is_complete_at_close(&mut self) -> bool {
        if matches!(self, Self::UntilClose) {
            *self = Self::Ended;
        }
        self.is_ended()
    }
}

fn within(left: u64, len: usize) -> usize {
    usize::try_from(left).map_or(len, |left| left.min(len))
}

impl Chunks {
    fn step(&mut self, bytes: &[u8]) -> Result<Decoded, Malformed> {
        for (skip, &byte) in bytes.iter().enumerate() {
            match self.at {
                At::Data => return Ok(Decoded { skip, step: Step::Data(within(self.left, bytes.len() - skip)) }),
                At::Trailers => {
                    return trailers(&bytes[skip..]).map(|(more, step)| Decoded { skip: skip + more, step });
                }
                _ => self.read(byte)?,
            }
        }
        Ok(Decoded { skip: bytes.len(), step: Step::More })
    }

    /// Reads one byte of framing.
    fn read(&mut self, byte: u8) -> Result<(), Malformed> {
        self.at = match (self.at, byte) {
            (At::Size, _) => {
                self.left = 0;
                self.digit(byte)?
            }
            (At::Digits | At::Space | At::Extension, b'\r') => At::SizeEnd,
            (At::Digits | At::Space, b';') => self.extended(At::Extension)?,
            (At::Digits | At::Space, b' ' | b'\t') => self.extended(At::Space)?,
            (At::Digits, _) => self.digit(byte)?,
            (At::Extension, b'\n') => return Err(Malformed::Extension),
            (At::Extension, _) => self.extended(At::Extension)?,
            (At::SizeEnd, b'\n') if self.left == 0 => At::Trailers,
            (At::SizeEnd, b'\n') => At::Data,
            (At::DataReturn, b'\r') => At::DataEnd,
            (At::DataEnd, b'\n') => At::Size,
            (At::DataReturn | At::DataEnd, _) => return Err(Malformed::ChunkEnd),
            _ => return Err(Malformed::Size),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<At, Malformed> {
        let digit = char::from(byte).to_digit(16).ok_or(Malformed::Size)?;
        if self.left == 0 && digit == 0 && self.at == At::Digits {
            // Zeros in front of a size cost nothing to send, either.
            self.extended(At::Digits)?;
        }
        self.left = self.left.checked_mul(16).ok_or(Malformed::Size)? + u64::from(digit);
        Ok(At::Digits)
    }

    fn extended(&mut self, at: At) -> Result<At, Malformed> {
        self.extensions += 1;
        if self.extensions < MAX_EXTENSIONS { Ok(at) } else { Err(Malformed::Extension) }
    }
}

/// What follows the last chunk: how much of it is framing, and what comes then.
fn trailers(bytes: &[u8]) -> Result<(usize, Step), Malformed> {
    match bytes {
        [b'\r', b'\n', ..] => return Ok((2, Step::End)),
        [b'\r'] => return Ok((0, Step::More)),
        _ => {}
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    match httparse::parse_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) if length <= MAX_TRAILERS => {
            // A line that ends in a bare line feed ends elsewhere to others.
            let bare = bytes[..length].split(|byte| *byte == b'\n').rev().skip(1).any(|line| !line.ends_with(b"\r"));
            if bare || fields.iter().any(|field| is_forbidden_trailer(field.name)) {
                return Err(Malformed::Trailers);
            }
            Ok((0, Step::Trailers(length)))
        }
        Ok(httparse::Status::Partial) if bytes.len() <= MAX_TRAILERS => Ok((0, Step::More)),
        _ => Err(Malformed::Trailers),
    }
}
