//! The server as the gateway role sees it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use eastway_admission::Cluster;
use eastway_client::Sink;
use eastway_core::resource::ClusterMeta;
use eastway_core::view::{MeshView, PathState, ServiceView, Transport};
use eastway_core::{EndpointId, LoadReport, Reason, ServiceName, ZoneId};
use eastway_registry::membership::{GatewayReader, StoredAddress, to_json};
use eastway_registry::{Catalogue, EndpointReport, PathFacts, Probe, ProbeOutcome};
use eastway_runtime::tasks::{StillRunning, TaskGroup};
use eastway_transport::Tunnel;
use parking_lot::Mutex;
use serde::Serialize;

use crate::error::StartError;
use crate::feed::Feed;
use crate::hub::{Following, Hub, raised};
use crate::joining::{Joining, Tokens};
use crate::membership::{self, Beginning, Slices};
use crate::options::ServerConfig;
use crate::peering::{self, PeerHold, PeerPath, PeerStatus};
use crate::probing::{self, Prober, TlsProber};
use crate::resources::{Change, Contested, Files, Generation, NotApplied, Outcome, OwnedDocument, ResourceSet};
use crate::store::{Election, Store, StoreHealth, StoreSession, keep_last, keys};
use crate::topic::Topic;
use crate::{listener, mirrors, virtuals};

/// A running server. Its tasks end with [`Server::shutdown`].
#[derive(Debug)]
pub struct Server {
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    slices: Arc<Slices>,
    resources: Arc<ResourceSet>,
    joining: Joining,
    /// When the store held what this gateway began with, if it did not answer then.
    saved_at: Option<u64>,
    session: Mutex<Option<Arc<StoreSession>>>,
    tasks: TaskGroup,
}

/// How a server does, for the admin API.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerStatus {
    /// The gateway's id.
    pub gateway: String,
    /// Which life of it this is.
    pub epoch: u64,
    /// The epoch of another process that took over this gateway's id: this one ends.
    pub replaced_by: Option<u64>,
    /// Gateways, by their identities, that ignore what this one states, because they know of a life of it with the epoch
    /// given, which is later.
    pub fenced_by: BTreeMap<String, u64>,
    /// The cluster's uid.
    pub cluster_uid: String,
    /// How many services have a view.
    pub services: usize,
    /// How many endpoints there are, by health.
    pub endpoints: BTreeMap<&'static str, usize>,
    /// The other gateways of the cluster, by their ids.
    pub siblings: BTreeMap<String, SiblingStatus>,
    /// The peers.
    pub peers: Vec<PeerStatus>,
    /// The store.
    pub store: StoreHealth,
    /// Seconds since the store held what this gateway began with; `None` once it has answered.
    pub state_age_seconds: Option<u64>,
}

/// Another gateway of the cluster, for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SiblingStatus {
    /// Its key is in the store.
    pub registered: bool,
    /// It says how its endpoints do. If not, they are probed from here.
    pub speaks: bool,
    /// Which life of it spoke last.
    pub epoch: Option<u64>,
}

impl Server {
    /// Starts the server on the current runtime, which should be the control runtime. Waits for the store.
    ///
    /// # Errors
    /// If the store refuses or is another cluster's.
    pub async fn start(config: ServerConfig, store: Arc<dyn Store>, files: Files) -> Result<Arc<Self>, StartError> {
        let prober = TlsProber { identity: Arc::clone(&config.identity), timeout: config.options.probe_timeout };
        Self::start_with(config, store, files, Arc::new(prober)).await
    }

