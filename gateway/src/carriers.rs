//! What carries the tunnels of a runtime: one carrier for each transport that the configuration names.

use std::sync::Arc;
use std::time::Duration;

use eastway_core::Reason;
use eastway_core::view::Transport;
use eastway_transport::tcp_tunnel::TcpArrivals;
use eastway_transport::tunnel::{Carrier, IncomingTunnel, Kind};
use futures_util::future::{join_all, select_all};

/// Carriers in the order of preference. Never empty. Clones are handles of the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Carriers(Arc<[Arc<dyn Carrier>]>);

impl Carriers {
    /// Of these, at least one.
    pub(crate) fn new(carriers: Vec<Arc<dyn Carrier>>) -> Self {
        Self(carriers.into())
    }

    /// The transports, the preferred one first.
    pub(crate) fn transports(&self) -> Vec<Transport> {
        self.0.iter().map(|carrier| carrier.transport()).collect()
    }

    /// The one over `transport`, or the preferred one if nobody knows better.
    pub(crate) fn over(&self, transport: Option<Transport>) -> Option<&Arc<dyn Carrier>> {
        self.0.iter().find(|carrier| transport.is_none_or(|transport| carrier.transport() == transport))
    }

    /// The next peer that wants a tunnel, over whichever transport; `None` once they are closed, which all are together.
    pub(crate) async fn accept(&self) -> Option<Box<dyn IncomingTunnel>> {
        select_all(self.0.iter().map(|carrier| carrier.accept())).await.0
    }

    /// Closes all tunnels, telling the peers why, and accepts no more.
    pub(crate) fn close(&self, reason: Reason) {
        self.0.iter().for_each(|carrier| carrier.close(reason));
    }

    /// The same, and stays until the peers were told, or `limit` is over.
    pub(crate) async fn shutdown(&self, reason: Reason, limit: Duration) {
        join_all(self.0.iter().map(|carrier| carrier.shutdown(reason, limit))).await;
    }
}

/// Where the listener of a worker leaves the tunnels over TCP that arrive.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    /// For the control runtime.
    pub(crate) control: TcpArrivals,
    /// For the worker itself.
    pub(crate) data: TcpArrivals,
}

impl Arrivals {
    /// Those of a kind.
    pub(crate) const fn of(&self, kind: Kind) -> &TcpArrivals {
        match kind {
            Kind::Control => &self.control,
            Kind::Data => &self.data,
        }
    }
}
