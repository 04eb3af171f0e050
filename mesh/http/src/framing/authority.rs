//! Hosts: what may stand in `Host`, `:authority` and a CONNECT target.

/// `value` as an authority without user information: HOST or HOST:PORT, the host a name or an address. A port that is
/// empty is none (RFC 3986, section 3.2.3), and is left out of what is returned.
pub(super) fn parse(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let text = text.strip_suffix(':').unwrap_or(text);
    let (host, port) = split(text)?;
    let valid = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(is_ip_literal),
        None => is_name(host),
    };
    (valid && port.is_none_or(is_port)).then_some(text)
}

/// Whether two authorities are the same to every reader: case aside, and the scheme's own port aside.
pub(super) fn same(one: &str, other: &str, scheme: Option<&str>) -> bool {
    let default = match scheme {
        Some("http") => ":80",
        Some("https") => ":443",
        _ => "",
    };
    let bare = |text: &'_ str| text.strip_suffix(default).unwrap_or(text).len();
    one[..bare(one)].eq_ignore_ascii_case(&other[..bare(other)])
}

/// Whether a port is written.
pub(super) fn has_port(authority: &str) -> bool {
    split(authority).is_some_and(|(_, port)| port.is_some())
}

fn split(text: &str) -> Option<(&str, Option<&str>)> {
    let end = match text.find(']') {
        Some(end) => end + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    match text.split_at_checked(end)? {
        (host, "") => Some((host, None)),
        (host, rest) => Some((host, Some(rest.strip_prefix(':')?))),
    }
}

fn is_name(host: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte);
    !host.is_empty() && host.bytes().all(valid)
}

fn is_ip_literal(text: &str) -> bool {
    text.parse::<std::net::Ipv6Addr>().is_ok()
}

fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_ports_are_read() {
        for text in ["a", "payments.shop.mesh.internal:80", "127.0.0.1:8080", "[::1]", "[::1]:443", "a_b", "A.B."] {
            assert_eq!(parse(text.as_bytes()), Some(text));
        }
    }

    #[test]
    fn what_readers_could_understand_differently_is_refused() {
        for text in [
            "", ":", ":80", "a::", "a:b", "a:65536", "a:+1", "a:1:2", "user@a", "a b", "a/b", "a,b", "a\\b", "[::1",
            "::1", "[::1]x", "[x]", "a#b", "a?b", "é",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!((parse(b"a:"), parse(b"[::1]:")), (Some("a"), Some("[::1]")), "an empty port is none");
        assert_eq!(parse(b"a\0"), None);
        assert_eq!(parse(b"\xff"), None);
    }

    #[test]
    fn only_the_schemes_own_port_may_be_left_out() {
        assert!(same("A.b", "a.B:80", Some("http")));
        assert!(same("a:443", "a", Some("https")));
        assert!(!same("a:443", "a", Some("http")));
        assert!(!same("a:80", "a", None));
        assert!(!same("a", "b", Some("http")));
        assert!(!same("é:80", "e", Some("http")));
    }
}
