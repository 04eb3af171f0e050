//! The resources that count: those of this gateway's files, and those that were applied.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use eastway_admission::{Cluster, Declared, Live, LivePeer, LiveService};
use eastway_core::Timestamp;
use eastway_core::resource::ResourceId;
use eastway_core::view::EndpointView;
use eastway_identity::Identity;
use eastway_proto::discovery::v1::RegisterRejected;
use eastway_proto::discovery::v1::register_rejected::Cause;
use eastway_registry::Resources;
use eastway_registry::membership::RETRY;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::stored::Stored;
use super::{BundleError, take};
use crate::document::Documents;
use crate::error::StartError;
use crate::hub::Hub;
use crate::store::{Change, Follower, Store, keys};

/// Workloads and peers that there are have spoken to a gateway after so long.
const SPOKEN: Duration = Duration::from_secs(10);

/// What this gateway's files declare.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The documents.
    pub declared: Vec<Declared>,
    resources: Resources,
}

impl Files {
    /// Of documents that were admitted.
    ///
    /// # Errors
    /// A peer's bundle is none.
    pub fn new(declared: Vec<Declared>) -> Result<Self, BundleError> {
        let mut resources = Resources::default();
        declared.iter().try_for_each(|one| take(&mut resources, &one.resource))?;
        Ok(Self { declared, resources })
    }

    fn documents(&self) -> Documents {
        self.declared.iter().map(|one| (one.resource.id().into(), one.document.clone())).collect()
    }

    fn owner(&self, id: &ResourceId) -> Option<&Declared> {
        self.declared.iter().find(|declared| declared.resource.id() == *id)
    }
}

#[cfg(test)]
impl From<Resources> for Files {
    fn from(resources: Resources) -> Self {
        Self { declared: Vec::new(), resources }
    }
}

/// A resource that was applied although a file of this gateway declares it: the file counts here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contested {
    /// The resource.
    pub id: ResourceId,
    /// The file and line.
    pub file: String,
}

/// The resources of one gateway.
#[derive(Debug)]
pub(crate) struct ResourceSet {
    pub(super) hub: Arc<Hub>,
    pub(super) store: Arc<dyn Store>,
    pub(super) cluster: Cluster,
    identity: Arc<Identity>,
    state: Mutex<State>,
    /// When this gateway began.
    since: Timestamp,
    /// Held while what counts is put into effect, so that an earlier set never comes after a later one.
    publishing: Mutex<()>,
    /// Held by whoever changes the applied ones: those of one gateway one after the other.
    pub(super) writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    files: Files,
    applied: Stored,
    contested: Vec<Contested>,
}

impl ResourceSet {
    pub(crate) fn new(
        hub: Arc<Hub>,
        store: Arc<dyn Store>,
        cluster: Cluster,
        identity: Arc<Identity>,
        files: Files,
    ) -> Arc<Self> {
        let state = Mutex::new(State { files, ..State::default() });
        let (publishing, writing) = (Mutex::default(), tokio::sync::Mutex::default());
        let since = hub.clock.now();
        Arc::new(Self { hub, store, cluster, identity, state, since, publishing, writing })
    }

