//! The server's state, and how its changes reach whoever follows them.
//!
//! There is one catalogue behind one lock. Whoever changes it publishes what changed before the call returns: names of
//! services are put into the feeds of the streams that want them, and each stream forms its message from the state at
//! the time when it can send. So nothing queues up behind a slow reader, and everybody ends at the latest state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eastway_client::clock::Clock;
use eastway_core::view::Transport;
use eastway_core::{MeshHost, ServiceName, SpiffeId, Timestamp};
use eastway_proto::discovery::v1::RegisterRejected;
use eastway_registry::{Admission, Catalogue, Changes, StreamId, Virtuals};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use crate::demand::Demand;
use crate::document::Documents;
use crate::feed::Feed;
use crate::options::ServerOptions;
use crate::topic::Topic;

/// The shared state of a server.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) gateway: Arc<str>,
    /// Where other gateways reach this one.
    address: String,
    pub(crate) trust_domain: String,
    pub(crate) epoch: u64,
    pub(crate) options: ServerOptions,
    pub(crate) admission: Admission,
    pub(crate) clock: Clock,
    catalogue: Mutex<Catalogue>,
    feeds: Mutex<HashMap<u64, Arc<Feed>>>,
    /// The declared resources that count here, as they were written.
    documents: Mutex<Arc<Documents>>,
    /// Services with loads that were not yet published.
    loads: Mutex<BTreeSet<ServiceName>>,
    /// Own slices to be written.
    pub(crate) slices: Dirty<(ServiceName, u32)>,
    /// Peers whose mirrors are to be written.
    pub(crate) mirrors: Dirty<String>,
    /// The peers that are wanted.
    pub(crate) demand: Demand,
    /// The numbers of names' virtual addresses.
    pub(crate) virtuals: Mutex<Virtuals>,
    /// Names that are to get one.
    pub(crate) unnumbered: Dirty<MeshHost>,
    /// Grows with each change of the mesh around the services.
    pub(crate) mesh: watch::Sender<u64>,
    /// Grows with each change of what is exported.
    pub(crate) exports: watch::Sender<u64>,
    /// Grows with each change of where peers' gateways are reached.
    pub(crate) addresses: watch::Sender<u64>,
    /// Grows with each change of what siblings are told of own endpoints.
    pub(crate) statements: watch::Sender<u64>,
    /// Where the other gateways of this cluster are reached, by their ids.
    pub(crate) siblings: watch::Sender<BTreeMap<String, String>>,
    /// Grows with each change of the resources.
    pub(crate) resources: watch::Sender<u64>,
    /// Grows whenever a path to a peer changes its state or announces its end, and when one is no longer declared.
    pub(crate) paths: watch::Sender<u64>,
    /// How often a gateway of each peer has connected here: a sign that it can be dialled.
    pub(crate) arrivals: watch::Sender<BTreeMap<(String, Transport), u64>>,
    /// The gateways that hold a control connection here, by their identities, each with the number of its latest one.
    callers: watch::Sender<BTreeMap<(String, Transport), u64>>,
    /// Gateways that know a later life of this one, by their identities, and its epoch.
    pub(crate) fenced_by: Mutex<BTreeMap<String, u64>>,
    /// Registration streams, to be ended with this message.
    streams: Mutex<HashMap<StreamId, oneshot::Sender<RegisterRejected>>>,
    /// A probe may be due at once.
    pub(crate) probe: Notify,
    /// What was loaded at the start has been probed: subscribers may be answered.
    pub(crate) settled: watch::Sender<bool>,
    pub(crate) draining: watch::Sender<bool>,
    next: AtomicU64,
}

impl Hub {
    pub(crate) fn new(
        catalogue: Catalogue,
        (gateway, address): (&str, &str),
        epoch: u64,
        options: ServerOptions,
        admission: Admission,
    ) -> Arc<Self> {
        let demand = Demand::new(options.peering.idle);
        let virtuals = Mutex::new(Virtuals::new(options.registry.max_virtuals));
        Arc::new(Self {
            gateway: gateway.into(),
            address: address.to_owned(),
            trust_domain: catalogue.meta().trust_domain.clone(),
            epoch,
            options,
            admission,
            clock: Clock::start(),
            catalogue: Mutex::new(catalogue),
            feeds: Mutex::default(),
            documents: Mutex::default(),
            loads: Mutex::default(),
            slices: Dirty::default(),
            mirrors: Dirty::default(),
            demand,
            virtuals,
            unnumbered: Dirty::default(),
            mesh: watch::Sender::new(0),
            exports: watch::Sender::new(0),
            addresses: watch::Sender::new(0),
            statements: watch::Sender::new(0),
            siblings: watch::Sender::default(),
            resources: watch::Sender::new(0),
            paths: watch::Sender::new(0),
            arrivals: watch::Sender::default(),
            callers: watch::Sender::default(),
            fenced_by: Mutex::default(),
            streams: Mutex::default(),
            probe: Notify::new(),
            settled: watch::Sender::new(false),
            draining: watch::Sender::new(false),
            next: AtomicU64::new(1),
        })
    }

