//! Header fields as a parser left them, and what one look at all of them finds.

use http::HeaderMap;

use super::tokens;

/// Header fields that were not judged yet, wherever they are.
#[derive(Clone, Copy, Debug)]
pub enum Headers<'a> {
    /// In hyper's map.
    Map(&'a HeaderMap),
    /// As slices of a read buffer, in the order of the wire.
    Raw(&'a [httparse::Header<'a>]),
}

impl<'a> Headers<'a> {
    /// All fields as name and value. Names from hyper are lower-case, raw ones as written.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let (map, raw) = match self {
            Self::Map(map) => (Some(map), &[][..]),
            Self::Raw(raw) => (None, raw),
        };
        let map = map.into_iter().flatten().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        map.chain(raw.iter().map(|field| (field.name.as_bytes(), field.value)))
    }

    /// All fields of this name, in order. Case does not matter.
    pub fn all(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }
}

/// A field that must not be there twice.
#[derive(Clone, Copy, Default)]
pub(super) struct Once<'a> {
    pub(super) first: Option<&'a [u8]>,
    pub(super) again: bool,
}

impl<'a> Once<'a> {
    fn saw(&mut self, value: &'a [u8]) {
        self.again = self.first.is_some();
        self.first.get_or_insert(value);
    }
}

/// What fields say of their message's framing.
#[derive(Clone, Copy, Default)]
pub(super) struct Found<'a> {
    pub(super) host: Once<'a>,
    pub(super) length: Once<'a>,
    pub(super) coding: Once<'a>,
    pub(super) expect: Option<&'a [u8]>,
    pub(super) upgrade: Option<&'a [u8]>,
    /// `TE: trailers`.
    pub(super) trailers: bool,
    pub(super) connection: Connection,
}

/// What `Connection` says.
#[derive(Clone, Copy, Default)]
pub(super) struct Connection {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// It names fields that concern one connection only although they are not known to.
    pub(super) nominates: bool,
    /// It names what every hop must see.
    pub(super) forbidden: bool,
}

impl<'a> Found<'a> {
    /// Looks at all fields, once.
    pub(super) fn among(headers: Headers<'a>) -> Self {
        let mut found = Self::default();
        for (name, value) in headers.iter() {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            match name.len() {
                2 if is("te") => found.trailers |= tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers")),
                4 if is("host") => found.host.saw(value),
                6 if is("expect") => found.expect = found.expect.or(Some(value)),
                7 if is("upgrade") => found.upgrade = found.upgrade.or(Some(value)),
                10 if is("connection") => found.connection.saw(value),
                14 if is("content-length") => found.length.saw(value),
                17 if is("transfer-encoding") => found.coding.saw(value),
                _ => {}
            }
        }
        found
    }
}

impl Connection {
    fn saw(&mut self, value: &[u8]) {
        for token in tokens(value) {
            let is = |known: &str| token.eq_ignore_ascii_case(known.as_bytes());
            if is("close") {
                self.close = true;
            } else if is("keep-alive") {
                self.keep_alive = true;
            } else if is("upgrade") {
                self.upgrade = true;
            } else if super::is_nominated(token) {
                self.nominates = true;
                self.forbidden |= !super::may_be_nominated(token);
            }
        }
    }
}
