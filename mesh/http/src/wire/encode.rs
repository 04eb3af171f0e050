//! How a body is written: as it was promised in the head, and never longer.

use super::text::{hexadecimal, write_field};
use crate::framing::Length;
use crate::names::is_dropped_trailer;

/// The state of writing one body. Framing goes into the connection's output; the data itself need not be copied there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoder {
    /// It is complete, or there is none.
    #[default]
    Ended,
    /// There is none, although its source may have one: a response to HEAD.
    Discard,
    /// So many bytes are owed.
    Length(u64),
    /// Chunks; of the chunk that was begun so much is owed.
    Chunked(u64),
    /// The end of the connection will end it.
    UntilClose,
}

/// More data than the head promised, or an end before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body has another length than its head says")]
pub struct WrongLength;

impl Encoder {
    /// For a request's body.
    pub fn of_request(length: Length) -> Self {
        match length {
            Length::Known(0) | Length::Unstated => Self::Ended,
            Length::Known(length) => Self::Length(length),
            Length::Chunked => Self::Chunked(0),
        }
    }

    /// Whether the body is complete.
    pub const fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Puts the framing that comes before `len` bytes of data into `out`, and says how many of them may be written now.
    /// Whoever could not write them calls this again with the same data.
    ///
    /// # Errors
    /// [`WrongLength`] if the head promised less.
    pub fn begin(&mut self, out: &mut Vec<u8>, len: usize) -> Result<usize, WrongLength> {
        match self {
            Self::Discard | Self::UntilClose => Ok(len),
            Self::Ended if len == 0 => Ok(0),
            Self::Ended => Err(WrongLength),
            Self::Length(left) if *left >= len as u64 => Ok(len),
            Self::Length(_) => Err(WrongLength),
            Self::Chunked(left) => {
                if *left == 0 && len > 0 {
                    *left = len as u64;
                    hexadecimal(out, len);
                    out.extend_from_slice(b"\r\n");
                }
                Ok(usize::try_from(*left).map_or(len, |left| left.min(len)))
            }
        }
    }

    /// So many bytes of data were written; what follows them goes into `out`.
    pub fn wrote(&mut self, out: &mut Vec<u8>, count: usize) {
        match self {
            Self::Length(left) => *left = left.saturating_sub(count as u64),
            Self::Chunked(left) if count > 0 => {
                *left = left.saturating_sub(count as u64);
                if *left == 0 {
                    out.extend_from_slice(b"\r\n");
                }
            }
            Self::Chunked(_) | Self::Ended | Self::Discard | Self::UntilClose => {}
        }
    }

    /// Ends the body. Trailers go only where there is room for them: behind chunks.
    ///
    /// # Errors
    /// [`WrongLength`] if less was written than was promised.
    pub fn end<'a>(
        &mut self,
        out: &mut Vec<u8>,
        trailers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), WrongLength> {
        match self {
            // The end of the connection is to follow, and whoever closes it must know that nothing is missing.
            Self::Length(0) | Self::Discard | Self::Ended | Self::UntilClose => {}
            Self::Length(_) => return Err(WrongLength),
            Self::Chunked(0) => {
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.filter(|(name, _)| !is_dropped_trailer(name)) {
                    write_field(out, name, value);
                }
                out.extend_from_slice(b"\r\n");
            }
            Self::Chunked(_) => return Err(WrongLength),
        }
        *self = Self::Ended;
        Ok(())
    }
}
