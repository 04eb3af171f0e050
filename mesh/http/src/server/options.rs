//! The settings of a listener's connections.

use std::sync::Arc;
use std::time::Duration;

use eastway_link::LinkOptions;

use crate::h2_options::H2Options;

/// How connections are served.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// This node's name in `Proxy-Status`.
    pub node: Arc<str>,
    /// Which protocol is spoken; detected by default.
    pub protocol: Protocol,
    /// The largest request head, in bytes; 64 KiB by default. Beyond that, and beyond 256 fields in HTTP/1: 431.
    pub max_header_bytes: u32,
    /// How long a request's head may take; 10 s by default. Looked at once per such period, so that a slow head is
    /// cut off after one to two of them. A connection that is closed with a request's body unread is read on for as long,
    /// so that the answer is not lost.
    pub header_timeout: Duration,
    /// How long a connection may be without a request, and how long its peer may leave a response unread; 300 s by
    /// default, rounded up to periods of `header_timeout`.
    pub idle_timeout: Duration,
    /// HTTP/2.
    pub h2: H2Options,
    /// Links.
    pub link: LinkOptions,
}

impl ServerOptions {
    /// The defaults for a node named `node`.
    pub fn new(node: impl Into<Arc<str>>) -> Self {
        Self {
            node: node.into(),
            protocol: Protocol::Detect,
            max_header_bytes: 64 * 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            h2: H2Options::default(),
            link: LinkOptions::default(),
        }
    }
}

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 if the connection starts with its preface, else HTTP/1.
    Detect,
    /// HTTP/1.1 and 1.0.
    Http1,
    /// HTTP/2 by ALPN or prior knowledge.
    Http2,
    /// The link between our own sidecars, by ALPN.
    Link,
}

impl Protocol {
    /// The protocol that ALPN agreed on; none means to detect it.
    pub fn from_alpn(alpn: Option<&[u8]>) -> Self {
        match alpn {
            Some(b"h2") => Self::Http2,
            Some(b"http/1.1") => Self::Http1,
            Some(eastway_link::ALPN) => Self::Link,
            _ => Self::Detect,
        }
    }
}
