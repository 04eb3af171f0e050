//! Operators who come from elsewhere: the administration server over mutual TLS, for those who show an operator's certificate of
//! this cluster.

use std::sync::Arc;

use eastway_identity::{Expected, server_config};
use eastway_node::admin::{self, Operator};
use eastway_resilience::limits::Limit;
use eastway_runtime::http::{Handler, serve_one};
use eastway_runtime::tasks::TaskGroup;
use eastway_runtime::{descriptors, throttled};
use eastway_transport::Io;
use eastway_transport::accept::Handshakes;
use eastway_transport::tcp::{self, DialOptions};
use tokio::net::TcpListener;
use tokio::time::{Duration, sleep};

use crate::node::GatewayNode;

/// The listener's name in logs.
const LISTENER: &str = "operators.listen";
/// Connections at once.
const CONNECTIONS: u32 = 64;
/// The pause after the operating system refuses to accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until it is dropped.
pub(crate) async fn listen(node: Arc<GatewayNode>, listener: TcpListener, tasks: TaskGroup) {
    let expected = Expected::Operator { trust_domain: node.config.trust_domain.clone() };
    let tls = server_config(&node.identity, expected, &[b"http/1.1"]);
    let (room, handshakes) = (Limit::new(CONNECTIONS), Handshakes::new(LISTENER, &node.config.handshakes()));
    let (handler, options) = (admin::handler(&node), Arc::new(admin::options()));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                throttled!(warn, error = %error, "cannot accept an operator's connection");
                sleep(PAUSE).await;
                continue;
            }
        };
        if !descriptors::spare(&stream) || tcp::tune(&stream, &DialOptions::default()).is_err() {
            throttled!(warn, %address, "turned an operator's connection away: it ended, or hardly any descriptors are left");
            continue;
        }
        let (tls, handshakes, room) = (tls.clone(), Arc::clone(&handshakes), Arc::clone(&room));
        let (handler, options) = (Arc::clone(&handler), Arc::clone(&options));
        tasks.spawn_loop(format!("operator's connection of {address}"), async move {
            let Some((io, id)) = handshakes.shake(Io::from(stream), tls).await else { return };
            let Some(_place) = room.try_acquire() else {
                throttled!(warn, operator = %id, "turned an operator away: the limit of connections is reached");
                return;
            };
            let Some(name) = id.operator() else { return };
            tracing::info!(operator = name, %address, "an operator connects");
            serve_one(io, as_operator(handler, name), options).await;
        });
    }
}

/// Answers requests as those of the operator `name`.
fn as_operator(handler: Handler, name: &str) -> Handler {
    let operator = Operator(name.to_owned());
    Arc::new(move |mut request| {
        request.extensions_mut().insert(operator.clone());
        handler(request)
    })
}
