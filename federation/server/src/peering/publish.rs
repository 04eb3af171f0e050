//! Stating to a peer's gateway what is exported to its cluster: the whole, then what changes, and a heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use eastway_client::convert;
use eastway_core::spiffe::Principal;
use eastway_core::{ServiceName, SpiffeId, Version};
use eastway_proto::federation::v1::sync_request::Event as Say;
use eastway_proto::federation::v1::sync_response::Event;
use eastway_proto::federation::v1::{Hello, SyncRequest, SyncResponse, Welcome};
use eastway_registry::Statement;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tonic::{Status, Streaming};

use super::incoming::cluster_of;
use crate::hub::{Hub, raised};

type Outgoing = mpsc::Sender<Result<SyncResponse, Status>>;

/// The stream is over: the peer is gone, or may not listen any more.
struct Over;

/// What the peer was told.
struct Told {
    hub: Arc<Hub>,
    cluster: String,
    outgoing: Outgoing,
    /// The version of the last statement.
    last: Version,
    services: BTreeMap<ServiceName, u64>,
}

/// Runs until the stream ends.
pub(super) async fn run(hub: Arc<Hub>, peer: Arc<SpiffeId>, mut incoming: Streaming<SyncRequest>, outgoing: Outgoing) {
    let silence = hub.options.silence;
    let Ok(Ok(Some(SyncRequest { event: Some(Say::Hello(hello)) }))) = timeout(silence, incoming.message()).await
    else {
        return;
    };
    let Some(cluster) = admitted(&hub, &peer, &hello) else {
        tracing::warn!(peer = %peer, cluster = hello.cluster, gateway = hello.gateway, "not a declared peer");
        let status = Status::permission_denied("your cluster is not a peer of this one, or you are another gateway");
        let _ = outgoing.send(Err(status)).await;
        return;
    };
    let mut settled = hub.settled.subscribe();
    raised(&mut settled).await;
    let mut exports = hub.exports.subscribe();
    let mut resources = hub.resources.subscribe();
    let mut draining = hub.draining.subscribe();
    let mut told = Told { hub, cluster, outgoing, last: Version::default(), services: BTreeMap::new() };
    if told.snapshot().await.is_err() {
        return;
    }
    let mut heartbeats = interval(told.hub.options.heartbeat);
    let mut leaving = false;
    loop {
        let step = tokio::select! {
            message = timeout(silence, incoming.message()) => match message {
                Ok(Ok(Some(_))) => Ok(()),
                _ => Err(Over),
            },
            Ok(()) = exports.changed() => told.changes().await,
            Ok(()) = resources.changed() => match admitted(&told.hub, &peer, &hello) {
                Some(cluster) if cluster == told.cluster => Ok(()),
                _ => Err(Over),
            },
            _ = heartbeats.tick() => told.say(told.last, Statement::Heartbeat).await,
            () = raised(&mut draining), if !leaving => {
                leaving = true;
                told.say(told.last, Statement::GoAway).await
            }
        };
        if step.is_err() {
            return;
        }
    }
}

/// The peer's cluster, if it says of itself what its certificate says.
fn admitted(hub: &Hub, peer: &SpiffeId, hello: &Hello) -> Option<String> {
    let itself = matches!(&peer.principal, Principal::Gateway(id) if *id == hello.gateway);
    cluster_of(hub, peer).filter(|cluster| itself && *cluster == hello.cluster)
}

impl Told {
    /// States everything.
    async fn snapshot(&mut self) -> Result<(), Over> {
        let (exports, version, meta) = self.hub.read(|catalogue, _| {
            (catalogue.exports_for(&self.cluster), catalogue.export_version(), catalogue.meta().clone())
        });
        let welcome = Welcome { cluster: Some(convert::cluster_to_wire(&meta)), gateway: self.hub.gateway.to_string() };
        let message = SyncResponse { epoch: version.epoch, seq: version.seq, event: Some(Event::Welcome(welcome)) };
        self.outgoing.send(Ok(message)).await.map_err(|_| Over)?;
        let count = exports.len();
        for (name, export) in exports {
            self.services.insert(name.clone(), export.seq);
            self.say(version, Statement::Service(name, (*export.exported).clone())).await?;
        }
        self.say(version, Statement::SnapshotEnd(count)).await?;
        self.last = version;
        Ok(())
    }

    /// States what changed, in the order in which it did.
    async fn changes(&mut self) -> Result<(), Over> {
        let (exports, version) =
            self.hub.read(|catalogue, _| (catalogue.exports_for(&self.cluster), catalogue.export_version()));
        let mut changes: Vec<(u64, Statement)> = Vec::new();
        self.services.retain(|name, _| {
            let kept = exports.contains_key(name);
            if !kept {
                changes.push((version.seq, Statement::Removed(name.clone())));
            }
            kept
        });
        for (name, export) in exports {
            if self.services.insert(name.clone(), export.seq) != Some(export.seq) {
                changes.push((export.seq, Statement::Service(name, (*export.exported).clone())));
            }
        }
        changes.sort_by_key(|(seq, _)| *seq);
        for (seq, statement) in changes {
            let version = Version::new(version.epoch, seq);
            self.say(version, statement).await?;
            self.last = version;
        }
        Ok(())
    }

    async fn say(&self, version: Version, statement: Statement) -> Result<(), Over> {
        let message = convert::statement_to_wire(version, &statement, self.hub.clock.now());
        self.outgoing.send(Ok(message)).await.map_err(|_| Over)
    }
}
