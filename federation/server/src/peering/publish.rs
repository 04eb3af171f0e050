//! Stating to another gateway what it is to know: the whole, then what changes, and a heartbeat. Those of a peer cluster
//! hear of what is exported to it, siblings of how each endpoint does.

use std::sync::Arc;

use eastway_client::convert;
use eastway_core::spiffe::Principal;
use eastway_core::{SpiffeId, Version};
use eastway_proto::federation::v1::sync_request::Event as RequestEvent;
use eastway_proto::federation::v1::sync_response::Event;
use eastway_proto::federation::v1::{Hello, Reached, SyncRequest, SyncResponse, Welcome};
use eastway_registry::{Exporter, StateChanges, Statement};
use eastway_runtime::throttled;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tonic::{Status, Streaming};

use super::{cluster_of, hear_addresses, stated};
use crate::hub::{Hub, raised};

type Outgoing = mpsc::Sender<Result<SyncResponse, Status>>;

/// The stream is over: the peer is gone, or may not listen any more.
struct Over;

/// After so many heartbeats it is said again where this cluster's gateways are reached, so that those that went are forgotten.
const RESTATED: u32 = 10;

/// Endpoints in one message to a sibling.
const STATES: usize = 500;

/// What the other gateway was told.
struct Publisher {
    hub: Arc<Hub>,
    cluster: String,
    /// What it was told of what is exported, if it is a peer's.
    exporter: Exporter,
    outgoing: Outgoing,
    /// Its identity, once it said that it ignores this gateway.
    fenced_by: Option<String>,
    /// The version of the last statement.
    last: Version,
}

