//! Drain notices: sessions move away from a gateway that drains, before it is gone, and from one that has gone, before a request
//! finds that out.
//!
//! A gateway carries ciphertext and cannot tell the two ends of a session anything. So for each tunnel path that sessions
//! take, a request waits at the own gateway, and is answered when that gateway, or the other cluster's at the far end of the
//! tunnel, begins to drain, or when the latter is known not to answer any more. If the request cannot even be sent, because nobody listens any more, that is the notice. One
//! that breaks says nothing: its sessions break by themselves, or live on.

use std::io;

use eastway_core::head::HttpVersion;
use eastway_http::{Body, H1, Request, RequestHead};
use eastway_identity::Expected;
use eastway_request::gateways::TunnelPath;

use super::{ALPN_H1, Upstreams, dial, handshake};

/// Waits for the notice of `path`. Whether it came; `None` if that cannot be said.
pub(super) async fn wait(upstreams: &Upstreams, path: &TunnelPath) -> Option<bool> {
    let node = &upstreams.node;
    let stream = match dial(node, path.gateway).await {
        Ok(stream) => stream,
        // A moment ago it took a session.
        Err(error) => return Some(error.kind() == io::ErrorKind::ConnectionRefused),
    };
    let expected = Expected::Gateway { trust_domain: node.identity.id().trust_domain.clone() };
    let io = handshake(node, stream, expected, ALPN_H1).await.ok()?;
    let mut connection = H1::new(io, &upstreams.options);
    let mut head = RequestHead::new(HttpVersion::Http11, "GET", "/drain-notice", &path.gateway.to_string());
    if let Some(via) = &path.via {
        head.fields.append("eastway-via", via.as_bytes());
    }
    let response = connection.send(Request::new(head, Body::empty())).await.ok()?;
    Some(response.head.is_success())
}
