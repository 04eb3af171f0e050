//! `Max-Forwards`: how many more hops a TRACE or an OPTIONS may take (RFC 9110, section 7.6.2).

use eastway_core::head::Fields as _;

use crate::message::RequestHead;

/// The field that counts.
const MAX_FORWARDS: &str = "max-forwards";

/// What this hop does with a request, as far as `Max-Forwards` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwards {
    /// Send it on; if the request counts, with one hop less.
    On,
    /// It was the last: this hop answers as if it were the server.
    Answer,
}

/// Counts this hop. Of other methods than TRACE and OPTIONS the field means nothing, and so does one that is no number.
pub fn count_forwards(head: &mut RequestHead) -> Forwards {
    if !matches!(head.method(), "OPTIONS" | "TRACE") {
        return Forwards::On;
    }
    let left = head.fields.text(MAX_FORWARDS).and_then(|value| value.trim().parse::<u32>().ok());
    let Some(left) = left else { return Forwards::On };
    let Some(less) = left.checked_sub(1) else { return Forwards::Answer };
    head.fields.set(MAX_FORWARDS, less.to_string().as_bytes());
    Forwards::On
}

#[cfg(test)]
mod tests {
    use eastway_core::head::HttpVersion;

    use super::*;

    fn counted(method: &str, fields: &[&str]) -> (Forwards, Option<String>) {
        let mut head = RequestHead::new(HttpVersion::Http11, method, "/", "a");
        for value in fields {
            head.fields.append("Max-Forwards", value.as_bytes());
        }
        let forwards = count_forwards(&mut head);
        (forwards, head.fields.text(MAX_FORWARDS).map(str::to_owned))
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
