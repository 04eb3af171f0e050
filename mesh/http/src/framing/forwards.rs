//! `Max-Forwards`: how many more hops a TRACE or an OPTIONS may take (RFC 9110, section 7.6.2).

use http::header::{HeaderValue, MAX_FORWARDS};
use http::{Method, request};

/// What this hop does with a request, as far as `Max-Forwards` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwards {
    /// Send it on; if the request counts, with one hop less.
    On,
    /// It was the last: this hop answers as if it were the server.
    Answer,
}

/// Counts this hop. Of other methods than TRACE and OPTIONS the field means nothing, and so does one that is no number.
pub fn count_forwards(parts: &mut request::Parts) -> Forwards {
    if parts.method != Method::OPTIONS && parts.method != Method::TRACE {
        return Forwards::On;
    }
    let Some(left) = parts.headers.get(MAX_FORWARDS).and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok())
    else {
        return Forwards::On;
    };
    let Some(less) = left.checked_sub(1) else { return Forwards::Answer };
    parts.headers.insert(MAX_FORWARDS, HeaderValue::from(less));
    Forwards::On
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(method: &str, fields: &[&'static str]) -> (Forwards, Option<String>) {
        let mut request = http::Request::builder().method(method).uri("/");
        for value in fields {
            request = request.header(MAX_FORWARDS, *value);
        }
        let (mut parts, ()) = request.body(()).expect("valid").into_parts();
        let forwards = count_forwards(&mut parts);
        (forwards, parts.headers.get(MAX_FORWARDS).map(|value| value.to_str().expect("text").to_owned()))
    }

    #[test]
    fn a_trace_or_options_request_goes_as_far_as_it_may() {
        for method in ["OPTIONS", "TRACE"] {
            assert_eq!(counted(method, &["0"]), (Forwards::Answer, Some("0".to_owned())));
            assert_eq!(counted(method, &["5"]), (Forwards::On, Some("4".to_owned())));
            assert_eq!(counted(method, &[]), (Forwards::On, None));
            assert_eq!(counted(method, &["x"]), (Forwards::On, Some("x".to_owned())));
        }
        assert_eq!(counted("GET", &["0"]), (Forwards::On, Some("0".to_owned())), "it is for others to ignore");
    }
}
