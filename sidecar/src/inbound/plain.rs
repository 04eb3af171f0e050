//! Callers that come around the mesh, to the application's own ports: let through in plain text, and counted.

use std::net::SocketAddr;
use std::rc::Rc;

use eastway_core::Reason;
use eastway_runtime::throttled;
use eastway_transport::relay::{SpliceOptions, splice};
use eastway_transport::tcp::{Kept, original_destination};
use eastway_transport::{Io, accept};
use tokio::net::TcpListener;

use crate::app;
use crate::worker::Worker;

/// The listener's name in logs.
const LISTENER: &str = "capture.inbound.listen";

/// Accepts what the host leads here until draining begins.
pub(crate) async fn listen(worker: Rc<Worker>, listener: TcpListener, kept: Kept) {
    let (stop, admit) =
        (worker.node.draining.wait(), || Some((worker.inbound.try_acquire()?, worker.node.draining.guard())));
    accept::each(listener, LISTENER, stop, admit, |stream| {
        let worker = Rc::clone(&worker);
        async move {
            if let Err((stream, reason)) = connection(&worker, stream, kept).await {
                worker.telemetry.refused(reason);
                stream.abort(reason);
            }
        }
    })
    .await;
}

async fn connection(worker: &Worker, stream: Io, kept: Kept) -> Result<(), (Io, Reason)> {
    let node = &worker.node;
    let meant = stream.tcp().and_then(|tcp| original_destination(tcp, kept).ok());
    let ports = node.config.capture.iter().flat_map(|capture| &capture.inbound).flat_map(|inbound| &inbound.ports);
    let Some(port) = meant.map(|meant| meant.port()).filter(|port| ports.into_iter().any(|known| known == port)) else {
        return Err((stream, Reason::UnknownPort));
    };
    if let (Some(plaintext), Some(peer)) = (&node.plaintext, stream.peer_addr()) {
        throttled!(info, from = %peer.ip(), port, "let a caller through in plain text");
        plaintext.came(peer.ip().to_canonical(), port);
    }
    let target = node.config.inbound.map(|inbound| SocketAddr::new(inbound.app.ip(), port));
    let application = match target {
        Some(target) => app::connect_to(node, target).await,
        None => Err(Reason::AppUnreachable),
    };
    match application {
        Ok(application) => {
            let options = SpliceOptions { idle: node.config.timeouts.idle, ..SpliceOptions::default() };
            let relayed = splice(stream, application, options).await;
            tracing::debug!(?relayed, "a caller's plain connection ended");
            Ok(())
        }
        Err(reason) => Err((stream, reason)),
    }
}
