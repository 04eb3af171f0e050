//! Messages on a byte stream: an unsigned 32-bit length, big-endian, then that many bytes.
//!
//! Reads exactly one message and not a byte more: what follows belongs to the application.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::malformed::Malformed;

/// The largest message, in bytes, without its prefix.
pub const MAX_MESSAGE: usize = 65_536;

/// Why no message could be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed or ended before the message was complete.
    #[error("the stream ended within the message")]
    Io(#[source] io::Error),
    /// The prefix announces more than is allowed.
    #[error("a message of {0} bytes is announced, and {MAX_MESSAGE} are allowed")]
    TooLarge(u32),
    /// The message breaks the contract.
    #[error("the message breaks the contract")]
    Message(#[source] Malformed),
}

/// Writes a message with its prefix; `None` if it is too large.
pub(super) fn encode(message: &impl Message) -> Option<Bytes> {
    let len = message.encoded_len();
    let prefix = u32::try_from(len).ok().filter(|_| len <= MAX_MESSAGE)?;
    let mut buffer = BytesMut::with_capacity(PREFIX + len);
    buffer.put_u32(prefix);
    message.encode_raw(&mut buffer);
    Some(buffer.freeze())
}

/// Reads one message, without its prefix.
pub(super) async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Bytes, FrameError> {
    let len = stream.read_u32().await.map_err(FrameError::Io)?;
    if len as usize > MAX_MESSAGE {
        return Err(FrameError::TooLarge(len));
    }
    // Memory follows what has arrived, not what was announced.
    let mut message = Vec::new();
    stream.take(u64::from(len)).read_to_end(&mut message).await.map_err(FrameError::Io)?;
    if message.len() < len as usize {
        return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(message.into())
}

/// Bytes of the prefix.
const PREFIX: usize = 4;

#[cfg(test)]
mod tests;
