//! The discovery listener: accepts workloads of the own trust domain, and serves each connection.
//!
//! Handshakes and connections have places of their own, as on the data path's listeners.

use std::sync::Arc;

use eastway_identity::{Expected, Identity};
use eastway_resilience::limits::Limit;
use eastway_runtime::tasks::TaskGroup;
use eastway_runtime::{descriptors, throttled};
use eastway_transport::Io;
use eastway_transport::accept::Handshakes;
use eastway_transport::tcp::{self, DialOptions};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::discovery;
use crate::hub::Hub;

/// Accepts until it is dropped.
pub(crate) async fn run(hub: Arc<Hub>, listener: TcpListener, identity: Arc<Identity>, tasks: TaskGroup) {
    let tls = eastway_identity::server_config(&identity, Expected::AnyWorkload, &[b"h2"]);
    let room = Limit::new(hub.options.max_connections);
    let handshakes = Handshakes::new("discovery.listen", &hub.options.handshakes);
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                throttled!(warn, error = %error, "cannot accept a discovery connection");
                sleep(hub.options.heartbeat / 10).await;
                continue;
            }
        };
        if !descriptors::spare(&stream) {
            throttled!(warn, %address, "turned a discovery connection away: hardly any descriptors are left");
            continue;
        }
        if let Err(error) = tcp::tune(&stream, &DialOptions::default()) {
            tracing::debug!(error = %error, "a discovery connection ended before it began");
            continue;
        }
        let (hub, tls, connections) = (Arc::clone(&hub), tls.clone(), tasks.clone());
        let (handshakes, room) = (Arc::clone(&handshakes), Arc::clone(&room));
        let name = format!("discovery connection of {address}");
        tasks.spawn_loop(name, async move {
            let Some((io, peer)) = handshakes.shake(Io::from(stream), tls).await else { return };
            let Some(_place) = room.try_acquire() else {
                throttled!(warn, %peer, "turned a discovery connection away: the limit of connections is reached");
                return;
            };
            discovery::serve(hub, io, Some(peer), address.ip(), &connections).await;
        });
    }
}
