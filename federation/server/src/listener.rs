//! The discovery listener: accepts workloads of the own trust domain, and serves each connection.

use std::sync::Arc;

use eastway_identity::{Expected, Identity};
use eastway_runtime::tasks::TaskGroup;
use eastway_transport::tcp::{self, DialOptions};
use eastway_transport::{Io, tls};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::discovery;
use crate::hub::Hub;

/// Accepts until it is dropped.
pub(crate) async fn run(hub: Arc<Hub>, listener: TcpListener, identity: Arc<Identity>, tasks: TaskGroup) {
    let config = eastway_identity::server_config(&identity, Expected::AnyWorkload, &[b"h2"]);
    let room = Arc::new(Semaphore::new(hub.options.max_connections));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a discovery connection");
                sleep(hub.options.heartbeat / 10).await;
                continue;
            }
        };
        let (hub, config, connections) = (Arc::clone(&hub), Arc::clone(&config), tasks.clone());
        let name = format!("discovery connection of {address}");
        tasks.spawn_loop(name, async move {
            let _place = place;
            match timeout(hub.options.handshake_timeout, shake_hands(stream, config)).await {
                Ok(Ok(io)) => {
                    let peer = io.peer_id();
                    discovery::serve(hub, io, peer, address.ip(), &connections).await;
                }
                Ok(Err(error)) => tracing::info!(%address, error = %error, "a discovery connection is refused"),
                Err(_) => tracing::info!(%address, "a discovery connection did not complete its handshake in time"),
            }
        });
    }
}

async fn shake_hands(stream: TcpStream, config: Arc<rustls::ServerConfig>) -> Result<Io, tls::TlsError> {
    if let Err(error) = tcp::tune(&stream, &DialOptions::default()) {
        tracing::debug!(error = %error, "cannot tune a discovery connection");
    }
    tls::accept(Io::from(stream), config).await
}
