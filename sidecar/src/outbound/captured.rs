//! Connections to names' addresses that the host captures: where each was meant to go says what it leads to.

use std::rc::Rc;
use std::sync::Arc;

use eastway_core::Reason;
use eastway_http::server::ServerOptions;
use eastway_transport::tcp::{Kept, original_destination};
use eastway_transport::{Io, accept};
use tokio::net::TcpListener;

use super::named;
use super::target::Target;
use crate::virtuals::{Lead, Virtuals};
use crate::worker::Worker;

/// The listener's name in logs.
const LISTENER: &str = "capture.listen";

/// Accepts what the host captures until draining begins.
pub(crate) async fn listen(worker: Rc<Worker>, listener: TcpListener, kept: Kept, virtuals: Arc<Virtuals>) {
    let options = super::options(&worker);
    let (stop, admit) = (worker.node.draining.wait(), || worker.outbound_place());
    accept::each(listener, LISTENER, stop, admit, |stream| {
        let (worker, options, virtuals) = (Rc::clone(&worker), Rc::clone(&options), Arc::clone(&virtuals));
        async move { connection(worker, stream, &options, (kept, &virtuals)).await }
    })
    .await;
}

async fn connection(worker: Rc<Worker>, stream: Io, options: &ServerOptions, (kept, virtuals): (Kept, &Virtuals)) {
    match meant_for(&stream, kept, virtuals) {
        Ok(lead) => {
            let _used = lead.used.begin();
            let target = Rc::new(Target::new(lead, &worker.node.config.suffix));
            named::lead(worker, stream, options, target).await;
        }
        Err(reason) => {
            tracing::debug!(reason = reason.code(), peer = ?stream.peer_addr(), "a captured connection leads nowhere");
            worker.telemetry.refused(reason);
            stream.abort(reason);
        }
    }
}

/// What the connection was meant for. One that was not captured, but made to the listener itself, is for nobody.
fn meant_for(stream: &Io, kept: Kept, virtuals: &Virtuals) -> Result<Lead, Reason> {
    let tcp = stream.tcp().ok_or(Reason::Internal)?;
    let address = original_destination(tcp, kept).map_err(|_| Reason::UnknownService)?;
    virtuals.lead(address)
}
