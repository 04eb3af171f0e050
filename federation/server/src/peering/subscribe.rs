//! Listening to another gateway: one gRPC stream of statements after the other, over one control connection.

use std::io;

use eastway_client::convert::{self, ConvertError};
use eastway_client::link::channel_over;
use eastway_core::Version;
use eastway_core::resource::ClusterMeta;
use eastway_core::spiffe::Principal;
use eastway_proto::discovery::v1::Heartbeat;
use eastway_proto::federation::v1::federation_client::FederationClient;
use eastway_proto::federation::v1::sync_request::Event as RequestEvent;
use eastway_proto::federation::v1::sync_response::Event as ResponseEvent;
use eastway_proto::federation::v1::{Fenced, Hello, SyncRequest, SyncResponse};
use eastway_registry::membership::is_plausible;
use eastway_registry::{EndpointState, Fact, Key, Options, Reader, StreamId, SyncError};
use eastway_runtime::throttled;
use eastway_transport::Tunnel;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::path::Path;
use super::{STATEMENTS, hear_addresses, stated};
use crate::hub::Hub;

/// The largest message that a peer may send: many times what a service needs with as many zones, ports and accounts as
/// are taken, and a part of what a sidecar reads.
const MAX_MESSAGE: usize = 1 << 20;

/// Why a stream of statements ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("the stream cannot be opened: {0}")]
    Open(eastway_transport::OpenError),
    #[error("the stream broke")]
    Broken(#[source] io::Error),
    #[error("the peer refuses")]
    Status(#[source] Box<tonic::Status>),
    #[error("the peer is silent")]
    Silent,
    #[error("the peer ended the stream")]
    Ended,
    #[error("the peer's message cannot be read")]
    Malformed(#[source] ConvertError),
    #[error("the peer contradicts itself")]
    Contradiction(#[source] SyncError),
    #[error("the gateway says it is in epoch {0}, which lies far ahead of the clock: its clock or this one is wrong")]
    Epoch(u64),
    #[error("the gateway says it is {said}, but its certificate says {shown}")]
    Impostor { said: String, shown: String },
}

/// Runs until it is dropped.
pub(super) async fn run(path: &Path, tunnel: &dyn Tunnel) {
    loop {
        if let Err(error) = listen(path, tunnel).await {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            throttled!(warn, cluster = path.cluster, address = path.address, error = %error, cause,
                "no statements from a peer's gateway");
        }
        sleep(path.hub.options.peering.resync_pause).await;
    }
}

/// One stream, until it fails.
async fn listen(path: &Path, tunnel: &dyn Tunnel) -> Result<(), StreamError> {
    let hub = &path.hub;
    let options = hub.options.link();
    let mut io = tunnel.open_raw().await.map_err(StreamError::Open)?;
    io.write_u8(STATEMENTS).await.map_err(StreamError::Broken)?;
    let channel = channel_over(io, &options).await.map_err(StreamError::Broken)?;
    let (requests, outgoing) = mpsc::channel(4);
    let hello = Hello {
        cluster: hub.read(|c, _| c.meta().name.clone()),
        gateway: hub.gateway.to_string(),
        gateways: (!path.leads_to_sibling()).then(|| stated(hub)),
    };
    // There is room: the channel is new.
    let _ = requests.try_send(SyncRequest { event: Some(RequestEvent::Hello(hello)) });
    let most = if path.leads_to_sibling() { options.max_message } else { MAX_MESSAGE };
    let mut client = FederationClient::new(channel).max_decoding_message_size(most);
    let opening = timeout(options.silence, client.sync(ReceiverStream::new(outgoing))).await;
    let mut incoming = opening.map_err(|_| StreamError::Silent)?.map_err(refused)?.into_inner();
    let (meta, gateway, version) = welcome(path, tunnel, &mut incoming).await?;
    if let Some(epoch) = hub.read(|catalogue, _| catalogue.later_life(&meta, &gateway, version.epoch)) {
        tracing::warn!(
            cluster = path.cluster,
            gateway,
            stated = version.epoch,
            known = epoch,
            "a gateway is ignored, because a later life of it is known; it is told so"
        );
        let _ = requests.try_send(SyncRequest { event: Some(RequestEvent::Fenced(Fenced { epoch })) });
    }
    path.note(|facts| (facts.gateway, facts.draining) = (Some(gateway.clone()), false));
    let mut listener = Listener::new(path, &gateway, version);
    let mut heartbeats = interval(options.heartbeat);
    loop {
        let message = tokio::select! {
            message = next(&mut incoming, options.silence) => message?,
            _ = heartbeats.tick() => {
                // A full channel means that the peer does not read; its own silence limit ends the stream.
                let _ = requests.try_send(SyncRequest { event: Some(RequestEvent::Heartbeat(Heartbeat {})) });
                continue;
            }
        };
        match &mut listener {
            Listener::Peer(reader) => hear_peer(path, reader, (&meta, &gateway), message)?,
            Listener::Sibling(sibling) => sibling.hear(message)?,
        }
    }
}

/// Reads the statements of one stream.
enum Listener<'a> {
    Peer(Reader),
    Sibling(Sibling<'a>),
}

impl<'a> Listener<'a> {
    fn new(path: &'a Path, gateway: &'a str, version: Version) -> Self {
        let Options { max_exported, max_endpoints, .. } = path.hub.options.registry;
        if path.leads_to_sibling() {
            let reader = Reader::new(version, max_endpoints);
            Self::Sibling(Sibling { hub: &path.hub, stream: path.hub.name_stream(), gateway, reader })
        } else {
            Self::Peer(Reader::new(version, max_exported))
        }
    }
}

fn hear_peer(
    path: &Path,
    reader: &mut Reader,
    (meta, gateway): (&ClusterMeta, &str),
    mut message: SyncResponse,
) -> Result<(), StreamError> {
    if let Some(addresses) = message.gateways.take() {
        hear_addresses(&path.hub, &path.cluster, addresses);
    }
    let received = path.hub.clock.now();
    let (version, statement) = convert::statement_from_wire(message, received).map_err(StreamError::Malformed)?;
    let Some(fact) = reader.read(version, statement).map_err(StreamError::Contradiction)? else { return Ok(()) };
    if fact == Fact::GoAway {
        path.note(|facts| facts.draining = true);
    }
    path.hub.change(|catalogue, now| catalogue.peer_fact(meta, gateway, version.epoch, fact, now));
    Ok(())
}

/// The stream of a sibling's statements. When it ends, the sibling no longer speaks for its endpoints.
struct Sibling<'a> {
    hub: &'a Hub,
    stream: StreamId,
    gateway: &'a str,
    reader: Reader<Key, EndpointState>,
}

impl Sibling<'_> {
    fn hear(&mut self, mut message: SyncResponse) -> Result<(), StreamError> {
        let reached = message.reached.take();
        let (version, statements) = convert::sibling_statements_from_wire(message).map_err(StreamError::Malformed)?;
        let mut facts = Vec::new();
        for statement in statements {
            facts.extend(self.reader.read(version, statement).map_err(StreamError::Contradiction)?);
        }
        self.hub.change(|catalogue, now| {
            catalogue.sibling_facts(self.stream, self.gateway, version.epoch, facts, now);
            if let Some(reached) = reached {
                catalogue.sibling_reaches(self.stream, self.gateway, reached.clusters.into_iter().collect());
            }
        });
        Ok(())
    }
}

impl Drop for Sibling<'_> {
    fn drop(&mut self) {
        self.hub.change(|catalogue, now| catalogue.sibling_lost(self.stream, self.gateway, now));
        self.hub.probe.notify_one();
    }
}

