//! Heads of HTTP messages as decisions see them: borrowed, and independent of who parsed them.
//!
//! Whoever reads messages (hyper's adapter, the forwarder, the link) shows a [`RequestHead`] or a [`ResponseHead`], and makes
//! the [`Edits`] that come back. Nothing here parses, and no HTTP library is named.

use std::borrow::Cow;
use std::fmt;

/// The version of HTTP that a message came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpVersion {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl HttpVersion {
    /// `1.0`, `1.1` or `2`, as telemetry names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
        }
    }
}

/// Header fields, or trailers, wherever they are kept. Names are given in lower case, and found in any.
pub trait Fields: fmt::Debug {
    /// The first field of this name.
    fn first(&self, name: &str) -> Option<&[u8]>;

    /// How many fields have this name.
    fn count(&self, name: &str) -> usize;

    /// The first field of this name, if it is ASCII text.
    fn text(&self, name: &str) -> Option<&str> {
        let value = self.first(name).filter(|value| value.is_ascii())?;
        std::str::from_utf8(value).ok()
    }
}

/// No fields.
impl Fields for () {
    fn first(&self, _: &str) -> Option<&[u8]> {
        None
    }

    fn count(&self, _: &str) -> usize {
        0
    }
}

/// Fields in the order of the wire.
impl Fields for &[(&str, &[u8])] {
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    fn count(&self, name: &str) -> usize {
        self.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).count()
    }
}

/// The head of a request whose framing was found valid: one authority, one target.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method, as written.
    pub method: &'a str,
    /// Path and query; empty for CONNECT.
    pub target: &'a str,
    /// The host, with the port if one was written.
    pub authority: &'a str,
    /// The version that the caller speaks.
    pub version: HttpVersion,
    /// The request asks for another protocol (`Upgrade`).
    pub upgrade: bool,
    /// The header fields.
    pub fields: &'a dyn Fields,
}

impl<'a> RequestHead<'a> {
    /// The path without the query.
    pub fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// Whether the caller wants a byte stream.
    pub fn is_connect(&self) -> bool {
        self.method == "CONNECT"
    }

    /// Whether the caller speaks gRPC.
    pub fn is_grpc(&self) -> bool {
        is_grpc(self.fields.first("content-type"))
    }

    /// Whether repeating the request has the effect of making it once (RFC 9110, section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        is_idempotent(self.method)
    }
}

/// The head of a response whose framing was found valid.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// The status.
    pub status: u16,
    /// The header fields.
    pub fields: &'a dyn Fields,
}

impl ResponseHead<'_> {
    /// The `grpc-status` of an answer that has nothing but a head.
    pub fn grpc_status(&self) -> Option<u8> {
        grpc_status(self.fields)
    }
}

/// The `grpc-status` among an answer's header fields or trailers.
pub fn grpc_status(fields: &dyn Fields) -> Option<u8> {
    fields.text("grpc-status")?.parse().ok()
}

/// Whether making a request by this method again has the effect of making it once (RFC 9110, section 9.2.2).
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE")
}

/// Whether this content type is gRPC's.
pub fn is_grpc(content_type: Option<&[u8]>) -> bool {
    let Some(rest) = content_type.and_then(|value| value.strip_prefix(b"application/grpc")) else { return false };
    matches!(rest.first(), None | Some(b'+' | b';'))
}

/// What the names of fields begin with that only nodes of the mesh may set.
pub const MESH_PREFIX: &str = "eastway-";

/// Whether some reader of `name` (in any case) could take it for a name that begins with `prefix`: CGI, WSGI and PHP make
/// one variable of all spellings that differ only in what is neither a letter nor a digit.
pub fn folds_onto(name: impl AsRef<[u8]>, prefix: &str) -> bool {
    let folded =
        |(a, b): (&u8, u8)| a.eq_ignore_ascii_case(&b) || !(a.is_ascii_alphanumeric() || b.is_ascii_alphanumeric());
    let name = name.as_ref();
    name.len() >= prefix.len() && name.iter().zip(prefix.bytes()).all(folded)
}

