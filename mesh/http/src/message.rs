//! Messages on their way through a node, in one form whoever read them and whoever will write them.
//!
//! A head is admitted by [`framing`](crate::framing) before it gets this form. What frames a message, or concerns one connection
//! only, is no field here: the host, the length, an upgrade and `Expect: 100-continue` have places of their own, and whoever
//! writes the head says them in the words of its version.

mod fields;
mod interim;
mod texts;

use std::fmt;

use eastway_core::head::{Edits, HttpVersion, RequestHead as RequestView, ResponseHead as ResponseView};

pub use fields::FieldList;
pub use interim::Interim;
pub(crate) use interim::{CONTINUE, MAX_INTERIM, TakesInterim};
use texts::Span;

use crate::body::{Body, Unread};
use crate::upgrade::Upgrading;

/// The head of a request.
#[derive(Clone)]
pub struct RequestHead {
    /// The version that its caller speaks.
    pub version: HttpVersion,
    /// The bytes of its body, if it states them.
    pub length: Option<u64>,
    /// Whether its caller waits for 100 (Continue) before it sends the body.
    pub expects_continue: bool,
    /// Where the target starts in the line, which has method, target and authority, one behind the other.
    target: usize,
    authority: usize,
    upgrade: Option<Span>,
    /// The header fields.
    pub fields: FieldList,
}

impl RequestHead {
    /// A head without fields: the target is empty for CONNECT, and the authority may have a port.
    pub fn new(version: HttpVersion, method: &str, target: &str, authority: &str) -> Self {
        Self::with_room(version, method, target, (authority, None), 0)
    }

    /// The same with the protocol that its caller wants to change to, and with room for so many bytes of fields.
    pub(crate) fn with_room(
        version: HttpVersion,
        method: &str,
        target: &str,
        (authority, upgrade): (&str, Option<&[u8]>),
        room: usize,
    ) -> Self {
        let mut fields = FieldList::with_room(upgrade.map_or(0, <[u8]>::len) + room);
        fields.begin(&[method, target, authority]);
        let (target, authority) = (method.len(), method.len() + target.len());
        let upgrade = upgrade.map(|protocol| fields.keep(protocol));
        Self { version, length: None, expects_continue: false, target, authority, upgrade, fields }
    }

    /// The method, as written.
    pub fn method(&self) -> &str {
        self.fields.line(..self.target)
    }

    /// Path and query, or `*`; empty for CONNECT.
    pub fn target(&self) -> &str {
        self.fields.line(self.target..self.authority)
    }

    /// The host, with the port if one was written.
    pub fn authority(&self) -> &str {
        self.fields.line(self.authority..)
    }

    /// The request is for this host from now on.
    pub fn set_authority(&mut self, authority: &str) {
        self.fields.end_line(self.authority, authority);
    }

    /// The protocol that the caller wants to change to.
    pub fn upgrade(&self) -> Option<&[u8]> {
        self.upgrade.map(|protocol| self.fields.kept(protocol))
    }

    /// Whether the caller wants a byte stream.
    pub fn is_connect(&self) -> bool {
        self.method() == "CONNECT"
    }

    /// What decisions see of it.
    pub fn view(&self) -> RequestView<'_> {
        RequestView {
            method: self.method(),
            target: self.target(),
            authority: self.authority(),
            version: self.version,
            upgrade: self.upgrade.is_some(),
            fields: &self.fields,
        }
    }
}

impl PartialEq for RequestHead {
    fn eq(&self, other: &Self) -> bool {
        let said = |head: &Self| (head.version, head.length, head.expects_continue);
        said(self) == said(other)
            && (self.method(), self.target(), self.authority()) == (other.method(), other.target(), other.authority())
            && self.upgrade() == other.upgrade()
            && self.fields == other.fields
    }
}

impl Eq for RequestHead {}

/// Only what is no credential: fields may be.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} for {}", self.method(), self.target(), self.authority())
    }
}

/// The head of a response.
#[derive(Clone)]
pub struct ResponseHead {
    /// The status.
    pub status: u16,
    /// The bytes of its body, if it states them; of responses to HEAD and of 304, of one that does not come.
    pub length: Option<u64>,
    /// No other request may follow on an HTTP/1 connection: where it starts is in doubt.
    pub closes: bool,
    upgrade: Option<Span>,
    /// The header fields.
    pub fields: FieldList,
}

impl ResponseHead {
    /// A head without fields.
    pub fn new(status: u16) -> Self {
        Self::with_room(status, None, 0)
    }

    /// The same with the protocol that was agreed on, and with room for so many bytes of fields.
    pub(crate) fn with_room(status: u16, upgrade: Option<&[u8]>, room: usize) -> Self {
        let mut fields = FieldList::with_room(upgrade.map_or(0, <[u8]>::len) + room);
        let upgrade = upgrade.map(|protocol| fields.keep(protocol));
        Self { status, length: None, closes: false, upgrade, fields }
    }

    /// The protocol that was agreed on, in a 101.
    pub fn upgrade(&self) -> Option<&[u8]> {
        self.upgrade.map(|protocol| self.fields.kept(protocol))
    }

    /// Whether the status is a success.
    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// Whether the server says that it has failed.
    pub const fn is_server_error(&self) -> bool {
        matches!(self.status, 500..=599)
    }

    /// Whether another protocol follows.
    pub const fn is_switch(&self) -> bool {
        self.status == 101
    }

    /// What decisions see of it.
    pub fn view(&self) -> ResponseView<'_> {
        ResponseView { status: self.status, fields: &self.fields }
    }
}

impl PartialEq for ResponseHead {
    fn eq(&self, other: &Self) -> bool {
        (self.status, self.length, self.closes) == (other.status, other.length, other.closes)
            && self.upgrade() == other.upgrade()
            && self.fields == other.fields
    }
}

impl Eq for ResponseHead {}

/// Only what is no credential: fields may be.
impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)
    }
}

/// A request.
#[derive(Debug)]
pub struct Request {
    /// Its head.
    pub head: RequestHead,
    /// Its body.
    pub body: Body,
    /// The raw bytes that follow if it is granted what it asks for: a CONNECT, or another protocol.
    pub upgrading: Option<Upgrading>,
    /// Where interim responses to it go; `None` if its caller's connection bears none.
    pub interim: Option<Interim>,
}

impl Request {
    /// A request that brings no raw bytes, and to which no interim response is passed.
    pub const fn new(head: RequestHead, body: Body) -> Self {
        Self { head, body, upgrading: None, interim: None }
    }
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// Its head.
    pub head: ResponseHead,
    /// Its body.
    pub body: Body,
    /// The raw bytes that follow.
    pub upgrading: Option<Upgrading>,
    /// Where it is counted while nobody reads it.
    pub(crate) unread: Option<Unread>,
}

impl Response {
    /// A response after which no raw bytes follow.
    pub const fn new(head: ResponseHead, body: Body) -> Self {
        Self { head, body, upgrading: None, unread: None }
    }

    /// A head and nothing else.
    pub fn empty(status: u16) -> Self {
        Self::new(ResponseHead::new(status), Body::empty())
    }

    /// With the changes that decisions want of its head.
    #[must_use]
    pub fn edited(mut self, edits: &Edits) -> Self {
        self.head.fields.apply(edits);
        self
    }

    /// With another body.
    #[must_use]
    pub fn map(self, body: impl FnOnce(Body) -> Body) -> Self {
        Self { body: body(self.body), ..self }
    }

    /// Where it is to be counted while nobody reads it, if that matters to anybody.
    pub fn unread(&self) -> Unread {
        self.unread.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
