//! What keeps a node of either role from running.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use eastway_core::SpiffeId;

/// Why a node cannot run, whatever its role. The causes are in `source()`.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The certificate files cannot be used.
    #[error("the identity cannot be loaded; see `identity` in the configuration")]
    Identity(#[source] eastway_identity::LoadError),
    /// The certificate is genuine, but for another role: nobody would talk to this node.
    #[error("`{id}` is not the identity of a {wanted}; see `identity` in the configuration")]
    Role {
        /// Whose certificate it is.
        id: Arc<SpiffeId>,
        /// What this node has to be.
        wanted: &'static str,
    },
    /// An address cannot be bound.
    #[error("cannot listen on {address} (`{what}` in the configuration)")]
    Listen {
        /// Which listener.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// Traces cannot be exported.
    #[error("the trace exporter cannot be started; see `telemetry.otlp` in the configuration")]
    Tracing(#[source] eastway_telemetry::trace::TraceError),
    /// A thread or a runtime cannot be created.
    #[error("the operating system gives no threads")]
    Threads(#[source] io::Error),
    /// A worker died.
    #[error("a data worker failed")]
    Worker(#[source] eastway_runtime::workers::WorkersError),
}

impl NodeError {
    /// What `what` failing to listen on `address` means, once it is known why.
    pub fn listen(what: &'static str, address: SocketAddr) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Listen { what, address, source }
    }
}