/// The first message: who speaks. It must be whom the certificate names, of the cluster that was declared.
async fn welcome(
    path: &Path,
    tunnel: &dyn Tunnel,
    incoming: &mut Streaming<SyncResponse>,
) -> Result<(ClusterMeta, String, Version), StreamError> {
    let first = next(incoming, path.hub.options.silence).await?;
    let version = Version::new(first.epoch, first.seq);
    if !is_plausible(version.epoch, (path.hub.options.wall_clock)()) {
        return Err(StreamError::Epoch(version.epoch));
    }
    let missing = |what: &str| StreamError::Malformed(ConvertError { field: "event", problem: what.to_owned() });
    let Some(ResponseEvent::Welcome(welcome)) = first.event else { return Err(missing("no welcome")) };
    let meta = convert::cluster_from_wire(welcome.cluster.ok_or_else(|| missing("a welcome without a cluster"))?)
        .map_err(StreamError::Malformed)?;
    let shown = tunnel.peer();
    let itself = matches!(&shown.principal, Principal::Gateway(id) if *id == welcome.gateway);
    let oneself =
        meta.uid == path.hub.read(|catalogue, _| catalogue.meta().uid.clone()) && *welcome.gateway == *path.hub.gateway;
    if !itself || oneself || meta.name != path.cluster || meta.trust_domain != shown.trust_domain {
        let said = format!("{} of {} in {}", welcome.gateway, meta.name, meta.trust_domain);
        return Err(StreamError::Impostor { said, shown: shown.to_string() });
    }
    if let Some(addresses) = first.gateways.filter(|_| !path.leads_to_sibling()) {
        hear_addresses(&path.hub, &path.cluster, addresses);
    }
    Ok((meta, welcome.gateway, version))
}

async fn next(
    incoming: &mut Streaming<SyncResponse>,
    silence: std::time::Duration,
) -> Result<SyncResponse, StreamError> {
    let message = timeout(silence, incoming.message()).await.map_err(|_| StreamError::Silent)?;
    message.map_err(refused)?.ok_or(StreamError::Ended)
}

fn refused(status: tonic::Status) -> StreamError {
    StreamError::Status(Box::new(status))
}