    /// As [`Server::start`], with another way to find out who lives.
    pub(crate) async fn start_with(
        config: ServerConfig,
        store: Arc<dyn Store>,
        files: impl Into<Files>,
        prober: Arc<dyn Prober>,
    ) -> Result<Arc<Self>, StartError> {
        let Beginning { life, from, saved_at } = membership::begin(&store, &config).await?;
        let epoch = life.epoch();
        let catalogue = Catalogue::new(life.cluster(), config.gateway.as_str(), epoch, config.options.registry.clone());
        let cluster = Cluster {
            name: config.cluster.clone(),
            region: config.region.clone(),
            zones: config.zones.keys().cloned().collect(),
            trust_domain: config.trust_domain.clone(),
        };
        let hub = Hub::new(catalogue, (&config.gateway, &config.address), epoch, config.options, config.admission);
        let (shared, identity) = (Arc::clone(&store), Arc::clone(&config.identity));
        let resources = ResourceSet::new(Arc::clone(&hub), shared, cluster, Arc::clone(&identity), files.into());
        resources.load(&*from).await?;
        if let Some(Contested { id, file }) = resources.contested().into_iter().next() {
            return Err(StartError::Contested { id, file });
        }
        let slices = Slices::new(Arc::clone(&hub), Arc::clone(&store), life);
        let slice_reader = slices.load(&*from).await?;
        let own = StoredAddress { address: config.address, epoch };
        let mut gateways = GatewayReader::new(config.gateway.as_str(), own);
        membership::load_gateways(&hub, &*from, &mut gateways).await;
        mirrors::load(&*from, &hub).await;
        virtuals::load(&hub, &*from).await;
        let listener = tokio::net::TcpListener::from_std(config.discovery).map_err(StartError::Listener)?;

        let tasks = TaskGroup::new("federation");
        let session = Arc::new(StoreSession::start(Arc::clone(&store), hub.options.session_ttl));
        session.keep(&keys::gateway(&config.gateway), to_json(gateways.own()))?;
        let election = Arc::new(Election::campaign(Arc::clone(&session), config.gateway.as_str()));
        let (h, s) = (|| Arc::clone(&hub), || Arc::clone(&store));
        if let Some(folder) = config.state {
            let (every, clock) = (hub.options.keep_interval, hub.options.wall_clock);
            tasks.spawn_loop("what the store holds", keep_last(s(), folder, every, clock));
        }
        let tokens = Arc::<Tokens>::default();
        let dialer = Arc::clone(&config.dialer);
        let joining = Joining::new((h(), s()), Arc::clone(&resources), identity, dialer, Arc::clone(&tokens));
        tasks.spawn_loop("tokens", tokens.follow(h(), s()));
        tasks.spawn_loop("applied resources", Arc::clone(&resources).follow());
        tasks.spawn_loop("clock and probes", probing::run(h(), prober));
        tasks.spawn_loop("membership, writing", Arc::clone(&slices).write(session.states()));
        tasks.spawn_loop("membership, reading", Arc::clone(&slices).follow(slice_reader));
        let gateways = membership::follow_gateways(h(), Arc::clone(&session), Arc::clone(&slices), gateways);
        tasks.spawn_loop("membership, gateways", gateways);
        tasks.spawn_loop("membership, collecting", membership::collect(h(), s(), Arc::clone(&election)));
        tasks.spawn_loop("virtual addresses", virtuals::run(h(), s(), Arc::clone(&election)));
        tasks.spawn_loop("mirrors", mirrors::write(h(), s(), election));
        tasks.spawn_loop("peering", peering::run(h(), config.dialer, tasks.clone()));
        let mut draining = hub.draining.subscribe();
        let listening = listener::run(h(), listener, config.identity, tasks.clone());
        tasks.spawn_loop("discovery listener", async move {
            // Closed while draining: who is refused tries another gateway at once.
            tokio::select! {
                () = listening => {}
                () = raised(&mut draining) => {}
            }
        });
        Ok(Arc::new(Self {
            hub,
            store,
            slices,
            resources,
            joining,
            saved_at,
            session: Mutex::new(Some(session)),
            tasks,
        }))
    }

    /// This cluster, with its uid.
    pub fn cluster(&self) -> ClusterMeta {
        self.hub.read(|catalogue, _| catalogue.meta().clone())
    }

    /// Which life of the gateway this is.
    pub fn epoch(&self) -> u64 {
        self.hub.epoch
    }

    /// This gateway's files declare something else. Registrations and peers that are no longer allowed end.
    ///
    /// # Errors
    /// A resource that they declare was applied: what counted before stays.
    pub fn set_files(&self, files: Files) -> Result<(), Vec<Contested>> {
        let contested = self.resources.contested_by(&files);
        if contested.is_empty() {
            self.resources.use_files(files);
            return Ok(());
        }
        Err(contested)
    }

