//! Writing heads: the lines as they came, without what concerns the other connection only, and with changes.

use http::{StatusCode, Version};

use super::change::{BadChange, Change, write_added, write_field};
use super::encode::{Encoder, decimal};
use super::request::RequestView;
use super::response::ResponseView;
use crate::framing::{self, Length, ResponseLength};
use crate::head::Lines;

/// Writes a request's head for the next hop, and says how its body is to be written.
///
/// # Errors
/// [`BadChange`]; nothing was written then.
pub fn write_request<'c>(
    out: &mut Vec<u8>,
    request: &RequestView<'_>,
    changes: impl Iterator<Item = Change<'c>> + Clone,
) -> Result<Encoder, BadChange> {
    let begun = out.len();
    let head = &request.head;
    let connect = head.method == "CONNECT";
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(if connect { head.authority } else { head.target }.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let encoder = Encoder::of_request(request.body);
    // Nobody is asked to wait for a body that does not come, and HTTP/1.0 does not know the question. Other expectations
    // are for the application to refuse.
    let asks = request.expects_continue && !encoder.is_ended();
    let question = framing::asks_to_continue(head.headers);
    let mut host = changes.clone().any(|change| change.drops("host"));
    let nominated = Nominated::of(request.lines);
    for line in request.lines.iter() {
        let name = line.name;
        if name.len() == 4 && name.eq_ignore_ascii_case("host") {
            if !std::mem::replace(&mut host, true) {
                write_field(out, name.as_bytes(), head.authority.as_bytes());
            }
            continue;
        }
        let asked_anew = question && name.eq_ignore_ascii_case("expect");
        let gone = is_of_one_hop(name) || asked_anew || nominated.has(name);
        if gone || changes.clone().any(|change| change.drops(name)) {
            continue;
        }
        out.extend_from_slice(line.text);
        out.extend_from_slice(b"\r\n");
    }
    if !host {
        write_field(out, b"host", head.authority.as_bytes());
    }
    if asks {
        out.extend_from_slice(b"expect: 100-continue\r\n");
    }
    if request.trailers {
        out.extend_from_slice(b"te: trailers\r\n");
    }
    if request.body == Length::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if let Some(upgrade) = request.upgrade {
        out.extend_from_slice(b"connection: upgrade\r\n");
        write_field(out, b"upgrade", upgrade);
    }
    finish(out, begun, changes).map(|()| encoder)
}

/// To whom a response goes.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The version that the caller speaks.
    pub version: Version,
    /// Whether the caller asked by HEAD.
    pub head: bool,
    /// Whether another request may follow.
    pub persistent: bool,
}

/// How a response was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// How its body is to be written.
    pub encoder: Encoder,
    /// Whether the caller may send another request after it.
    pub persistent: bool,
}

/// Writes a response's head, interim or final, for the caller.
///
/// # Errors
/// [`BadChange`]; nothing was written then.
pub fn write_response<'c>(
    out: &mut Vec<u8>,
    response: &ResponseView<'_>,
    caller: Caller,
    changes: impl Iterator<Item = Change<'c>> + Clone,
) -> Result<Written, BadChange> {
    let begun = out.len();
    status_line(out, response.status, response.phrase);
    let nominated = Nominated::of(response.lines);
    for line in response.lines.iter() {
        let gone = is_of_one_hop(line.name) || line.name.eq_ignore_ascii_case("content-length");
        if gone || nominated.has(line.name) || changes.clone().any(|change| change.drops(line.name)) {
            continue;
        }
        out.extend_from_slice(line.text);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(length) = response.stated {
        out.extend_from_slice(b"content-length: ");
        decimal(out, length);
        out.extend_from_slice(b"\r\n");
    }
    let encoder = match response.body {
        _ if caller.head => Encoder::Discard,
        ResponseLength::Nothing | ResponseLength::Known(0) => Encoder::Ended,
        ResponseLength::Known(length) => Encoder::Length(length),
        ResponseLength::Chunked | ResponseLength::UntilClose if caller.version < Version::HTTP_11 => {
            Encoder::UntilClose
        }
        ResponseLength::Chunked | ResponseLength::UntilClose => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Encoder::Chunked(0)
        }
    };
    let persistent = caller.persistent && encoder != Encoder::UntilClose;
    if let Some(upgrade) = response.upgrade {
        out.extend_from_slice(b"connection: upgrade\r\n");
        write_field(out, b"upgrade", upgrade);
    } else if !response.status.is_informational() {
        connection(out, persistent, caller.version);
    }
    finish(out, begun, changes).map(|()| Written { encoder, persistent })
}

/// Says whether the connection goes on, where the version does not say it.
pub(super) fn connection(out: &mut Vec<u8>, persistent: bool, version: Version) {
    match (persistent, version < Version::HTTP_11) {
        (false, _) => out.extend_from_slice(b"connection: close\r\n"),
        (true, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (true, false) => {}
    }
}

/// Writes a status line.
pub(super) fn status_line(out: &mut Vec<u8>, status: StatusCode, phrase: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(phrase);
    out.extend_from_slice(b"\r\n");
}

/// Adds what the changes add, and ends the head.
fn finish<'c>(
    out: &mut Vec<u8>,
    begun: usize,
    changes: impl Iterator<Item = Change<'c>> + Clone,
) -> Result<(), BadChange> {
    let added = write_added(out, changes);
    if added.is_err() {
        out.truncate(begun);
        return added;
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn is_of_one_hop(name: &str) -> bool {
    framing::is_hop_by_hop(name) || (name.len() == 2 && name.eq_ignore_ascii_case("te"))
}

/// The fields that `Connection` names, if it names any: most heads have none, and are not searched for each line then.
struct Nominated<'a>(Option<Lines<'a>>);

impl<'a> Nominated<'a> {
    fn of(lines: Lines<'a>) -> Self {
        let names = Self(Some(lines));
        if names.iter().next().is_some() { names } else { Self(None) }
    }

    fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.0.unwrap_or_default();
        let connection = lines.iter().filter(|line| line.name.eq_ignore_ascii_case("connection"));
        framing::nominated(connection.map(|line| line.value))
    }

    fn has(&self, name: &str) -> bool {
        self.0.is_some() && self.iter().any(|nominated| nominated.eq_ignore_ascii_case(name.as_bytes()))
    }
}
