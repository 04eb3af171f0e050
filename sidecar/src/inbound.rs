//! The inbound side: calls from other sidecars, over mutual TLS, handed to the application on this host.
//!
//! What happens to a call is decided by [`Inbound`](eastway_request::Inbound); here it is done.

use std::rc::Rc;
use std::sync::Arc;

use eastway_core::SpiffeId;
use eastway_http::server::{Ended, Handler, Protocol, ServerOptions, serve};
use eastway_http::{Request, link};
use eastway_identity::{Expected, ServerTls, server_config};
use eastway_request::Layer;
use eastway_runtime::throttled;
use eastway_transport::Io;
use eastway_transport::accept::{self, HandshakeLimits, Handshakes};
use tokio::net::TcpListener;

use crate::adapter::Counting;
use crate::h2;
use crate::record::Telemetry;
use crate::upstream::multiplexed::served_link;
use crate::worker::Worker;
use forward::Forward;

mod forward;
pub(crate) mod plain;
mod within;

/// The protocols that callers may choose from, in our order.
const ALPN: &[&[u8]] = &[link::ALPN, b"h2", b"http/1.1"];

/// The listener's name in logs.
const LISTENER: &str = "inbound.listen";

/// Accepts callers until draining begins.
pub(crate) async fn listen(worker: Rc<Worker>, listener: TcpListener) {
    let tls = server_config(&worker.node.identity, Expected::AnyWorkload, ALPN);
    let (stop, admit) = (worker.node.draining.wait(), || Some(worker.node.draining.guard()));
    let (limits, timeout) = (&worker.node.config.limits, worker.node.config.timeouts.handshake);
    let handshakes = HandshakeLimits { places: limits.handshakes, per_address: limits.address_handshakes, timeout };
    let handshakes = Handshakes::new(LISTENER, &handshakes);
    accept::each(listener, LISTENER, stop, admit, |stream| {
        connection(Rc::clone(&worker), Arc::clone(&handshakes), stream, tls.clone())
    })
    .await;
}

async fn connection(worker: Rc<Worker>, handshakes: Arc<Handshakes>, stream: Io, tls: ServerTls) {
    let Some((io, caller)) = handshakes.shake(stream, tls).await else { return };
    let Some(_place) = worker.inbound.try_acquire() else {
        throttled!(warn, %caller, "turned a caller away: the limit of inbound connections is reached");
        return;
    };
    let options = options(&worker, Protocol::from_alpn(io.alpn()));
    let (stop, sweeper) = (worker.node.draining.wait(), worker.sweeper.clone());
    let telemetry = worker.telemetry.of(&caller);
    let handler = handler(&worker, &caller, &telemetry, Layer::Connection);
    let ended = serve(io, &options, &sweeper, stop, handler).await;
    if let Ended::Malformed(reason) = ended {
        telemetry.refused(reason);
    }
    tracing::trace!(?ended, "a caller's connection ended");
}

/// How callers are served that speak `protocol`.
fn options(worker: &Worker, protocol: Protocol) -> ServerOptions {
    let mut options = ServerOptions::new(worker.node.name.as_str());
    options.protocol = protocol;
    options.max_header_bytes = worker.node.config.limits.header_bytes;
    options.header_timeout = worker.node.config.timeouts.header;
    options.idle_timeout = worker.node.config.timeouts.idle;
    options.h2 = h2::options(&worker.node.config.limits, None);
    options.link = served_link(&worker.node);
    options
}

/// Answers the calls of `caller`.
fn handler(worker: &Rc<Worker>, caller: &Arc<SpiffeId>, telemetry: &Telemetry, layer: Layer) -> impl Handler + use<> {
    let (worker, caller, own) = (Rc::clone(worker), Arc::clone(caller), telemetry.clone());
    let handle = move |request: Request| Forward::begin(&worker, (&caller, &own), layer, request).run();
    Counting { telemetry: telemetry.clone(), handle }
}