    /// Looks at the catalogue.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&Catalogue, Timestamp) -> R) -> R {
        let catalogue = self.catalogue.lock();
        look(&catalogue, self.clock.now())
    }

    /// Changes the catalogue, and publishes what changed.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Catalogue, Timestamp) -> R) -> R {
        let (result, changes) = {
            let mut catalogue = self.catalogue.lock();
            let result = change(&mut catalogue, self.clock.now());
            (result, catalogue.take_changes())
        };
        if !changes.is_empty() {
            self.publish(changes);
        }
        result
    }

    fn publish(&self, changes: Changes) {
        if changes.mesh || !changes.services.is_empty() {
            let mesh = changes.mesh.then_some(Topic::Mesh);
            let topics: Vec<_> = mesh.into_iter().chain(changes.services.iter().flat_map(Topic::of_service)).collect();
            self.announce(&topics);
        }
        if changes.mesh {
            self.mesh.send_modify(|version| *version += 1);
        }
        if !changes.loads.is_empty() {
            self.loads.lock().extend(changes.loads);
        }
        if changes.exports {
            self.exports.send_modify(|version| *version += 1);
        }
        if changes.statements {
            self.statements.send_modify(|version| *version += 1);
        }
        if changes.addresses {
            self.addresses.send_modify(|version| *version += 1);
        }
        self.slices.add(changes.slices);
        self.mirrors.add(changes.mirrors);
    }

    /// Publishes the loads that were reported since the last time.
    pub(crate) fn publish_loads(&self) {
        let loads = std::mem::take(&mut *self.loads.lock());
        if loads.is_empty() {
            return;
        }
        let topics: Vec<_> = loads.into_iter().map(Topic::Loads).collect();
        self.announce(&topics);
    }

    /// There is news of `topics`, for all who follow them.
    pub(crate) fn announce(&self, topics: &[Topic]) {
        for feed in self.feeds.lock().values() {
            feed.publish(topics);
        }
    }

    /// The declared resources that count here, as they were written.
    pub(crate) fn documents(&self) -> Arc<Documents> {
        Arc::clone(&self.documents.lock())
    }

    /// Other resources count now; what follows from them is in the catalogue already.
    pub(crate) fn set_documents(&self, documents: Documents) {
        *self.documents.lock() = Arc::new(documents);
        self.feeds.lock().values().for_each(|feed| feed.publish_declared());
        self.resources.send_modify(|version| *version += 1);
    }

    /// Where the gateways of this cluster are reached that are there now.
    pub(crate) fn gateways(&self) -> Vec<String> {
        let mut all: Vec<String> = self.siblings.borrow().values().cloned().collect();
        all.push(self.address.clone());
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Feeds `feed` with changes, for as long as the returned guard lives.
    pub(crate) fn feed(self: &Arc<Self>, feed: Feed) -> Following {
        let feed = Arc::new(feed);
        let id = self.next_id();
        self.feeds.lock().insert(id, Arc::clone(&feed));
        Following { hub: Arc::clone(self), id, feed }
    }

    /// The services that some sidecar follows to call them.
    pub(crate) fn called(&self) -> BTreeSet<ServiceName> {
        self.feeds.lock().values().flat_map(|feed| feed.called()).collect()
    }

    /// The names whose virtual addresses some sidecar follows.
    pub(crate) fn addressed(&self) -> BTreeSet<MeshHost> {
        self.feeds.lock().values().flat_map(|feed| feed.addressed()).collect()
    }

    /// A name for a new registration stream, and what tells it to end.
    pub(crate) fn open_stream(&self) -> (StreamId, oneshot::Receiver<RegisterRejected>) {
        let stream = self.name_stream();
        let (end, ended) = oneshot::channel();
        self.streams.lock().insert(stream, end);
        (stream, ended)
    }

    /// A name for a stream that nobody but its own task ends.
    pub(crate) fn name_stream(&self) -> StreamId {
        StreamId(self.next_id())
    }

    /// Ends a registration stream, telling its sidecar why.
    pub(crate) fn end_stream(&self, stream: StreamId, why: RegisterRejected) {
        if let Some(end) = self.streams.lock().remove(&stream) {
            // Fails if the stream is ending by itself.
            let _ = end.send(why);
        }
    }

    /// A registration stream has ended.
    pub(crate) fn close_stream(&self, stream: StreamId) {
        self.streams.lock().remove(&stream);
        self.change(|catalogue, now| catalogue.lost(stream, now));
        self.probe.notify_one();
    }

    /// The gateway `peer` has opened a control connection over `transport`, and holds it for as long as the returned guard lives.
    pub(crate) fn calls(self: &Arc<Self>, peer: &SpiffeId, transport: Transport) -> Calling {
        let (peer, number) = ((peer.to_string(), transport), self.next_id());
        self.callers.send_modify(|callers| {
            callers.insert(peer.clone(), number);
        });
        Calling { hub: Arc::clone(self), peer, number }
    }

    /// The gateways that hold a control connection here: see [`Hub::calls`].
    pub(crate) fn callers(&self) -> watch::Receiver<BTreeMap<(String, Transport), u64>> {
        self.callers.subscribe()
    }

    fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Waits until a flag of the hub is raised.
pub(crate) async fn raised(flag: &mut watch::Receiver<bool>) {
    // Fails only if the hub is gone, and with it everything to wait for.
    let _ = flag.wait_for(|raised| *raised).await;
}

/// A control connection that a gateway holds; dropping it ends that.
#[derive(Debug)]
pub(crate) struct Calling {
    hub: Arc<Hub>,
    peer: (String, Transport),
    number: u64,
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.hub.callers.send_if_modified(|callers| {
            let latest = callers.get(&self.peer) == Some(&self.number);
            latest && callers.remove(&self.peer).is_some()
        });
    }
}