    /// Reads what was applied. Waits for the store.
    pub(crate) async fn load(&self, from: &dyn Store) -> Result<(), StartError> {
        loop {
            match Stored::read(from).await {
                Ok(applied) => {
                    self.state.lock().applied = applied;
                    self.publish();
                    return Ok(());
                }
                Err(error) if error.is_transient() => {
                    tracing::warn!(error = %error, "waiting for the store");
                    sleep(RETRY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes what is applied as soon as it is. Runs until it is dropped.
    pub(crate) async fn follow(self: Arc<Self>) {
        let (mut follower, parts) = (Follower::new(&*self.store, keys::CONFIG), keys::config_part(""));
        while let Some(change) = follower.next().await {
            // Parts come before what makes them count.
            if matches!(&change, Change::Delete(_))
                || matches!(&change, Change::Put(put) if put.key.starts_with(&parts))
            {
                continue;
            }
            let Some(stored) = Stored::of(follower.known().entries().values()) else { continue };
            match change {
                // A store that was restored may have an earlier set.
                Change::Relisted(_) => self.use_applied(stored),
                _ => self.use_newer(stored),
            }
        }
    }

    /// Takes what the store holds, unless a later state of it is known.
    pub(super) fn use_newer(&self, applied: Stored) {
        if applied.revision() > self.state.lock().applied.revision() {
            self.use_applied(applied);
        }
    }

    fn use_applied(&self, applied: Stored) {
        let differs = {
            let mut state = self.state.lock();
            let before = std::mem::replace(&mut state.applied, applied);
            before.now() != state.applied.now()
        };
        if differs {
            self.publish();
        }
    }

    /// The files say something else.
    pub(crate) fn use_files(&self, files: Files) {
        self.state.lock().files = files;
        self.publish();
    }

    /// What the files declare, and what was applied.
    pub(super) fn known(&self) -> (Files, Stored) {
        let state = self.state.lock();
        (state.files.clone(), state.applied.clone())
    }

    /// Resources that were applied although a file of this gateway declares them.
    pub(crate) fn contested(&self) -> Vec<Contested> {
        self.state.lock().contested.clone()
    }

    /// Applied resources that `files` declare, too.
    pub(crate) fn contested_by(&self, files: &Files) -> Vec<Contested> {
        contested(files, &self.state.lock().applied)
    }

    /// Makes everything act on the resources that count now.
    fn publish(&self) {
        let _one = self.publishing.lock();
        let (resources, documents) = {
            let mut state = self.state.lock();
            state.contested = contested(&state.files, &state.applied);
            for Contested { id, file } in &state.contested {
                tracing::error!(resource = %id, file, "applied, and declared in a file of this gateway: the file counts here");
            }
            let mut resources = state.files.resources.clone();
            let mut documents = state.files.documents();
            for (id, document) in state.applied.now() {
                let Some(Declared { resource, .. }) = Declared::stored(&document) else {
                    tracing::warn!(resource = %id,
                        "an applied resource is of a kind that this release does not know: it has no effect here");
                    documents.insert(id, document);
                    continue;
                };
                if state.files.owner(&resource.id()).is_some() {
                    continue;
                }
                documents.insert(id, document);
                if let Err(error) = take(&mut resources, &resource) {
                    tracing::error!(%error, "an applied resource cannot be used");
                }
            }
            (resources, documents)
        };
        self.trust(&resources);
        let revoked = self.hub.change(|catalogue, now| catalogue.set_resources(resources, now));
        for stream in revoked {
            let message = "the service's accounts changed".to_owned();
            let why = RegisterRejected { cause: Cause::Identity.into(), message, highest_incarnation: 0 };
            self.hub.end_stream(stream, why);
        }
        self.hub.set_documents(documents);
    }

    /// Believes the peers' pinned CAs, each for its own trust domain.
    fn trust(&self, resources: &Resources) {
        let bundles = resources.peers.values().map(|policy| {
            let certificates = policy.trust_bundle.iter().map(|der| der.clone().into()).collect();
            (policy.trust_domain.clone(), certificates)
        });
        if let Err(error) = self.identity.set_peer_bundles(bundles.collect()) {
            tracing::warn!(error = %crate::store::chain(&error), "a peer's trust bundle cannot be used");
        }
    }

    /// What there is in the mesh now; `None` while workloads and peers have hardly had the time to say so.
    pub(super) fn live(&self) -> Option<Live> {
        let mut live = Live::default();
        let asked = self.hub.read(|catalogue, now| {
            for name in catalogue.services() {
                let endpoints = catalogue.view(name, now).map(|view| view.endpoints.clone()).unwrap_or_default();
                if endpoints.is_empty() {
                    continue;
                }
                let mut service = LiveService::default();
                for endpoint in &endpoints {
                    *service.zones.entry(endpoint.zone.to_string()).or_default() += 1;
                }
                let says = |endpoint: &&Arc<EndpointView>| {
                    endpoint.capacity > 0 || endpoint.load.is_some_and(|load| load.utilisation.is_some())
                };
                service.measured = u32::try_from(endpoints.iter().filter(says).count()).ok();
                live.services.insert(name.clone(), service);
            }
            for peer in catalogue.mesh().peers {
                if catalogue.peer_staleness(&peer.cluster.name).is_some() {
                    let exports = catalogue.exported_by(&peer.cluster.name);
                    let zones: BTreeSet<String> = peer.cluster.zones.into_keys().collect();
                    live.peers.insert(peer.cluster.name, LivePeer { region: peer.cluster.region, zones, exports });
                }
            }
            now
        });
        (asked.since(self.since) >= SPOKEN).then_some(live)
    }
}

fn contested(files: &Files, applied: &Stored) -> Vec<Contested> {
    let ids = applied.now().into_values().filter_map(|document| Some(Declared::stored(&document)?.resource.id()));
    ids.filter_map(|id| files.owner(&id).map(|owner| Contested { file: owner.place(), id: id.clone() })).collect()
}
