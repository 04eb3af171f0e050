//! Leaving a gateway in time: sessions move away from one that drains, before it is gone.
//!
//! A gateway carries ciphertext and cannot tell the two ends of a session anything. So for each way that sessions lead
//! through, a question waits at the own gateway, and is answered when that gateway, or the other cluster's at the far end
//! of the tunnel, begins to drain. One that cannot even be asked, because nobody listens any more, is answered by that. A
//! question that breaks says nothing: its sessions break by themselves, or live on.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::rc::Rc;

use eastway_http::{Body, H1};
use eastway_identity::Expected;
use http::Request;
use http::header::HOST;

use super::session::{Way, move_away};
use super::{ALPN_H1, dial, handshake};
use crate::worker::Worker;

/// The ways for which a question waits.
pub(super) type Watched = RefCell<HashSet<Way>>;

/// Sees to it that the sessions through `way` move when it is about to end.
pub(super) fn watch(worker: &Rc<Worker>, way: &Way) {
    if !worker.upstreams.sessions.watched.borrow_mut().insert(way.clone()) {
        return;
    }
    let (worker, way) = (Rc::clone(worker), way.clone());
    tokio::task::spawn_local(async move {
        let leaving = ask(&worker, &way).await.unwrap_or(false);
        worker.upstreams.sessions.watched.borrow_mut().remove(&way);
        if leaving {
            tracing::info!(gateway = %way.gateway, via = way.via, "a gateway drains: its sessions move");
            move_away(&worker, &way);
        }
    });
}

/// Waits for the answer, whether to leave; `None` if there is none.
async fn ask(worker: &Rc<Worker>, way: &Way) -> Option<bool> {
    let node = &worker.node;
    let stream = match dial(node, way.gateway).await {
        Ok(stream) => stream,
        // A moment ago it took a session.
        Err(error) => return Some(error.kind() == io::ErrorKind::ConnectionRefused),
    };
    let expected = Expected::Gateway { trust_domain: node.identity.id().trust_domain.clone() };
    let io = handshake(node, stream, expected, ALPN_H1).await.ok()?;
    let mut connection = H1::new(io, &worker.upstreams.options).await.ok()?;
    let mut request = Request::get("/leaving").header(HOST, way.gateway.to_string());
    if let Some(via) = &way.via {
        request = request.header("eastway-via", via);
    }
    let response = connection.send(request.body(Body::empty()).ok()?).await.ok()?;
    Some(response.status().is_success())
}
