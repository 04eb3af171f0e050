//! Leaving a gateway in time: sessions move away from one that drains, before it is gone.
//!
//! A gateway carries ciphertext and cannot tell the two ends of a session anything. So for each way that sessions lead
//! through, a question waits at the own gateway, and is answered when that gateway, or the other cluster's at the far end
//! of the tunnel, begins to drain. One that cannot even be asked, because nobody listens any more, is answered by that. A
//! question that breaks says nothing: its sessions break by themselves, or live on.

use std::io;
use std::net::SocketAddr;

use eastway_core::head::HttpVersion;
use eastway_http::{Body, H1, Request, RequestHead};
use eastway_identity::Expected;

use super::{ALPN_H1, Upstreams, dial, handshake};

/// The gateways that a session leads through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    /// The own cluster's.
    pub(super) gateway: SocketAddr,
    /// The other cluster's, as the own one names it.
    pub(super) via: Option<String>,
}

/// Waits for the answer, whether to leave; `None` if there is none.
pub(super) async fn ask(upstreams: &Upstreams, way: &Way) -> Option<bool> {
    let node = &upstreams.node;
    let stream = match dial(node, way.gateway).await {
        Ok(stream) => stream,
        // A moment ago it took a session.
        Err(error) => return Some(error.kind() == io::ErrorKind::ConnectionRefused),
    };
    let expected = Expected::Gateway { trust_domain: node.identity.id().trust_domain.clone() };
    let io = handshake(node, stream, expected, ALPN_H1).await.ok()?;
    let mut connection = H1::new(io, &upstreams.options);
    let mut head = RequestHead::new(HttpVersion::Http11, "GET", "/leaving", &way.gateway.to_string());
    if let Some(via) = &way.via {
        head.fields.append("eastway-via", via.as_bytes());
    }
    let response = connection.send(Request::new(head, Body::empty())).await.ok()?;
    Some(response.head.is_success())
}
