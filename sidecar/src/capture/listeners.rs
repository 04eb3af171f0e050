//! Where captured connections come to.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use eastway_node::NodeError;
use eastway_telemetry::logging::listening;
use eastway_transport::tcp::{self, Kept};

use crate::config::{Capture, CaptureBy, InboundMode};
use crate::worker::Worker;
use crate::{Captured, DataListeners, inbound, outbound};

/// Binds what is configured, for each worker.
///
/// # Errors
/// [`NodeError::Listen`].
pub(crate) fn bind(capture: &Capture, workers: &mut [DataListeners]) -> Result<(), NodeError> {
    let count = workers.len();
    let bound = |what, address| {
        let listeners = tcp::bind_captured(address, count, kept(capture)).map_err(NodeError::listen(what, address))?;
        if let Some(address) = listeners.first().and_then(|listener| listener.local_addr().ok()) {
            listening(what, address);
        }
        Ok(listeners)
    };
    if let Some(listen) = capture.listen {
        let four: Vec<TcpListener> = bound("capture.listen", listen)?;
        // The same port, also where any was to be had.
        let port =
            four.first().and_then(|listener| listener.local_addr().ok()).map_or_else(|| listen.port(), |at| at.port());
        workers.iter_mut().zip(four).for_each(|(worker, listener)| worker.captured.outbound.push(listener));
        if capture.prefix.is_some() {
            let six = bound("capture.listen", SocketAddr::from((Ipv6Addr::LOCALHOST, port)))?;
            workers.iter_mut().zip(six).for_each(|(worker, listener)| worker.captured.outbound.push(listener));
        }
    }
    if let Some(inbound) = capture.inbound.as_ref().filter(|inbound| inbound.mode == InboundMode::Permissive) {
        let listeners = bound("capture.inbound.listen", inbound.listen)?;
        workers.iter_mut().zip(listeners).for_each(|(worker, listener)| worker.captured.inbound = Some(listener));
    }
    Ok(())
}

/// Takes what comes to a worker's listeners, until draining begins.
///
/// # Errors
/// If a bound socket cannot be used.
pub(crate) fn listen(worker: &Rc<Worker>, capture: &Capture, captured: Captured) -> io::Result<()> {
    let kept = kept(capture);
    let Captured { outbound, virtuals, inbound } = captured;
    for listener in outbound {
        let Some(virtuals) = &virtuals else { continue };
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::task::spawn_local(outbound::captured::listen(Rc::clone(worker), listener, kept, Arc::clone(virtuals)));
    }
    if let Some(listener) = inbound {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::task::spawn_local(inbound::plain::listen(Rc::clone(worker), listener, kept));
    }
    Ok(())
}

const fn kept(capture: &Capture) -> Kept {
    match capture.via {
        CaptureBy::Redirect => Kept::Tracked,
        CaptureBy::Tproxy => Kept::Local,
    }
}
