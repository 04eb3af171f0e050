//! The fixed tables of names, of whole fields, and of methods.
//!
//! They are a part of version 1 and never change: a table that changes is a new version. A code is a place in them; codes
//! without an entry are malformed. Fields that may not be passed on have no entry, so that no short code can smuggle one.

/// Methods by code, from 1 on. Code 0 says that the method is spelt out.
pub(crate) const METHODS: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "CONNECT", "TRACE"];

/// Names of fields by code, from 1 on. Code 0 says that the name is spelt out.
pub(crate) const NAMES: [&str; 95] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "accept-charset",
    "accept-ranges",
    "accept-datetime",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "access-control-request-headers",
    "access-control-request-method",
    "age",
    "allow",
    "alt-svc",
    "authorization",
    "baggage",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-security-policy",
    "content-type",
    "cookie",
    "date",
    "dnt",
    "etag",
    "expect",
    "expires",
    "forwarded",
    "from",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    "grpc-status-details-bin",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "origin",
    "permissions-policy",
    "pragma",
    "priority",
    "proxy-status",
    "purpose",
    "range",
    "referer",
    "referrer-policy",
    "retry-after",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "server",
    "server-timing",
    "set-cookie",
    "strict-transport-security",
    "timing-allow-origin",
    "traceparent",
    "tracestate",
    "upgrade-insecure-requests",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-content-type-options",
    "x-correlation-id",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-frame-options",
    "x-real-ip",
    "x-request-id",
    "x-requested-with",
    "x-xss-protection",
    "eastway-source",
    "endpoint-load-metrics",
];

/// Whole fields by code, from [`FIRST_PAIR`] on. Those of one name stand together.
pub(crate) const PAIRS: [(&str, &str); 40] = [
    ("accept", "*/*"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip"),
    ("accept-encoding", "identity"),
    ("accept-encoding", "gzip, deflate"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-origin", "*"),
    ("access-control-allow-credentials", "true"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "max-age=0"),
    ("cache-control", "private"),
    ("content-encoding", "gzip"),
    ("content-type", "application/json"),
    ("content-type", "application/json; charset=utf-8"),
    ("content-type", "application/grpc"),
    ("content-type", "application/grpc+proto"),
    ("content-type", "application/octet-stream"),
    ("content-type", "application/x-protobuf"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain; charset=utf-8"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/event-stream"),
    ("expect", "100-continue"),
    ("grpc-accept-encoding", "identity"),
    ("grpc-accept-encoding", "identity,deflate,gzip"),
    ("grpc-accept-encoding", "gzip"),
    ("grpc-encoding", "gzip"),
    ("grpc-encoding", "identity"),
    ("grpc-status", "0"),
    ("pragma", "no-cache"),
    ("te", "trailers"),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-proto", "https"),
];

/// The code of the first whole field; codes below are names.
pub(crate) const FIRST_PAIR: u8 = 0x80;

/// The field for a code from [`FIRST_PAIR`] on.
#[inline]
pub(crate) fn pair(code: u8) -> Option<(&'static str, &'static str)> {
    PAIRS.get(usize::from(code.checked_sub(FIRST_PAIR)?)).copied()
}

/// The name for a code from 1 on.
#[inline]
pub(crate) fn name(code: u8) -> Option<&'static str> {
    NAMES.get(usize::from(code.checked_sub(1)?)).copied()
}

/// The method for a code from 1 on.
#[inline]
pub(crate) fn method(code: u8) -> Option<&'static str> {
    METHODS.get(usize::from(code.checked_sub(1)?)).copied()
}

/// The code of a method; 0 if it has none.
#[inline]
pub(crate) fn method_code(method: &str) -> u8 {
    METHODS.iter().position(|known| *known == method).map_or(0, |at| at as u8 + 1)
}

