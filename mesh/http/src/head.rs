//! A request's head as policy sees it: borrowed, and independent of who parsed it.
//!
//! Routing, authorization, identity headers, tracing and metrics read a [`Head`] and answer with [`Edits`]. One adapter
//! serves hyper ([`Head::of`]), another raw heads ([`Head::raw`]), so that a forwarder of our own needs no second policy.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Version, request};

use crate::reserved;

/// A borrowed request head, after [`framing`](crate::framing) admitted it: one authority, one target.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method, as written.
    pub method: &'a str,
    /// Path and query; empty for CONNECT.
    pub target: &'a str,
    /// The host, with the port if one was written; empty only for a head that was not admitted.
    pub authority: &'a str,
    /// The version that the caller speaks.
    pub version: Version,
    /// The header fields.
    pub headers: Headers<'a>,
}

impl<'a> Head<'a> {
    /// The view of a head that hyper parsed and [`framing::admit_request`](crate::framing::admit_request) admitted.
    pub fn of(parts: &'a request::Parts) -> Self {
        let headers = Headers::Map(&parts.headers);
        let authority = match parts.uri.authority() {
            Some(authority) => authority.as_str(),
            None => headers.text("host").unwrap_or_default(),
        };
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        Self { method: parts.method.as_str(), target, authority, version: parts.version, headers }
    }

    /// The view of a head that was parsed without hyper.
    pub const fn raw(
        method: &'a str,
        target: &'a str,
        authority: &'a str,
        version: Version,
        headers: &'a [httparse::Header<'a>],
    ) -> Self {
        Self { method, target, authority, version, headers: Headers::Raw(headers) }
    }

    /// The first field of this name. Case does not matter.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.get(name)
    }

    /// The first field of this name, if it is ASCII text.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.headers.text(name)
    }

    /// The path without the query.
    pub fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// Whether the caller speaks gRPC.
    pub fn is_grpc(&self) -> bool {
        is_grpc(self.header("content-type"))
    }

    /// Whether repeating the request has the effect of making it once (RFC 9110, section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        is_idempotent(self.method)
    }
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

/// Header fields, wherever they are kept.
#[derive(Clone, Copy, Debug)]
pub enum Headers<'a> {
    /// In hyper's map.
    Map(&'a HeaderMap),
    /// As slices of a read buffer, in the order of the wire.
    Raw(&'a [httparse::Header<'a>]),
}

impl<'a> Headers<'a> {
    /// The first field of this name. Case does not matter.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        match self {
            Self::Map(map) => map.get(name).map(HeaderValue::as_bytes),
            Self::Raw(_) => self.all(name).next(),
        }
    }

    /// The first field of this name, if it is ASCII text.
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.get(name).filter(|value| value.is_ascii()).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All fields of this name, in order.
    pub fn all<'n>(self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let (map, raw) = match self {
            Self::Map(map) => (Some(map.get_all(name).into_iter()), [].as_slice()),
            Self::Raw(raw) => (None, raw),
        };
        let raw = raw.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
        map.into_iter().flatten().map(HeaderValue::as_bytes).chain(raw)
    }

    /// All fields as name and value. Names from hyper are lower-case, raw ones as written.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let (map, raw) = match self {
            Self::Map(map) => (Some(map.iter()), [].as_slice()),
            Self::Raw(raw) => (None, raw),
        };
        let map = map.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_bytes()));
        map.chain(raw.iter().map(|field| (field.name, field.value)))
    }
}

/// One change of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// All fields of the name go.
    Drop(HeaderName),
    /// All fields go whose name starts so, or folds onto one that does ([`reserved::folds_onto`]).
    DropPrefix(&'static str),
    /// Exactly one field of the name, with this value.
    Set(HeaderName, HeaderValue),
}

/// The changes that policy wants, in order: later ones win.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits(Vec<Edit>);

impl Edits {
    /// No change.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Removes all fields named `name`.
    pub fn drop(&mut self, name: HeaderName) -> &mut Self {
        self.0.push(Edit::Drop(name));
        self
    }

    /// Removes all fields whose name starts with `prefix` (lower-case), or is folded onto such a name by some servers
    /// ([`reserved::folds_onto`]): what only the mesh may say.
    pub fn drop_prefix(&mut self, prefix: &'static str) -> &mut Self {
        self.0.push(Edit::DropPrefix(prefix));
        self
    }

    /// Replaces all fields named `name` by one.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) -> &mut Self {
        self.0.push(Edit::Set(name, value));
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

    /// Makes the changes in hyper's map.
    pub fn apply(self, headers: &mut HeaderMap) {
        for edit in self.0 {
            match edit {
                Edit::Drop(name) => {
                    headers.remove(name);
                }
                Edit::DropPrefix(prefix) => reserved::remove(headers, prefix),
                Edit::Set(name, value) => {
                    headers.insert(name, value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(request: http::Request<()>) -> request::Parts {
        request.into_parts().0
    }

    #[test]
    fn both_adapters_show_the_same_head() {
        let parts = parts(
            http::Request::get("/a?b=c")
                .header("host", "x.y")
                .header("x-twice", "1")
                .header("x-twice", "2")
                .body(())
                .expect("valid"),
        );
        let raw = [
            httparse::Header { name: "Host", value: b"x.y" },
            httparse::Header { name: "X-Twice", value: b"1" },
            httparse::Header { name: "x-twice", value: b"2" },
        ];
        let adapters = [Head::of(&parts), Head::raw("GET", "/a?b=c", "x.y", Version::HTTP_11, &raw)];
        for head in adapters {
            assert_eq!((head.method, head.target, head.path(), head.authority), ("GET", "/a?b=c", "/a", "x.y"));
            assert_eq!(head.headers.all("x-twice").collect::<Vec<_>>(), [b"1", b"2"]);
            assert_eq!(head.text("HOST"), Some("x.y"));
            assert_eq!(head.headers.iter().count(), 3);
        }
    }

    #[test]
    fn grpc_is_a_media_type_and_not_a_prefix() {
        assert!(is_grpc(Some(b"application/grpc")));
        assert!(is_grpc(Some(b"application/grpc+proto")));
        assert!(!is_grpc(Some(b"application/grpc-web")));
        assert!(!is_grpc(None));
    }

    #[test]
    fn later_edits_win() {
        let mut headers = HeaderMap::new();
        for forged in ["eastway-source", "eastway_source", "eastway.source"] {
            headers.insert(forged, HeaderValue::from_static("forged"));
        }
        headers.append("x", HeaderValue::from_static("1"));
        headers.append("x", HeaderValue::from_static("2"));
        let mut edits = Edits::new();
        edits.drop_prefix("eastway-").set(HeaderName::from_static("eastway-zone"), HeaderValue::from_static("a"));
        edits.drop(HeaderName::from_static("x"));
        edits.apply(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["eastway-zone"], "a");
    }
}