/// A registered feed; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Following {
    hub: Arc<Hub>,
    id: u64,
    pub(crate) feed: Arc<Feed>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.hub.feeds.lock().remove(&self.id);
    }
}

/// Things to be written, each at most once however often it changed.
#[derive(Debug)]
pub(crate) struct Dirty<T> {
    items: Mutex<Items<T>>,
    added: Notify,
    written: Notify,
}

#[derive(Debug)]
struct Items<T> {
    waiting: BTreeSet<T>,
    /// Taken, and perhaps not written yet.
    taken: BTreeSet<T>,
}

impl<T> Default for Dirty<T> {
    fn default() -> Self {
        let items = Mutex::new(Items { waiting: BTreeSet::new(), taken: BTreeSet::new() });
        Self { items, added: Notify::new(), written: Notify::new() }
    }
}

impl<T: Ord> Dirty<T> {
    pub(crate) fn add(&self, items: impl IntoIterator<Item = T>) {
        let known = &mut self.items.lock().waiting;
        let before = known.len();
        known.extend(items);
        if known.len() > before {
            self.added.notify_one();
        }
    }

    /// Takes everything, to be written; then [`Dirty::written`] is called. What was taken by somebody who never got so far
    /// is among it again.
    pub(crate) fn take(&self) -> BTreeSet<T>
    where
        T: Clone,
    {
        let items = &mut *self.items.lock();
        items.taken.append(&mut items.waiting);
        items.taken.clone()
    }

    /// What was taken is written, except `left`.
    pub(crate) fn written(&self, left: BTreeSet<T>) {
        self.add(left);
        self.items.lock().taken.clear();
        self.written.notify_waiters();
    }

    /// Waits until nothing that is `meant` is still to be written.
    pub(crate) async fn clear_of(&self, meant: impl Fn(&T) -> bool) {
        loop {
            let mut written = std::pin::pin!(self.written.notified());
            // Registered before the look, so that what is written in between wakes us.
            written.as_mut().enable();
            {
                let items = self.items.lock();
                if !items.waiting.iter().chain(&items.taken).any(&meant) {
                    return;
                }
            }
            written.await;
        }
    }

    /// Waits until there is something; what was left before counts.
    pub(crate) async fn added(&self) {
        while self.items.lock().waiting.is_empty() {
            self.added.notified().await;
        }
    }
}
