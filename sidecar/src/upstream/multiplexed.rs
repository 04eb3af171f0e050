//! A connection that carries many requests at once, whatever both sides agreed to speak on it.

use std::any::Any;
use std::time::Duration;

use eastway_http::client::{H2, Link, SendError};
use eastway_http::link::{self, LinkOptions};
use eastway_http::{ClientOptions, Request, Response};
use eastway_transport::Io;
use http::uri::Scheme;
use http_body::Body as _;

use crate::node::SidecarNode;

/// A connection that carries many requests at once. Clones share it.
#[derive(Clone, Debug)]
pub(crate) enum Multiplexed {
    /// Between our own sidecars.
    Link(Link),
    /// With anybody else.
    H2(H2),
}

impl Multiplexed {
    /// Speaks over `io` what was agreed on: a link, else HTTP/2.
    ///
    /// # Errors
    /// If the opening messages cannot be exchanged.
    pub(super) async fn new(io: Io, options: &ClientOptions, link: &LinkOptions) -> Result<Self, SendError> {
        if io.alpn() == Some(link::ALPN) {
            return Ok(Self::Link(Link::new(io, link, options.continue_after)));
        }
        H2::new(io, Scheme::HTTPS, options).await.map(Self::H2)
    }

    /// Keeps `guard` for as long as the connection is.
    #[must_use]
    pub(super) fn holding(self, guard: impl Any) -> Self {
        match self {
            Self::Link(link) => Self::Link(link.holding(guard)),
            Self::H2(h2) => Self::H2(h2.holding(guard)),
        }
    }

    /// Whether it takes no new requests for good.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Link(link) => link.is_closed(),
            Self::H2(h2) => h2.is_closed(),
        }
    }

    /// Whether it has ended because the other side answered nothing any more, as far as known.
    pub(super) fn fell_silent(&self) -> bool {
        matches!(self, Self::Link(link) if link.fell_silent())
    }

    /// Whether it takes a request more just now.
    pub(super) fn has_room(&self) -> bool {
        match self {
            Self::Link(link) => link.has_room(),
            Self::H2(h2) => h2.available() > 0,
        }
    }

    /// How many streams are open, where that is to be known.
    pub(super) fn streams(&self) -> usize {
        match self {
            Self::Link(link) => link.streams(),
            Self::H2(_) => 0,
        }
    }

    /// Whether lost packets hold up what it carries, as far as known.
    pub(super) fn loses_packets(&self) -> bool {
        matches!(self, Self::Link(link) if link.loses_packets())
    }

    /// Whether it can carry the request. One that asks for another protocol becomes a stream of a link; with a body, which is as
    /// good as unheard of, it needs a connection of its own, as it does with anybody else.
    pub(super) fn carries(&self, request: &Request) -> bool {
        request.head.upgrade().is_none() || matches!(self, Self::Link(_)) && request.body.is_end_stream()
    }

    /// Sends a request that it [carries](Self::carries), and waits for the head of its response.
    ///
    /// # Errors
    /// [`SendError`]; it bears the request if nothing of it was sent.
    pub(super) async fn send(&self, request: Request) -> Result<Response, SendError> {
        match self {
            Self::Link(link) => link.send(request).await,
            Self::H2(h2) => h2.send(request).await,
        }
    }
}

/// What a link may hold, and how it finds out that its other side is silent; an answer may take `way` longer than nearby.
pub(super) fn link_options(node: &SidecarNode, way: Duration) -> LinkOptions {
    let timeouts = &node.config.timeouts;
    LinkOptions { ping_after: timeouts.ping_after, ping_timeout: timeouts.ping_timeout + way, ..served_link(node) }
}

/// What a link that callers open may hold.
pub(crate) fn served_link(node: &SidecarNode) -> LinkOptions {
    let limits = &node.config.limits;
    LinkOptions {
        stream_window: limits.stream_window,
        connection_window: limits.connection_window,
        max_streams: limits.streams,
        stream_buffer: limits.send_buffer,
        max_head_bytes: u16::try_from(limits.header_bytes).unwrap_or(u16::MAX),
        ..LinkOptions::default()
    }
    .bounded()
}
