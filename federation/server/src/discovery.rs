//! The discovery service, for one sidecar's connection.

use std::net::IpAddr;
use std::sync::Arc;

use eastway_core::SpiffeId;
use eastway_core::spiffe::Principal;
use eastway_proto::discovery::v1::discovery_server::{Discovery, DiscoveryServer};
use eastway_proto::discovery::v1::{RegisterRequest, RegisterResponse, SubscribeRequest, SubscribeResponse};
use eastway_runtime::tasks::TaskGroup;
use eastway_runtime::throttled;
use eastway_transport::Io;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::grpc;
use crate::hub::{Hub, raised};

mod flips;
mod register;
mod subscribe;
mod told;

/// How many messages wait for a slow sidecar: few, because those behind them are formed when there is room.
const MESSAGES: usize = 4;
/// The largest message that a sidecar may send.
const MAX_MESSAGE: usize = 1 << 20;

/// Serves one connection, which comes from `from`. The identity was verified; here it is checked that it is a workload of
/// this cluster.
pub(crate) async fn serve(hub: Arc<Hub>, io: Io, peer: Option<Arc<SpiffeId>>, from: IpAddr, tasks: &TaskGroup) {
    let own = |peer: &Arc<SpiffeId>| peer.is_workload() && peer.trust_domain == hub.trust_domain;
    let Some(peer) = peer.clone().filter(own) else {
        throttled!(warn, peer = peer.map(tracing::field::display), "discovery is for workloads of this cluster");
        return;
    };
    let silence = hub.options.silence;
    let mut draining = hub.draining.subscribe();
    let service =
        DiscoveryServer::new(Sidecar { hub, peer, from, tasks: tasks.clone() }).max_decoding_message_size(MAX_MESSAGE);
    grpc::serve(io, service, silence, raised(&mut draining)).await;
}

/// The service as one sidecar sees it.
#[derive(Clone, Debug)]
struct Sidecar {
    hub: Arc<Hub>,
    peer: Arc<SpiffeId>,
    from: IpAddr,
    tasks: TaskGroup,
}

#[tonic::async_trait]
impl Discovery for Sidecar {
    type RegisterStream = ReceiverStream<Result<RegisterResponse, Status>>;
    type SubscribeStream = ReceiverStream<Result<SubscribeResponse, Status>>;

    async fn register(
        &self,
        request: Request<Streaming<RegisterRequest>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let Principal::Workload { namespace, account } = &self.peer.principal else {
            return Err(Status::permission_denied("only workloads register"));
        };
        let (outgoing, responses) = mpsc::channel(MESSAGES);
        let caller = register::Caller { namespace: namespace.clone(), account: account.clone(), from: self.from };
        let run = register::run(Arc::clone(&self.hub), caller, request.into_inner(), outgoing);
        self.tasks.spawn_loop(format!("registration by {}", self.peer), run);
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (outgoing, responses) = mpsc::channel(MESSAGES);
        let run = subscribe::run(Arc::clone(&self.hub), request.into_inner(), outgoing);
        self.tasks.spawn_loop(format!("subscription by {}", self.peer), run);
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}
