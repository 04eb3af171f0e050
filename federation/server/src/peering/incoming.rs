//! A control connection that a peer's gateway opened.

use std::sync::Arc;

use eastway_core::{Reason, SpiffeId};
use eastway_proto::federation::v1::federation_server::{Federation, FederationServer};
use eastway_proto::federation::v1::{SyncRequest, SyncResponse};
use eastway_runtime::tasks::TaskGroup;
use eastway_runtime::throttled;
use eastway_transport::{Io, Tunnel};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{PINGS, STATEMENTS, cluster_of, ping, publish};
use crate::grpc;
use crate::hub::Hub;

/// The largest message that a peer that listens may send: it says who it is, and that it lives.
const MAX_MESSAGE: usize = 64 << 10;

/// How many messages wait for a slow peer.
const MESSAGES: usize = 16;

/// Serves a connection until it ends. Its certificate was verified; here it must be a gateway of a declared peer.
pub(crate) async fn serve(hub: Arc<Hub>, tunnel: Arc<dyn Tunnel>, tasks: TaskGroup) {
    let peer = Arc::clone(tunnel.peer());
    let Some(cluster) = cluster_of(&hub, &peer) else {
        throttled!(warn, peer = %peer, "a control connection of nobody's peer is refused");
        tunnel.close(Reason::IdentityRefused);
        return;
    };
    let transport = tunnel.transport();
    hub.arrivals.send_modify(|arrivals| *arrivals.entry((cluster, transport)).or_default() += 1);
    let _calling = hub.calls(&peer, transport);
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            io = tunnel.accept_raw() => {
                let Some(io) = io else { return };
                if streams.len() >= hub.options.peering.max_streams {
                    io.abort(Reason::Overloaded);
                    continue;
                }
                let (hub, peer, tasks) = (Arc::clone(&hub), Arc::clone(&peer), tasks.clone());
                streams.spawn(serve_stream(hub, peer, io, tasks));
            }
            _ = streams.join_next(), if !streams.is_empty() => {}
        }
    }
}

async fn serve_stream(hub: Arc<Hub>, peer: Arc<SpiffeId>, mut io: Io, tasks: TaskGroup) {
    match timeout(hub.options.silence, io.read_u8()).await {
        Ok(Ok(PINGS)) => ping::answer(&hub, io).await,
        Ok(Ok(STATEMENTS)) => {
            let silence = hub.options.silence;
            let service =
                FederationServer::new(PeerGateway { hub, peer, tasks }).max_decoding_message_size(MAX_MESSAGE);
            grpc::serve(io, service, silence, std::future::pending()).await;
        }
        Ok(Ok(_)) => io.abort(Reason::MalformedOpen),
        Ok(Err(_)) | Err(_) => {}
    }
}

/// The service as one peer's gateway sees it.
#[derive(Clone, Debug)]
struct PeerGateway {
    hub: Arc<Hub>,
    peer: Arc<SpiffeId>,
    tasks: TaskGroup,
}

#[tonic::async_trait]
impl Federation for PeerGateway {
    type SyncStream = ReceiverStream<Result<SyncResponse, Status>>;

    async fn sync(&self, request: Request<Streaming<SyncRequest>>) -> Result<Response<Self::SyncStream>, Status> {
        let (outgoing, responses) = mpsc::channel(MESSAGES);
        let run = publish::run(Arc::clone(&self.hub), Arc::clone(&self.peer), request.into_inner(), outgoing);
        self.tasks.spawn_loop(format!("statements to {}", self.peer), run);
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}
