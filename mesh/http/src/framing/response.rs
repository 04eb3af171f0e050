//! Responses: what an upstream may say, and the form that admitted heads get.

use std::mem::MaybeUninit;

use eastway_core::Reason;
use eastway_core::head::HttpVersion;
use http::response;

use super::headers::Found;
use super::request::parse_length;
use super::{Headers, goes_on, persistent};
use crate::limits::{HeadLimits, MAX_FIELDS};
use crate::message::ResponseHead;

/// What a request was, as far as it says how its response is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// By HEAD: no response to it has a body.
    pub head: bool,
    /// By CONNECT: a success opens a tunnel.
    pub connect: bool,
    /// It wants to change the protocol, so that a 101 may come.
    pub upgrade: bool,
}

impl Asked {
    /// Whether a response with this status has no body, whatever length its head states (RFC 9110, section 6.4.1).
    pub const fn is_bodiless(self, status: u16) -> bool {
        self.head || matches!(status, 100..=199 | 204 | 304)
    }
}

/// How a response's body is delimited in HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseLength {
    /// There is none, whatever the head states.
    Nothing,
    /// By `Content-Length`.
    Known(u64),
    /// By chunks.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What [`judge_response`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseVerdict<'a> {
    /// How its body is delimited.
    pub length: ResponseLength,
    /// The length to be told to the caller; of responses to HEAD and of 304 it is that of a body that does not come.
    pub stated: Option<u64>,
    /// The protocol that was agreed on, in a 101.
    pub upgrade: Option<&'a [u8]>,
    /// Whether the connection is to carry another response after this one.
    pub persistent: bool,
    /// Whether `Connection` names fields that no other hop may see.
    nominates: bool,
}

/// Judges a response's head.
///
/// # Errors
/// [`Reason::UpstreamProtocol`] if readers could disagree about where it ends, or nobody asked for what it does.
pub fn judge_response<'a>(
    version: HttpVersion,
    status: u16,
    asked: Asked,
    headers: Headers<'a>,
) -> Result<ResponseVerdict<'a>, Reason> {
    let found = Found::among(headers);
    let switching = status == 101;
    // Two lengths: readers could disagree where it ends, and what follows would be taken for another response.
    let both = found.coding.first.is_some() && found.length.first.is_some();
    if both || found.connection.forbidden || (switching && !asked.upgrade) {
        return Err(Reason::UpstreamProtocol);
    }
    let stated = if found.length.first.is_some() { one_length(headers)? } else { None };
    let never = matches!(status, 100..=199 | 204) || (asked.connect && matches!(status, 200..=299));
    let length = match found.coding.first {
        _ if never || asked.head || status == 304 => ResponseLength::Nothing,
        // Another coding would have to be undone before the field that names it is taken out.
        Some(coding) => {
            let sole = !found.coding.again && coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
            if !sole || version < HttpVersion::Http11 {
                return Err(Reason::UpstreamProtocol);
            }
            ResponseLength::Chunked
        }
        None => stated.map_or(ResponseLength::UntilClose, ResponseLength::Known),
    };
    Ok(ResponseVerdict {
        length,
        stated: stated.filter(|_| !never),
        upgrade: found.upgrade.filter(|_| switching),
        persistent: persistent(version, found.connection) && length != ResponseLength::UntilClose,
        nominates: found.connection.nominates,
    })
}

/// The length. If it is stated more than once, all statements must agree.
fn one_length(headers: Headers<'_>) -> Result<Option<u64>, Reason> {
    let mut lengths = headers.all("content-length").flat_map(|value| value.split(|byte| *byte == b','));
    let Some(first) = lengths.next() else { return Ok(None) };
    let length = parse_length(first.trim_ascii()).ok_or(Reason::UpstreamProtocol)?;
    let agrees = lengths.all(|other| parse_length(other.trim_ascii()) == Some(length));
    if agrees { Ok(Some(length)) } else { Err(Reason::UpstreamProtocol) }
}

impl ResponseVerdict<'_> {
    /// The head in the form that the rest of the program sees.
    fn head(&self, status: u16, headers: Headers<'_>) -> ResponseHead {
        let room = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let mut head = ResponseHead::with_room(status, self.upgrade, room);
        head.length = self.stated;
        for (name, value) in headers.iter().filter(|(name, _)| goes_on(name, headers, self.nominates)) {
            head.fields.push(name, value);
        }
        head
    }
}

/// Judges an upstream's response that hyper read.
///
/// # Errors
/// [`Reason::UpstreamProtocol`] if readers could disagree about where it ends.
pub fn admit_response(parts: &response::Parts, asked: Asked) -> Result<ResponseHead, Reason> {
    let (status, headers) = (parts.status.as_u16(), Headers::Map(&parts.headers));
    Ok(judge_response(HttpVersion::Http2, status, asked, headers)?.head(status, headers))
}

/// A response's head that was read and judged.
#[derive(Clone, Debug)]
pub struct ParsedResponse {
    /// The head.
    pub head: ResponseHead,
    /// How its body is delimited.
    pub body: ResponseLength,
    /// Whether the connection is to carry another response after it.
    pub persistent: bool,
    /// How many bytes the head takes; what follows is body.
    pub size: usize,
}

/// Reads and judges the head of an HTTP/1 response; `None` while it is incomplete. Lines may end in a bare line feed here:
/// nobody reads the bytes but us, and they leave with CRLF.
///
/// # Errors
/// [`Reason::UpstreamProtocol`] if it is no response to what was asked.
pub(crate) fn parse_response(bytes: &[u8], asked: Asked, limits: HeadLimits) -> Result<Option<ParsedResponse>, Reason> {
    match parse_with::<FEW>(bytes, asked, limits) {
        Err(TooMany) if limits.fields > FEW => {
            parse_with::<MAX_FIELDS>(bytes, asked, limits).unwrap_or(Err(Reason::UpstreamProtocol))
        }
        parsed => parsed.unwrap_or(Err(Reason::UpstreamProtocol)),
    }
}

/// Fields for which a small array is enough.
const FEW: usize = 48;

/// More fields than there is room for.
struct TooMany;

type Parsed = Result<Option<ParsedResponse>, Reason>;

fn parse_with<const N: usize>(bytes: &[u8], asked: Asked, limits: HeadLimits) -> Result<Parsed, TooMany> {
    let mut fields = [const { MaybeUninit::uninit() }; N];
    let fields = &mut fields[..limits.fields.min(N)];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let size = match config.parse_response_with_uninit_headers(&mut parsed, bytes, fields) {
        Ok(httparse::Status::Complete(size)) if size <= limits.bytes => size,
        Ok(httparse::Status::Partial) if bytes.len() <= limits.bytes => return Ok(Ok(None)),
        Err(httparse::Error::TooManyHeaders) => return Err(TooMany),
        Ok(_) | Err(_) => return Ok(Err(Reason::UpstreamProtocol)),
    };
    let (Some(status @ 100..=999), Some(minor)) = (parsed.code, parsed.version) else {
        return Ok(Err(Reason::UpstreamProtocol));
    };
    let version = if minor == 1 { HttpVersion::Http11 } else { HttpVersion::Http10 };
    let headers = Headers::Raw(parsed.headers);
    Ok(judge_response(version, status, asked, headers).map(|verdict| {
        let (body, persistent) = (verdict.length, verdict.persistent);
        Some(ParsedResponse { head: verdict.head(status, headers), body, persistent, size })
    }))
}