/// Runs until the stream ends.
pub(super) async fn run(hub: Arc<Hub>, peer: Arc<SpiffeId>, mut incoming: Streaming<SyncRequest>, outgoing: Outgoing) {
    let silence = hub.options.silence;
    let Ok(Ok(Some(SyncRequest { event: Some(RequestEvent::Hello(hello)) }))) =
        timeout(silence, incoming.message()).await
    else {
        return;
    };
    let Some(cluster) = admitted(&hub, &peer, &hello) else {
        throttled!(warn, peer = %peer, cluster = hello.cluster, gateway = hello.gateway, "not a declared peer");
        let status = Status::permission_denied("your cluster is not a peer of this one, or you are another gateway");
        let _ = outgoing.send(Err(status)).await;
        return;
    };
    let mut settled = hub.settled.subscribe();
    raised(&mut settled).await;
    let is_sibling = hub.read(|catalogue, _| catalogue.meta().name == cluster);
    let mut news = if is_sibling { hub.statements.subscribe() } else { hub.exports.subscribe() };
    let mut resources = hub.resources.subscribe();
    let mut draining = hub.draining.subscribe();
    let (mut siblings, mut paths) = (hub.siblings.subscribe(), hub.paths.subscribe());
    if let Some(addresses) = hello.gateways.clone().filter(|_| !is_sibling) {
        hear_addresses(&hub, &cluster, addresses);
    }
    let exporter = Exporter::new(cluster.clone());
    let mut told = Publisher { hub, cluster, exporter, outgoing, fenced_by: None, last: Version::default() };
    let whole = if is_sibling { told.all_states().await } else { told.snapshot().await };
    if whole.is_err() {
        return;
    }
    let mut heartbeats = interval(told.hub.options.heartbeat);
    let (mut announced, mut beats) = (false, 0_u32);
    loop {
        let step = tokio::select! {
            message = timeout(silence, incoming.message()) => match message {
                Ok(Ok(Some(SyncRequest { event: Some(RequestEvent::Fenced(fenced)) }))) => {
                    told.note_fence(&peer, fenced.epoch);
                    Ok(())
                }
                Ok(Ok(Some(_))) => Ok(()),
                _ => Err(Over),
            },
            Ok(()) = news.changed() => if is_sibling { told.states().await } else { told.changes().await },
            Ok(()) = resources.changed() => match admitted(&told.hub, &peer, &hello) {
                Some(cluster) if cluster == told.cluster => Ok(()),
                _ => Err(Over),
            },
            Ok(()) = siblings.changed(), if !is_sibling => told.addresses().await,
            Ok(()) = paths.changed(), if is_sibling => told.reached().await,
            _ = heartbeats.tick() => {
                beats += 1;
                match is_sibling {
                    true => told.reached().await,
                    false if beats % RESTATED == 0 => told.addresses().await,
                    false => told.say(told.last, Statement::Heartbeat).await,
                }
            }
            () = raised(&mut draining), if !announced => {
                announced = true;
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
    let other = peer.trust_domain != hub.trust_domain || *hello.gateway != *hub.gateway;
    let itself = itself && other;
    cluster_of(hub, peer).filter(|cluster| itself && *cluster == hello.cluster)
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(peer) = self.fenced_by.take() {
            self.hub.fenced_by.lock().remove(&peer);
        }
    }
}

impl Publisher {
    /// The other gateway ignores what it is told. Said once for each stream.
    fn note_fence(&mut self, peer: &SpiffeId, epoch: u64) {
        if self.fenced_by.is_none() {
            tracing::error!(
                %peer,
                own = self.hub.epoch,
                known = epoch,
                "another gateway ignores this one, because it knows a later life of it: was the store restored, or the clock set \
                 back? Starting this gateway again once the clock is right begins a life that counts"
            );
            let peer = peer.to_string();
            self.hub.fenced_by.lock().insert(peer.clone(), epoch);
            self.fenced_by = Some(peer);
        }
    }

    /// States everything.
    async fn snapshot(&mut self) -> Result<(), Over> {
        let exporter = &mut self.exporter;
        let (version, statements) = self.hub.read(|catalogue, _| exporter.snapshot(catalogue));
        self.welcome(version).await?;
        for statement in statements {
            self.say(version, statement).await?;
        }
        self.last = version;
        Ok(())
    }

    async fn welcome(&self, version: Version) -> Result<(), Over> {
        let meta = self.hub.read(|catalogue, _| catalogue.meta().clone());
        let welcome = Welcome { cluster: Some(convert::cluster_to_wire(&meta)), gateway: self.hub.gateway.to_string() };
        self.send(SyncResponse {
            epoch: version.epoch,
            seq: version.seq,
            event: Some(Event::Welcome(welcome)),
            gateways: Some(stated(&self.hub)),
            ..SyncResponse::default()
        })
        .await
    }

    /// States how all endpoints do.
    async fn all_states(&mut self) -> Result<(), Over> {
        let ((version, states), left) =
            self.hub.read(|catalogue, _| (catalogue.statements(), catalogue.deregistrations()));
        self.welcome(version).await?;
        let states: Vec<_> = states.iter().map(|(key, state)| (key, Some(state))).collect();
        for some in states.chunks(STATES) {
            self.send(convert::states_to_wire(version, some.iter().copied())).await?;
        }
        self.say(version, Statement::SnapshotEnd(states.len())).await?;
        self.state_all(version, &left).await?;
        self.last = version;
        Ok(())
    }

    /// States how those do that do otherwise than was stated. The sibling begins again if too much of that is forgotten.
    async fn states(&mut self) -> Result<(), Over> {
        let changes = self.hub.read(|catalogue, _| catalogue.statements_since(self.last.seq));
        let (version, changes) = changes.ok_or(Over)?;
        self.state_all(version, &changes).await?;
        self.last = version;
        Ok(())
    }

    async fn state_all(&self, version: Version, changes: &StateChanges) -> Result<(), Over> {
        for some in changes.chunks(STATES) {
            let states = some.iter().map(|(key, state)| (key, state.as_ref()));
            self.send(convert::states_to_wire(version, states)).await?;
        }
        Ok(())
    }

    /// States what changed, in the order in which it did.
    async fn changes(&mut self) -> Result<(), Over> {
        let exporter = &mut self.exporter;
        for (version, statement) in self.hub.read(|catalogue, _| exporter.changes(catalogue)) {
            self.say(version, statement).await?;
            self.last = version;
        }
        Ok(())
    }

    /// A sign of life, with where the gateways of this cluster are reached.
    async fn addresses(&self) -> Result<(), Over> {
        self.send(SyncResponse { gateways: Some(stated(&self.hub)), ..self.heartbeat() }).await
    }

    /// A sign of life, with the peers that this gateway reaches.
    async fn reached(&self) -> Result<(), Over> {
        let clusters = self.hub.read(|catalogue, _| catalogue.reached().cloned().collect());
        self.send(SyncResponse { reached: Some(Reached { clusters }), ..self.heartbeat() }).await
    }

    fn heartbeat(&self) -> SyncResponse {
        convert::statement_to_wire(self.last, &Statement::Heartbeat, self.hub.clock.now())
    }

    async fn say(&self, version: Version, statement: Statement) -> Result<(), Over> {
        self.send(convert::statement_to_wire(version, &statement, self.hub.clock.now())).await
    }

    async fn send(&self, message: SyncResponse) -> Result<(), Over> {
        self.outgoing.send(Ok(message)).await.map_err(|_| Over)
    }
}