/// The code of a name in any case; 0 if it has none.
#[inline]
pub(crate) fn name_code(name: &[u8]) -> u8 {
    let mut slot = hash(name);
    loop {
        let code = NAME_SLOTS[slot];
        if code == 0 || NAMES[usize::from(code) - 1].as_bytes().eq_ignore_ascii_case(name) {
            return code;
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// The code of a whole field, whose name has the code `name`; 0 if it has none.
#[inline]
pub(crate) fn pair_code(name: u8, value: &[u8]) -> u8 {
    let (first, end) = PAIRS_OF[usize::from(name)];
    let places = usize::from(first)..usize::from(end);
    let mut found = PAIRS.get(places).unwrap_or_default().iter().zip(first..);
    found.find(|((_, known), _)| known.as_bytes() == value).map_or(0, |(_, at)| FIRST_PAIR + at)
}

/// The code of `te: trailers`, whose name has no code because it may have no other value.
pub(crate) const TE_TRAILERS: u8 = FIRST_PAIR + place_of("te") as u8;

/// A power of two, several times the number of names, so that few of them share a slot.
const SLOTS: usize = 512;

/// Where a name is looked for first: from its length and four of its letters, in any case.
const fn hash(name: &[u8]) -> usize {
    let length = name.len();
    if length == 0 {
        return 0;
    }
    let (first, last) = ((name[0] | 0x20) as usize, (name[length - 1] | 0x20) as usize);
    let (middle, quarter) = ((name[length / 2] | 0x20) as usize, (name[length * 3 / 4] | 0x20) as usize);
    (length * 7 + first * 31 + last * 13 + middle * 67 + quarter * 131) % SLOTS
}

/// The codes of the names, by hash; a name whose slot is taken stands in the next free one.
const NAME_SLOTS: [u8; SLOTS] = {
    let mut slots = [0; SLOTS];
    let mut at = 0;
    while at < NAMES.len() {
        let mut slot = hash(NAMES[at].as_bytes());
        while slots[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = at as u8 + 1;
        at += 1;
    }
    slots
};

/// For each code of a name, where its whole fields begin and end.
const PAIRS_OF: [(u8, u8); NAMES.len() + 1] = {
    let mut ranges = [(0, 0); NAMES.len() + 1];
    let mut at = 0;
    while at < NAMES.len() {
        let first = place_of(NAMES[at]);
        let mut end = first;
        while end < PAIRS.len() && same(PAIRS[end].0, NAMES[at]) {
            end += 1;
        }
        ranges[at + 1] = (first as u8, end as u8);
        at += 1;
    }
    ranges
};

/// The place of the first whole field with this name; behind the last one if there is none.
const fn place_of(name: &str) -> usize {
    let mut at = 0;
    while at < PAIRS.len() && !same(PAIRS[at].0, name) {
        at += 1;
    }
    at
}

const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::head::check;

    #[test]
    fn every_entry_is_found_by_its_code_and_its_text() {
        for (at, known) in NAMES.iter().enumerate() {
            let code = at as u8 + 1;
            assert_eq!((name_code(known.as_bytes()), name(code)), (code, Some(*known)));
            assert_eq!(name_code(known.to_uppercase().as_bytes()), code);
        }
        for (at, (known, value)) in PAIRS.iter().enumerate().filter(|(_, (known, _))| *known != "te") {
            let code = FIRST_PAIR + at as u8;
            assert_eq!(
                (pair_code(name_code(known.as_bytes()), value.as_bytes()), pair(code)),
                (code, Some((*known, *value)))
            );
        }
        for known in METHODS {
            assert_eq!(method(method_code(known)), Some(known));
        }
        assert_eq!(pair(TE_TRAILERS), Some(("te", "trailers")));
    }

    #[test]
    fn what_is_in_no_table_has_no_code() {
        for unknown in ["", "x", "te", "host", "content-length", "acceptt", "accept-", "x-forwarded-fox"] {
            assert_eq!(name_code(unknown.as_bytes()), 0, "{unknown}");
        }
        assert_eq!((pair_code(0, b"x"), pair_code(1, b"application/jsonn"), method_code("get")), (0, 0, 0));
        assert_eq!(
            (name(0), name(0x7f), pair(0x7f), pair(0xff), method(0), method(99)),
            (None, None, None, None, None, None)
        );
    }

    #[test]
    fn entries_are_unique_allowed_and_well_formed() {
        assert_eq!(NAMES.iter().collect::<BTreeSet<_>>().len(), NAMES.len());
        assert_eq!(PAIRS.iter().collect::<BTreeSet<_>>().len(), PAIRS.len());
        assert!(NAMES.len() < usize::from(FIRST_PAIR) && PAIRS.len() <= 0x80);
        for name in NAMES {
            assert_eq!(check::literal_name(name.as_bytes()), Ok(()), "{name}");
        }
        for (name, value) in PAIRS {
            assert!(NAMES.contains(&name) || name == "te", "{name}");
            assert_eq!(check::value(value.as_bytes()), Ok(()), "{name}");
        }
    }

    /// The tables as `docs/link.md` has them.
    fn tables() -> String {
        let mut text = String::from("| Code | Method |\n|---|---|\n");
        METHODS.iter().zip(1..).for_each(|(method, code)| text.push_str(&format!("| {code} | `{method}` |\n")));
        text.push_str("\n| Code | Name |\n|---|---|\n");
        NAMES.iter().zip(1..).for_each(|(name, code)| text.push_str(&format!("| {code} | `{name}` |\n")));
        text.push_str("\n| Code | Field |\n|---|---|\n");
        let pairs = PAIRS.iter().zip(usize::from(FIRST_PAIR)..);
        pairs.for_each(|((name, value), code)| text.push_str(&format!("| {code} | `{name}: {value}` |\n")));
        text
    }

    #[test]
    fn the_specification_has_these_tables() {
        let document = include_str!("../../../../docs/link.md");
        assert!(document.contains(&tables()), "docs/link.md must contain:\n{}", tables());
    }
}
