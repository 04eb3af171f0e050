//! Connections to a name's own address: where they lead is known before anything is read.

use std::rc::Rc;

use eastway_core::resource::Protocol;
use eastway_http::server::ServerOptions;
use eastway_transport::{Io, accept};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::target::Target;
use super::{connection, detect, opaque};
use crate::virtuals::Opened;
use crate::worker::Worker;

/// The listener's name in logs.
const LISTENER: &str = "a name's address";

/// Accepts connections at the addresses that are handed over, until nobody hands over any more.
pub(crate) async fn listen(worker: Rc<Worker>, mut taken: mpsc::UnboundedReceiver<Opened>) {
    let options = super::options(&worker);
    loop {
        let opened = tokio::select! {
            opened = taken.recv() => opened,
            () = worker.node.draining.wait() => return,
        };
        let Some(opened) = opened else { return };
        tokio::task::spawn_local(serve(Rc::clone(&worker), opened, Rc::clone(&options)));
    }
}

async fn serve(worker: Rc<Worker>, opened: Opened, options: Rc<ServerOptions>) {
    let Opened { listener, lead, mut closed } = opened;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "a name's address cannot be served"),
    };
    let stop = async {
        tokio::select! {
            () = worker.node.draining.wait() => {}
            // It never changes: it ends.
            _ = closed.changed() => {}
        }
    };
    let admit = || Some((worker.outbound_place()?, lead.used.begin()));
    let target = Rc::new(Target::new(lead.clone(), &worker.node.config.suffix));
    accept::each(listener, LISTENER, stop, admit, |stream| {
        let (worker, options, target) = (Rc::clone(&worker), Rc::clone(&options), Rc::clone(&target));
        async move { self::lead(worker, stream, &options, target).await }
    })
    .await;
}

/// Leads a connection to the target by what is spoken there.
pub(super) async fn lead(worker: Rc<Worker>, stream: Io, options: &ServerOptions, target: Rc<Target>) {
    match target.lead.protocol {
        Protocol::Tcp => opaque::connect(worker, stream, Rc::clone(&target.text)).await,
        Protocol::Auto => detect::lead(worker, stream, options, target).await,
        Protocol::Http | Protocol::Grpc => connection(worker, stream, options, Some(target)).await,
    }
}