    /// Changes what is applied in the cluster, or says what a change would do.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn apply(&self, change: &Change, by: &str, dry_run: bool) -> Result<Outcome, NotApplied> {
        self.resources.change(change, by, dry_run).await
    }

    /// How other clusters become peers by a token, and end to be.
    pub const fn joining(&self) -> &Joining {
        &self.joining
    }

    /// The resources that count here, and whose each is.
    pub fn resources(&self) -> Vec<OwnedDocument> {
        self.resources.owned()
    }

    /// The generations of applied resources that are kept, the latest last.
    pub fn generations(&self) -> Vec<Generation> {
        self.resources.generations()
    }

    /// The service as this cluster sees it; `None` if no cluster known here offers it.
    pub fn view(&self, name: &ServiceName) -> Option<Arc<ServiceView>> {
        self.hub.read(|catalogue, now| catalogue.view(name, now))
    }

    /// The mesh around the services.
    pub fn mesh(&self) -> MeshView {
        self.hub.read(|catalogue, _| catalogue.mesh())
    }

    /// Every service that some cluster known here offers.
    pub fn services(&self) -> Vec<ServiceName> {
        self.hub.read(|catalogue, _| catalogue.services().cloned().collect())
    }

    /// Tells `sink` of the mesh, and of the services that are wanted of what is returned, now and whenever one changes.
    pub fn follow(&self, sink: Arc<dyn Sink>) -> LocalFollower {
        let follower = LocalFollower { following: Arc::new(self.hub.feed(Feed::default())) };
        follower.following.feed.want(Topic::Mesh);
        self.tasks.spawn_loop("own subscription", tell(Arc::clone(&self.hub), Arc::clone(&follower.following), sink));
        follower
    }

    /// The load that an endpoint of the service reported last.
    pub fn load(&self, service: &ServiceName, endpoint: &EndpointId) -> Option<LoadReport> {
        self.hub.read(|catalogue, _| catalogue.load(service, endpoint))
    }

    /// Whether callers of the peer cluster `cluster` may be let in to the service. Nobody else's may.
    pub fn exports(&self, name: &ServiceName, cluster: &str) -> bool {
        self.hub.read(|catalogue, _| {
            let resources = catalogue.resources();
            resources.peers.contains_key(cluster) && resources.exports(name, cluster)
        })
    }

    /// Completes when callers of `cluster` may be let in to the service no longer.
    pub async fn export_ends(&self, name: &ServiceName, cluster: &str) {
        let mut changes = self.hub.resources.subscribe();
        loop {
            changes.mark_unchanged();
            // It fails only if the hub is gone, and with it every export.
            if !self.exports(name, cluster) || changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The declared peer that identities of `trust_domain` belong to.
    pub fn peer_of(&self, trust_domain: &str) -> Option<String> {
        self.hub.read(|catalogue, _| {
            let mut peers = catalogue.resources().peers.iter();
            peers.find(|(_, policy)| policy.trust_domain == trust_domain).map(|(cluster, _)| cluster.clone())
        })
    }

    /// The trust domain of the declared peer `cluster`; `None` if it is no peer.
    pub fn trust_domain_of(&self, cluster: &str) -> Option<String> {
        self.hub.read(|catalogue, _| catalogue.resources().peers.get(cluster).map(|policy| policy.trust_domain.clone()))
    }

    /// The peers, by name.
    pub fn peers(&self) -> Vec<PeerStatus> {
        peering::status(&self.hub)
    }

    /// What was left out or replaced of what peers said, by their names.
    pub fn cut(&self) -> BTreeMap<String, BTreeMap<&'static str, u64>> {
        self.hub.read(|catalogue, _| {
            let peers = catalogue.resources().peers.keys();
            peers.map(|cluster| (cluster.clone(), catalogue.cut(cluster).iter().collect())).collect()
        })
    }

    /// The endpoints of the service in this cluster, with where what is known of them comes from.
    pub fn endpoints(&self, name: &ServiceName) -> Vec<EndpointReport> {
        self.hub.read(|catalogue, now| catalogue.endpoints(name, now))
    }

    /// The services that the operator declared here.
    pub fn declared(&self) -> BTreeSet<ServiceName> {
        self.hub.read(|catalogue, _| catalogue.resources().services.keys().cloned().collect())
    }

    fn siblings(&self) -> BTreeMap<String, SiblingStatus> {
        self.hub.read(|catalogue, _| {
            let status = |(gateway, (registered, speaks)): (String, (bool, bool))| {
                let epoch = catalogue.sibling_epoch(&gateway);
                (gateway, SiblingStatus { registered, speaks, epoch })
            };
            catalogue.sibling_states().into_iter().map(status).collect()
        })
    }

    /// Sees to it that the peer `cluster` is connected to for as long as the answer is held, which a stream to it does. If it was not,
    /// waits until there is a way to it.
    pub async fn hold_peer(&self, cluster: &str) -> PeerHold {
        peering::hold(&self.hub, cluster).await
    }

    /// The ways to the peer `cluster`, best first, those that are down included last.
    pub fn paths(&self, cluster: &str) -> Vec<PeerPath> {
        peering::paths(&self.hub, cluster)
    }

    /// The best way to the peer `cluster`; `None` if every way is down.
    pub fn best_path(&self, cluster: &str) -> Option<PeerPath> {
        self.paths(cluster).into_iter().find(|path| path.state != PathState::Down)
    }

    /// Completes when what goes to the peer `cluster` by its gateway at `address` should no longer go over `transport`: the way there
    /// is down, goes over another transport, or is none any more.
    pub async fn path_leaves(&self, cluster: &str, address: &str, transport: Transport) {
        let leaves =
            |facts: &PathFacts| facts.state == PathState::Down || facts.transport.is_some_and(|used| used != transport);
        self.path_becomes(cluster, address, leaves).await;
    }

    /// Completes when nothing new should go to the peer `cluster` by its gateway at `address`: that has announced its end, is known
    /// not to answer, or is no way there any more.
    pub async fn path_ends(&self, cluster: &str, address: &str) {
        self.path_becomes(cluster, address, |facts| facts.draining || facts.state == PathState::Down).await;
    }

    async fn path_becomes(&self, cluster: &str, address: &str, such: impl Fn(&PathFacts) -> bool) {
        let mut changes = self.hub.paths.subscribe();
        loop {
            changes.mark_unchanged();
            let paths = self.hub.read(|catalogue, _| catalogue.paths(cluster));
            if paths.iter().find(|(known, _)| known == address).is_none_or(|(_, facts)| such(facts)) {
                return;
            }
            // Fails only if the hub is gone, and with it every way.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Serves a control connection that a peer's gateway opened. Returns when it has ended, or the server has.
    pub async fn on_control_connection(&self, tunnel: Arc<dyn Tunnel>) {
        tokio::select! {
            () = peering::serve(Arc::clone(&self.hub), Arc::clone(&tunnel), self.tasks.clone()) => {}
            () = self.tasks.stopping() => tunnel.close(Reason::Draining),
        }
    }

    /// The data path was refused by an endpoint of this cluster: evidence about one whose sidecar is not heard of.
    pub fn report_refused(&self, service: &ServiceName, endpoint: &EndpointId) {
        self.hub.change(|catalogue, now| {
            let facts = catalogue.facts(service);
            let known = facts.iter().flat_map(|facts| &facts.endpoints).find(|known| known.id == *endpoint);
            if let Some(known) = known {
                let (service, endpoint) = (service.clone(), endpoint.clone());
                let (incarnation, address) = (known.incarnation, known.address);
                let probe = Probe { service, endpoint, incarnation, address, thorough: false };
                catalogue.probed(&probe, ProbeOutcome::Refused, now);
            }
        });
    }

    /// The data path found that a peer's zone no longer serves the service.
    pub fn report_gone(&self, service: &ServiceName, zone: &ZoneId) {
        self.hub.change(|catalogue, now| catalogue.confirm_gone(service, zone, now));
    }

    /// How old what this gateway began with is, if the store has not answered since.
    fn state_age(&self) -> Option<Duration> {
        let saved_at = self.saved_at.filter(|_| !self.slices.is_claimed())?;
        Some(Duration::from_millis((self.hub.options.wall_clock)().saturating_sub(saved_at)))
    }

    /// How the server does.
    pub fn status(&self) -> ServerStatus {
        let (services, endpoints, meta) =
            self.hub.read(|catalogue, _| (catalogue.services().count(), catalogue.census(), catalogue.meta().clone()));
        ServerStatus {
            gateway: self.hub.gateway.to_string(),
            epoch: self.hub.epoch,
            replaced_by: *self.slices.replaced().borrow(),
            fenced_by: self.hub.fenced_by.lock().clone(),
            cluster_uid: meta.uid,
            services,
            endpoints,
            siblings: self.siblings(),
            peers: self.peers(),
            store: self.store.health(),
            state_age_seconds: self.state_age().map(|age| age.as_secs()),
        }
    }

    /// How the store does.
    pub fn store(&self) -> StoreHealth {
        self.store.health()
    }

    /// Completes once subscribers are answered.
    pub async fn settled(&self) {
        let _ = self.hub.settled.subscribe().wait_for(|settled| *settled).await;
    }

    /// Completes when another process has taken over this gateway's id, with the epoch of that one. This one is to end:
    /// it serves on from memory, but nothing of what it learns reaches the store.
    pub async fn replaced(&self) -> u64 {
        let mut replaced = self.slices.replaced();
        loop {
            if let Some(epoch) = *replaced.borrow_and_update() {
                return epoch;
            }
            if replaced.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Announces the end: peers are told to use other paths, and sidecars' streams end so that they go elsewhere.
    pub fn drain(&self) {
        self.hub.draining.send_replace(true);
    }

    /// Ends everything, after what is unwritten was written if the store answers.
    ///
    /// # Errors
    /// The tasks that had to be aborted.
    pub async fn shutdown(&self, limit: Duration) -> Result<(), StillRunning> {
        self.drain();
        let ended = self.tasks.shutdown(limit).await;
        let flush = self.slices.write_changed();
        let _ = tokio::time::timeout(limit, flush).await;
        // The election's tasks held clones; they have ended, so that this is the last one.
        let session = self.session.lock().take().and_then(Arc::into_inner);
        if let Some(session) = session {
            session.close().await;
        }
        ended
    }
}

#[cfg(test)]
impl Server {
    pub(crate) fn set_resources(&self, resources: eastway_registry::Resources) {
        self.resources.use_files(resources.into());
    }

    pub(crate) const fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(crate) const fn tasks(&self) -> &TaskGroup {
        &self.tasks
    }

    /// Ends as a kill would: nothing is written, nobody is told.
    pub(crate) async fn kill(&self) {
        self.tasks.shutdown(Duration::from_secs(5)).await.expect("all tasks end");
        drop(self.session.lock().take());
    }
}

/// What the gateway itself follows.
#[derive(Clone, Debug)]
pub struct LocalFollower {
    following: Arc<Following>,
}

impl LocalFollower {
    /// Follows a service with its loads, starting with all of it.
    pub fn want(&self, service: &ServiceName) {
        self.following.feed.want(Topic::Service(service.clone()));
        self.following.feed.want(Topic::Loads(service.clone()));
    }

    /// No longer follows a service.
    pub fn unwant(&self, service: &ServiceName) {
        self.following.feed.unwant(&Topic::Service(service.clone()));
        self.following.feed.unwant(&Topic::Loads(service.clone()));
    }
}

/// Tells an own sink of what it follows. Runs until it is dropped.
async fn tell(hub: Arc<Hub>, following: Arc<Following>, sink: Arc<dyn Sink>) {
    let feed: &Feed = &following.feed;
    let mut heard: HashMap<ServiceName, u64> = HashMap::new();
    loop {
        while let Some(topic) = feed.next() {
            match topic {
                Topic::Mesh => sink.mesh(&Arc::new(hub.read(|catalogue, _| catalogue.mesh()))),
                Topic::Service(name) => match hub.read(|catalogue, now| catalogue.view(&name, now)) {
                    Some(view) => sink.service(&view),
                    None => {
                        heard.remove(&name);
                        sink.unknown(&name);
                    }
                },
                Topic::Loads(name) => tell_loads(&hub, &*sink, &mut heard, name),
                Topic::Served(_) | Topic::Address(_) | Topic::Declared { .. } => {}
            }
        }
        feed.arrived().await;
    }
}

fn tell_loads(hub: &Hub, sink: &dyn Sink, heard: &mut HashMap<ServiceName, u64>, name: ServiceName) {
    let since = heard.get(&name).copied().unwrap_or(0);
    let (loads, seq) = hub.read(|catalogue, _| (catalogue.loads_since(&name, since), catalogue.load_seq()));
    if !loads.is_empty() {
        sink.loads(&name, &loads);
        heard.insert(name, seq);
    }
}
