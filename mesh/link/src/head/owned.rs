//! Heads that were received, as events carry them: the checked bytes of their frames.

use super::{Fields, HttpVersion, OpaqueHead, RequestHead, ResponseHead};

macro_rules! owned {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Eq)]
            pub struct $name(pub(super) Vec<u8>);

            impl $name {
                /// Only for bytes that were checked.
                pub(crate) fn checked(mut buffer: Vec<u8>, bytes: &[u8]) -> Self {
                    buffer.clear();
                    buffer.extend_from_slice(bytes);
                    Self(buffer)
                }
            }

            impl From<$name> for Vec<u8> {
                /// The buffer, to be given back by [`Connection::recycle`](crate::Connection::recycle).
                fn from(head: $name) -> Self {
                    head.0
                }
            }

            impl std::fmt::Debug for $name {
                /// Only the number of bytes: heads hold credentials.
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    write!(f, "{}({} bytes)", stringify!($name), self.0.len())
                }
            }
        )*
    };
}

owned! {
    /// The head of a request that was received.
    RequestBuf;
    /// What opened an opaque stream.
    OpaqueBuf;
    /// The head of a response that was received.
    ResponseBuf;
    /// Trailers that were received.
    TrailersBuf;
}

impl RequestBuf {
    /// The head. Its parts borrow from the buffer.
    pub fn view(&self) -> RequestHead<'_> {
        RequestHead::read(&self.0).unwrap_or(RequestHead {
            // Never seen: the bytes were checked when they arrived.
            version: HttpVersion::Http11,
            method: "",
            authority: "",
            target: "",
            length: None,
            upgrade: None,
            fields: Fields::new(&[]),
        })
    }
}

impl OpaqueBuf {
    /// The head. Its parts borrow from the buffer.
    pub fn view(&self) -> OpaqueHead<'_> {
        OpaqueHead::read(&self.0).unwrap_or(OpaqueHead { authority: "", fields: Fields::new(&[]) })
    }
}

impl ResponseBuf {
    /// The head. Its parts borrow from the buffer.
    pub fn view(&self) -> ResponseHead<'_> {
        let never = ResponseHead { status: 0, length: None, upgrade: None, fields: Fields::new(&[]) };
        ResponseHead::read(&self.0).unwrap_or(never)
    }
}

impl TrailersBuf {
    /// The fields. They borrow from the buffer.
    pub fn view(&self) -> Fields<'_> {
        Fields::new(&self.0)
    }
}

/// Buffers of heads that were given back, to be used again.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    buffers: Vec<Vec<u8>>,
}

impl Spares {
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    /// Keeps a buffer, unless there are many, or it is a large one that would be kept for a rare head.
    pub(crate) fn give(&mut self, buffer: Vec<u8>) {
        if self.buffers.len() < MOST && buffer.capacity() <= LARGEST {
            self.buffers.push(buffer);
        }
    }
}

/// So many buffers are kept.
const MOST: usize = 64;

/// Larger buffers are not kept. In bytes.
const LARGEST: usize = 4096;