/// A name or a value that an edit sets.
pub type Text = Cow<'static, str>;

/// One change of a head. Names are lower-case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// All fields of the name go.
    Drop(Text),
    /// All fields go whose name starts so, or folds onto one that does ([`folds_onto`]).
    DropPrefix(&'static str),
    /// Exactly one field of the name, with this value.
    Set(Text, Text),
    /// One field more of the name.
    Append(Text, Text),
}

/// The changes that decisions want, in order: later ones win.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits(Vec<Edit>);

/// Changes for which there is room at once.
const USUAL: usize = 12;

impl Edits {
    /// No change.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Removes all fields named `name`.
    pub fn drop(&mut self, name: impl Into<Text>) -> &mut Self {
        self.push(Edit::Drop(name.into()))
    }

    /// Removes all fields whose name starts with `prefix` (lower-case), or is folded onto such a name by some servers
    /// ([`folds_onto`]): what only the mesh may say.
    pub fn drop_prefix(&mut self, prefix: &'static str) -> &mut Self {
        self.push(Edit::DropPrefix(prefix))
    }

    /// Replaces all fields named `name` by one.
    pub fn set(&mut self, name: impl Into<Text>, value: impl Into<Text>) -> &mut Self {
        self.push(Edit::Set(name.into(), value.into()))
    }

    /// Adds a field after those of the same name.
    pub fn append(&mut self, name: impl Into<Text>, value: impl Into<Text>) -> &mut Self {
        self.push(Edit::Append(name.into(), value.into()))
    }

    /// More changes.
    pub fn extend(&mut self, edits: &[Edit]) {
        self.0.extend_from_slice(edits);
    }

    fn push(&mut self, edit: Edit) -> &mut Self {
        if self.0.capacity() == 0 {
            self.0.reserve(USUAL);
        }
        self.0.push(edit);
        self
    }

    /// The changes, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Edit> {
        self.0.iter()
    }

    /// Whether nothing is to be changed.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for Edits {
    type Item = Edit;
    type IntoIter = std::vec::IntoIter<Edit>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_a_media_type_and_not_a_prefix() {
        assert!(is_grpc(Some(b"application/grpc")));
        assert!(is_grpc(Some(b"application/grpc+proto")));
        assert!(!is_grpc(Some(b"application/grpc-web")));
        assert!(!is_grpc(None));
    }

    #[test]
    fn every_spelling_that_servers_fold_onto_the_prefix_is_found_and_no_other() {
        for name in ["eastway-source", "eastway_source", "eastway.source", "eastway!x", "eastway-", "Eastway-Source"] {
            assert!(folds_onto(name, MESH_PREFIX), "{name}");
        }
        for name in ["eastway", "eastways-source", "eastwaysource", "x-eastway-source", "east-way-source"] {
            assert!(!folds_onto(name, MESH_PREFIX), "{name}");
        }
    }

    #[test]
    fn fields_are_found_in_any_case_and_text_is_ascii() {
        let fields: &[(&str, &[u8])] =
            &[("grpc-status", b"14"), ("X-A", b"1"), ("x-a", b"2"), ("x-b", "\u{e9}".as_bytes())];
        assert_eq!((Fields::first(&fields, "x-a"), fields.count("x-a")), (Some(&b"1"[..]), 2));
        assert_eq!((fields.text("x-a"), fields.text("x-b"), fields.text("x-c")), (Some("1"), None, None));
        assert_eq!((grpc_status(&fields), grpc_status(&())), (Some(14), None));
    }

    #[test]
    fn a_path_has_no_query() {
        let head = |target| RequestHead {
            method: "GET",
            target,
            authority: "payments.shop.mesh.internal",
            version: HttpVersion::Http11,
            upgrade: false,
            fields: &(),
        };
        assert_eq!((head("/a?b=c").path(), head("/a").path(), head("").path()), ("/a", "/a", ""));
        assert!(head("/").is_idempotent() && !head("/").is_connect() && !head("/").is_grpc());
    }
}
