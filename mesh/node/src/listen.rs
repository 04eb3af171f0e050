//! The listeners of a node, each bound and announced before anything runs.

use std::net::{SocketAddr, TcpListener};

use eastway_telemetry::logging::listening;
use eastway_transport::tcp;

use crate::NodeError;

/// The listener of the setting `what`, on `address`.
///
/// # Errors
/// [`NodeError::Listen`].
pub fn single(what: &'static str, address: SocketAddr) -> Result<TcpListener, NodeError> {
    let listener = tcp::bind(address).map_err(NodeError::listen(what, address))?;
    listening(what, listener.local_addr().unwrap_or(address));
    Ok(listener)
}

/// The listeners of the setting `what`, one for each of `workers`, all on `address`.
///
/// # Errors
/// [`NodeError::Listen`].
pub fn shared(what: &'static str, address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, NodeError> {
    let listeners = tcp::bind_reuseport(address, workers).map_err(NodeError::listen(what, address))?;
    if let Some(address) = listeners.first().and_then(|listener| listener.local_addr().ok()) {
        listening(what, address);
    }
    Ok(listeners)
}
