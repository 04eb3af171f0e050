//! A request's head: where its parts are in the bytes that were read.

use std::mem::MaybeUninit;

use http::Version;

use super::{HeadLimits, MAX_FIELDS};
use crate::framing::{self, Length, RawRequest, Refused};
use crate::head::{Head, Headers, Lines, Place, Span};

/// A request's head that was read and judged. It does not borrow: [`RequestHead::view`] shows it, given the same bytes.
#[derive(Clone, Debug)]
pub struct RequestHead {
    method: Span,
    target: Span,
    /// The target, if it is not written so: an absolute one without a path.
    rewritten: Option<Box<str>>,
    authority: Span,
    upgrade: Option<Span>,
    version: Version,
    body: Length,
    trailers: bool,
    expects_continue: bool,
    persistent: bool,
    length: usize,
}

/// A request's head as it is read and sent on.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The head as policy sees it.
    pub head: Head<'a>,
    /// Its fields, in order.
    pub lines: Lines<'a>,
    /// How its body is delimited.
    pub body: Length,
    /// The protocol that the caller wants to change to.
    pub upgrade: Option<&'a [u8]>,
    /// Whether the caller takes trailers.
    pub trailers: bool,
    /// Whether the caller waits for 100 (Continue).
    pub expects_continue: bool,
    /// Whether the caller wants to send another request over the connection.
    pub persistent: bool,
}

impl RequestHead {
    /// Reads and judges the head at the front of `bytes`; `None` while it is incomplete. The places of its fields replace
    /// what is in `places`.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn parse(bytes: &[u8], places: &mut Vec<Place>, limits: HeadLimits) -> Result<Option<Self>, Refused> {
        // Few heads have many fields, and a small array keeps the stack warm.
        let few = limits.fields.min(FEW);
        match parse_with::<FEW>(bytes, places, HeadLimits { fields: few, ..limits }) {
            Err(refused) if refused.reason == eastway_core::Reason::HeaderTooLarge && few < limits.fields => {
                parse_with::<MAX_FIELDS>(bytes, places, limits)
            }
            parsed => parsed,
        }
    }

    /// The head, given the bytes and places that it was parsed from.
    pub fn view<'a>(&'a self, bytes: &'a [u8], places: &'a [Place]) -> RequestView<'a> {
        let lines = Lines::new(bytes, places);
        let head = Head {
            method: self.method.text(bytes),
            target: self.rewritten.as_deref().unwrap_or_else(|| self.target.text(bytes)),
            authority: self.authority.text(bytes),
            version: self.version,
            upgrade: self.upgrade.is_some(),
            headers: Headers::Lines(lines),
        };
        RequestView {
            head,
            lines,
            body: self.body,
            upgrade: self.upgrade.map(|upgrade| upgrade.slice(bytes)),
            trailers: self.trailers,
            expects_continue: self.expects_continue,
            persistent: self.persistent,
        }
    }

    /// How many bytes the head takes.
    pub const fn length(&self) -> usize {
        self.length
    }

    /// How its body is delimited.
    pub const fn body(&self) -> Length {
        self.body
    }
}

/// Fields for which the small array is enough.
const FEW: usize = 48;

fn parse_with<const N: usize>(
    bytes: &[u8],
    places: &mut Vec<Place>,
    limits: HeadLimits,
) -> Result<Option<RequestHead>, Refused> {
    let mut fields = [const { MaybeUninit::uninit() }; N];
    let fields = &mut fields[..limits.fields.min(N)];
    let Some(raw) = framing::parse_request(bytes, fields, limits.bytes)? else { return Ok(None) };
    places.clear();
    places.extend(raw.fields.iter().map(|field| Place::of(bytes, field)));
    Ok(Some(placed(bytes, &raw)))
}

fn placed(bytes: &[u8], raw: &RawRequest<'_>) -> RequestHead {
    let RawRequest { head, verdict, length, .. } = raw;
    let rewritten = head.target.starts_with('?').then(|| format!("/{}", head.target).into_boxed_str());
    // The path of `http://NAME` is written nowhere.
    let target = Span::of(bytes, head.target.as_bytes());
    let unwritten = target.text(bytes) != head.target;
    RequestHead {
        method: Span::of(bytes, head.method.as_bytes()),
        target,
        rewritten: rewritten.or_else(|| unwritten.then(|| head.target.into())),
        authority: Span::of(bytes, verdict.authority.as_bytes()),
        upgrade: verdict.upgrade.map(|upgrade| Span::of(bytes, upgrade)),
        version: head.version,
        body: verdict.length,
        trailers: verdict.trailers,
        expects_continue: verdict.expects_continue,
        persistent: verdict.persistent,
        length: *length,
    }
}
