//! A response's head: where its parts are in the bytes that were read.

use std::mem::MaybeUninit;

use eastway_core::Reason;
use http::{StatusCode, Version};

use super::{HeadLimits, MAX_FIELDS};
use crate::framing::{self, Asked, ResponseLength};
use crate::head::{Headers, Lines, Place, Span};

/// A response's head that was read and judged. It does not borrow: [`ResponseHead::view`] shows it, given the same bytes.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead {
    status: StatusCode,
    version: Version,
    phrase: Span,
    body: ResponseLength,
    stated: Option<u64>,
    upgrade: Option<Span>,
    persistent: bool,
    length: usize,
}

/// A response's head as it is read and sent on.
#[derive(Clone, Copy, Debug)]
pub struct ResponseView<'a> {
    /// The status.
    pub status: StatusCode,
    /// The version that the upstream speaks.
    pub version: Version,
    /// The words behind the status.
    pub phrase: &'a [u8],
    /// Its fields, in order.
    pub lines: Lines<'a>,
    /// How its body is delimited.
    pub body: ResponseLength,
    /// The length to be told to the caller, if one is stated.
    pub stated: Option<u64>,
    /// The protocol that was agreed on, in a 101.
    pub upgrade: Option<&'a [u8]>,
}

impl<'a> ResponseView<'a> {
    /// The fields as policy sees them.
    pub const fn headers(&self) -> Headers<'a> {
        Headers::Lines(self.lines)
    }
}

impl ResponseHead {
    /// Reads and judges the head at the front of `bytes`; `None` while it is incomplete. The places of its fields replace
    /// what is in `places`. Lines may end in a bare line feed here: nobody reads the bytes but us, and they leave with CRLF.
    ///
    /// # Errors
    /// [`Reason::UpstreamProtocol`] if it is no response to what was asked.
    pub fn parse(
        bytes: &[u8],
        places: &mut Vec<Place>,
        asked: Asked,
        limits: HeadLimits,
    ) -> Result<Option<Self>, Reason> {
        match parse_with::<FEW>(bytes, places, asked, limits) {
            Err(TooMany) if limits.fields > FEW => {
                parse_with::<MAX_FIELDS>(bytes, places, asked, limits).unwrap_or(Err(Reason::UpstreamProtocol))
            }
            parsed => parsed.unwrap_or(Err(Reason::UpstreamProtocol)),
        }
    }

    /// The head, given the bytes and places that it was parsed from.
    pub fn view<'a>(&self, bytes: &'a [u8], places: &'a [Place]) -> ResponseView<'a> {
        ResponseView {
            status: self.status,
            version: self.version,
            phrase: self.phrase.slice(bytes),
            lines: Lines::new(bytes, places),
            body: self.body,
            stated: self.stated,
            upgrade: self.upgrade.map(|upgrade| upgrade.slice(bytes)),
        }
    }

    /// The status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// How many bytes the head takes.
    pub const fn length(&self) -> usize {
        self.length
    }

    /// How its body is delimited.
    pub const fn body(&self) -> ResponseLength {
        self.body
    }

    /// Whether the connection is to carry another response after this one.
    pub const fn is_persistent(&self) -> bool {
        self.persistent
    }
}

/// Fields for which the small array is enough.
const FEW: usize = 48;

/// More fields than there is room for.
struct TooMany;

type Parsed = Result<Option<ResponseHead>, Reason>;

fn parse_with<const N: usize>(
    bytes: &[u8],
    places: &mut Vec<Place>,
    asked: Asked,
    limits: HeadLimits,
) -> Result<Parsed, TooMany> {
    let mut fields = [const { MaybeUninit::uninit() }; N];
    let fields = &mut fields[..limits.fields.min(N)];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, bytes, fields) {
        Ok(httparse::Status::Complete(length)) if length <= limits.bytes => length,
        Ok(httparse::Status::Partial) if bytes.len() <= limits.bytes => return Ok(Ok(None)),
        Err(httparse::Error::TooManyHeaders) => return Err(TooMany),
        Ok(_) | Err(_) => return Ok(Err(Reason::UpstreamProtocol)),
    };
    let (Some(code), Some(minor), Some(phrase)) = (parsed.code, parsed.version, parsed.reason) else {
        return Ok(Err(Reason::UpstreamProtocol));
    };
    let version = if minor == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let Ok(status) = StatusCode::from_u16(code) else { return Ok(Err(Reason::UpstreamProtocol)) };
    let verdict = match framing::judge_response(version, status, asked, Headers::Raw(parsed.headers)) {
        Ok(verdict) => verdict,
        Err(reason) => return Ok(Err(reason)),
    };
    places.clear();
    places.extend(parsed.headers.iter().map(|field| Place::of(bytes, field)));
    Ok(Ok(Some(ResponseHead {
        status,
        version,
        phrase: Span::of(bytes, phrase.as_bytes()),
        body: verdict.length,
        stated: verdict.stated,
        upgrade: verdict.upgrade.map(|upgrade| Span::of(bytes, upgrade)),
        persistent: verdict.persistent,
        length,
    })))
}
