//! A request's head, borrowed, whoever parsed it: what decisions see ([`eastway_core::head`]), and their edits made.
//!
//! One adapter serves hyper ([`Head::of`]), another raw heads ([`Head::raw`]).

mod lines;

use eastway_core::head::{Edit, Edits, Fields, HttpVersion, RequestHead, ResponseHead, folds_onto};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Version, request, response};

pub(crate) use lines::Span;
pub use lines::{Line, Lines, Place};

/// The protocol of an upgrade, kept beside the head instead of in its hop-by-hop fields.
///
/// In the extensions of a request it says what the caller asks for; whoever sends the request on over HTTP/1.1 asks
/// the same. In those of a 101 response it says what was agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeTo(pub HeaderValue);

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
    /// The request asks for another protocol.
    pub upgrade: bool,
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
        let upgrade = parts.extensions.get::<UpgradeTo>().is_some();
        Self { method: parts.method.as_str(), target, authority, version: parts.version, upgrade, headers }
    }

    /// The view of a head that was parsed without hyper.
    pub const fn raw(
        method: &'a str,
        target: &'a str,
        authority: &'a str,
        version: Version,
        upgrade: bool,
        headers: &'a [httparse::Header<'a>],
    ) -> Self {
        Self { method, target, authority, version, upgrade, headers: Headers::Raw(headers) }
    }

    /// The first field of this name. Case does not matter.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.get(name)
    }

    /// The first field of this name, if it is ASCII text.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.headers.text(name)
    }

    /// What decisions see of it.
    pub fn view(&self) -> RequestHead<'_> {
        RequestHead {
            method: self.method,
            target: self.target,
            authority: self.authority,
            version: version(self.version),
            upgrade: self.upgrade,
            fields: &self.headers,
        }
    }
}

/// The view of a response's head. `fields` are those of `parts`.
pub fn response<'a>(parts: &response::Parts, fields: &'a Headers<'a>) -> ResponseHead<'a> {
    ResponseHead { status: parts.status.as_u16(), fields }
}

/// The version in the mesh's words.
pub fn version(version: Version) -> HttpVersion {
    match version {
        Version::HTTP_2 => HttpVersion::Http2,
        Version::HTTP_10 => HttpVersion::Http10,
        _ => HttpVersion::Http11,
    }
}

/// Makes the changes in hyper's map. What is no header text is left out.
pub fn apply(edits: Edits, headers: &mut HeaderMap) {
    for edit in edits {
        match edit {
            Edit::Drop(name) => {
                headers.remove(&*name);
            }
            Edit::DropPrefix(prefix) => remove_prefix(headers, prefix),
            Edit::Set(name, value) => {
                if let Some((name, value)) = field(&name, &value) {
                    headers.insert(name, value);
                }
            }
            Edit::Append(name, value) => {
                if let Some((name, value)) = field(&name, &value) {
                    headers.append(name, value);
                }
            }
        }
    }
}

fn field(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
}

/// Removes all fields whose name [`folds_onto`] `prefix`.
pub fn remove_prefix(headers: &mut HeaderMap, prefix: &str) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| folds_onto(name.as_str(), prefix)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Header fields, wherever they are kept.
#[derive(Clone, Copy, Debug)]
pub enum Headers<'a> {
    /// In hyper's map.
    Map(&'a HeaderMap),
    /// As slices of a read buffer, in the order of the wire.
    Raw(&'a [httparse::Header<'a>]),
    /// As places in the bytes of a head, in the order of the wire.
    Lines(Lines<'a>),
}

impl<'a> Headers<'a> {
    /// The first field of this name. Case does not matter.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The first field of this name, if it is ASCII text.
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.get(name).filter(|value| value.is_ascii()).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All fields of this name, in order. hyper's map is not asked: to parse and hash a name costs more than to compare it
    /// with those of a head.
    pub fn all<'n>(self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All fields as name and value. Names from hyper are lower-case, raw ones as written.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let (map, raw, lines) = self.apart();
        let map = map.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let raw = raw.iter().map(|field| (field.name, field.value));
        map.chain(raw).chain(lines.iter().map(|line| (line.name, line.value)))
    }

    /// All three kinds of fields, two of them empty: so that iterating has one type.
    fn apart(self) -> (Option<&'a HeaderMap>, &'a [httparse::Header<'a>], Lines<'a>) {
        match self {
            Self::Map(map) => (Some(map), &[], Lines::default()),
            Self::Raw(raw) => (None, raw, Lines::default()),
            Self::Lines(lines) => (None, &[], lines),
        }
    }
}

impl Fields for Headers<'_> {
    fn first(&self, name: &str) -> Option<&[u8]> {
        (*self).get(name)
    }

    fn count(&self, name: &str) -> usize {
        (*self).all(name).count()
    }
}

#[cfg(test)]
mod tests {
    use eastway_core::head::MESH_PREFIX;

    use super::*;

    #[test]
    fn heads_look_the_same_whoever_parsed_them() {
        let (parts, ()) = http::Request::get("/a?b=c")
            .header("host", "x.y")
            .header("x-twice", "1")
            .header("x-twice", "2")
            .body(())
            .expect("valid")
            .into_parts();
        let raw = [
            httparse::Header { name: "Host", value: b"x.y" },
            httparse::Header { name: "X-Twice", value: b"1" },
            httparse::Header { name: "x-twice", value: b"2" },
        ];
        for head in [Head::of(&parts), Head::raw("GET", "/a?b=c", "x.y", Version::HTTP_11, false, &raw)] {
            let view = head.view();
            assert_eq!((view.method, view.target, view.path(), view.authority), ("GET", "/a?b=c", "/a", "x.y"));
            assert_eq!(head.headers.all("x-twice").collect::<Vec<_>>(), [b"1", b"2"]);
            assert_eq!((view.fields.text("HOST"), view.fields.count("x-twice")), (Some("x.y"), 2));
            assert_eq!(head.headers.iter().count(), 3);
        }
    }

    #[test]
    fn later_edits_win() {
        let mut headers = HeaderMap::new();
        for forged in ["eastway-source", "eastway_source", "eastway.source"] {
            headers.insert(forged, HeaderValue::from_static("forged"));
        }
        headers.append("x", HeaderValue::from_static("1"));
        headers.append("x", HeaderValue::from_static("2"));
        headers.append("via", HeaderValue::from_static("1.1 other"));
        let mut edits = Edits::new();
        edits.drop_prefix(MESH_PREFIX).set("eastway-zone", "a").drop("x").append("via", "2.0 eastway");
        edits.set("x-broken", "a\nb");
        apply(edits, &mut headers);
        assert_eq!(headers["eastway-zone"], "a");
        let via: Vec<_> = headers.get_all("via").iter().filter_map(|value| value.to_str().ok()).collect();
        assert_eq!((headers.len(), via), (3, vec!["1.1 other", "2.0 eastway"]));
    }
}
