//! What is spoken on a connection, by its first bytes: for ports of which nobody has declared it.

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1 or HTTP/2 without TLS.
    Http,
    /// TLS.
    Tls,
    /// Anything else.
    Opaque,
}

/// Bytes that are looked at, at most: as long as a request line may be.
pub const MOST: usize = 8 * 1024;

/// The longest method: those that are registered have at most 17 bytes.
const METHOD: usize = 24;

impl Spoken {
    /// What `first` begin; `None` if more has to come.
    pub fn by(first: &[u8]) -> Option<Self> {
        match first {
            [] => None,
            [0x16] | [0x16, 3] => None,
            [0x16, 3, 0..=4, ..] => Some(Self::Tls),
            _ => http(first),
        }
    }
}

/// A request line of HTTP/1, or the first line of HTTP/2's preface, which looks like one. A line that only may become one is waited
/// for.
fn http(first: &[u8]) -> Option<Spoken> {
    let line = first.iter().position(|byte| *byte == b'\n');
    let said = first.get(..line.unwrap_or(first.len())).unwrap_or_default();
    let method = said.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    let may_be = method <= METHOD && said.get(method).is_none_or(|byte| method > 0 && *byte == b' ');
    if !may_be || said.iter().any(|byte| !byte.is_ascii_graphic() && !matches!(byte, b' ' | b'\r')) {
        return Some(Spoken::Opaque);
    }
    match line {
        None if first.len() < MOST => None,
        None => Some(Spoken::Opaque),
        Some(_) => {
            let version = said.trim_ascii_end().rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            let is_http = matches!(version, b"HTTP/1.1" | b"HTTP/1.0" | b"HTTP/2.0");
            Some(if is_http { Spoken::Http } else { Spoken::Opaque })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_bytes_tell_what_is_spoken() {
        for (first, spoken) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Spoken::Http)),
            (b"M-SEARCH * HTTP/1.0\n", Some(Spoken::Http)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Spoken::Http)),
            (b"GET /a", None),
            (b"G", None),
            (b"", None),
            (b"\x16", None),
            (b"\x16\x03", None),
            (b"\x16\x03\x01\x02\x00\x01", Some(Spoken::Tls)),
            (b"\x16\x05\x01", Some(Spoken::Opaque)),
            // Redis, PostgreSQL, MySQL's client, SSH, a line of SMTP, memcached.
            (b"*1\r\n$4\r\nPING\r\n", Some(Spoken::Opaque)),
            (b"PING\r\n", Some(Spoken::Opaque)),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Some(Spoken::Opaque)),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Some(Spoken::Opaque)),
            (b"EHLO client\r\n", Some(Spoken::Opaque)),
            (b"get key\r\n", Some(Spoken::Opaque)),
            (b"SET key value\n", Some(Spoken::Opaque)),
            (b"GET / HTTP/3\n", Some(Spoken::Opaque)),
            (b" GET / HTTP/1.1\n", Some(Spoken::Opaque)),
        ] {
            assert_eq!(Spoken::by(first), spoken, "{:?}", String::from_utf8_lossy(first));
        }
        let endless = vec![b'A'; METHOD];
        assert_eq!(Spoken::by(&endless), None);
        assert_eq!(Spoken::by(&[endless, b"A".into()].concat()), Some(Spoken::Opaque));
        let line = [b"GET /".as_slice(), &vec![b'a'; MOST]].concat();
        assert_eq!((Spoken::by(&line[..MOST - 1]), Spoken::by(&line)), (None, Some(Spoken::Opaque)));
    }

    proptest! {
        /// What was found is found as well when more has come: it does not matter how the bytes are cut.
        #[test]
        fn more_bytes_change_nothing(bytes in prop::collection::vec(prop_oneof![Just(b' '), Just(b'\n'), any::<u8>(), b'A'..=b'Z'], 0..64)) {
            let mut found = None;
            for length in 0..=bytes.len() {
                let now = Spoken::by(&bytes[..length]);
                if let Some(found) = found {
                    prop_assert_eq!(now, Some(found));
                }
                found = now;
            }
        }
    }
}
