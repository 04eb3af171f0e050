//! Heads: what is said of a request or a response before its body, and trailers after it.
//!
//! A head is encoded by itself. There is a fixed table of common names and fields (`docs/link.md` lists it), and everything else stands there
//! as it is: no head changes how another one is read, so that none has to wait for another, and there is no table that a peer
//! could fill or spy upon. Decoding copies nothing; the views borrow from the frame.
//!
//! A head that passes [`RequestHead::decode`] or [`ResponseHead::decode`] has one meaning, whoever reads it: lengths, hosts and
//! what concerns one connection only are no fields here, names are lower-case tokens, and no value holds a line feed. What is
//! written from it as HTTP/1 or HTTP/2 cannot be read as two messages. Encoding refuses what decoding would.
//!
//! Limits count the *size* of a head: the bytes of its method, target, authority, upgrade, names and values, 16 more for each
//! field and 32 for the head. It is never less than the encoding, and entries of the tables count in full length, so that a
//! short frame cannot become a large head.

mod check;
mod decode;
mod encode;
mod owned;
pub(crate) mod table;

pub use decode::Fields;
pub use eastway_core::head::HttpVersion;
pub use owned::{OpaqueBuf, RequestBuf, ResponseBuf, TrailersBuf};

pub(crate) use decode::{decode_interim, decode_trailers};
pub(crate) use encode::{encode_opaque, encode_request, encode_response, encode_trailers};
pub(crate) use owned::Spares;

/// A header field that is to be sent.
pub trait HeaderField {
    /// Its name, in any case.
    fn name(&self) -> &[u8];

    /// Its value.
    fn value(&self) -> &[u8];
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> HeaderField for (N, V) {
    fn name(&self) -> &[u8] {
        self.0.as_ref()
    }

    fn value(&self) -> &[u8] {
        self.1.as_ref()
    }
}

/// The head of a request. `F` are its fields: pairs of name and value, in order. Names may be in any case when they are encoded
/// and are lower-case when they were decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'a, F = Fields<'a>> {
    /// The version that the caller speaks.
    pub version: HttpVersion,
    /// The method, as written.
    pub method: &'a str,
    /// The host that is called, with the port if one was written. It stands in no field.
    pub authority: &'a str,
    /// Path and query, or `*` of OPTIONS. Empty for a CONNECT without `upgrade`.
    pub target: &'a str,
    /// The length of the body in bytes, if it is known. It stands in no field.
    pub length: Option<u64>,
    /// The protocol that the caller wants to change to (`Upgrade` of HTTP/1.1, `:protocol` of HTTP/2's CONNECT).
    pub upgrade: Option<&'a str>,
    /// Everything else.
    pub fields: F,
}

/// The head of a response, final or interim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead<'a, F = Fields<'a>> {
    /// From 100 to 999. Those below 200 are interim, except 101.
    pub status: u16,
    /// The length of the body in bytes as the response states it; after HEAD and with 304 that of a body that does not follow.
    pub length: Option<u64>,
    /// With 101: the protocol that the stream changes to.
    pub upgrade: Option<&'a str>,
    /// Everything else.
    pub fields: F,
}

impl<F> ResponseHead<'_, F> {
    /// Whether another head of the same response follows.
    pub const fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// What opens a stream of opaque bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpaqueHead<'a, F = Fields<'a>> {
    /// Whom the stream is for: host and port.
    pub authority: &'a str,
    /// What else is said of it, in the form of HTTP's fields.
    pub fields: F,
}

/// What is wrong with a head, whether it is to be sent or was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// It ends too early, has a number that is not in its shortest form, or a code that no table has.
    #[error("its encoding cannot be read")]
    Encoding,
    /// It exceeds the receiver's limit of heads.
    #[error("it is larger than the receiver takes")]
    TooLarge,
    /// The method is no token.
    #[error("its method is no token")]
    Method,
    /// The target has characters that no target has, or does not go with the method.
    #[error("its target does not fit its method, or has other characters than a target")]
    Target,
    /// The authority is empty, or has characters that no authority has.
    #[error("its authority is empty, or has other characters than an authority")]
    Authority,
    /// The status is none, or not one that this kind of head can have.
    #[error("its status is none, or does not belong here")]
    Status,
    /// A length where there is no body that it could state.
    #[error("it cannot state a length")]
    Length,
    /// The name of a protocol that is no token, or where nothing can be upgraded.
    #[error("it cannot upgrade, or its protocol has no proper name")]
    Upgrade,
    /// The name of a field is no lower-case token.
    #[error("the name of a field is no token")]
    FieldName,
    /// The value of a field has a control character, or white space at its ends.
    #[error("the value of a field has a control character, or white space at its ends")]
    FieldValue,
    /// A field that would frame or route the message, or that concerns one connection only.
    #[error("a field may not be passed on")]
    FieldForbidden,
}

#[cfg(test)]
mod tests;
