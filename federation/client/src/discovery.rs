//! Views of services, on demand: subscribed to when first wanted, kept current by deltas, dropped when long unused.
//!
//! What a gateway says replaces what is known; a gateway's silence replaces nothing. The last view is kept on disk, so
//! that a restarted sidecar serves although no gateway answers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::{MeshView, ServiceView};
use eastway_core::{Reason, ServiceName};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::link::Link;
use crate::sink::Sink;

mod cache;
mod driver;
mod subscription;

#[cfg(test)]
mod tests;

use subscription::Subscription;

/// Times and bounds of discovery.
#[derive(Clone, Debug)]
pub struct DiscoveryOptions {
    /// The own cluster's name: a last view of another cluster is not believed.
    pub cluster: String,
    /// How long the first use of a name waits. Default 1 s.
    pub resolve_timeout: Duration,
    /// How long an unknown name is remembered as such. Default 5 s.
    pub negative_ttl: Duration,
    /// The most services followed at a time. Default 1,000.
    pub max_subscriptions: usize,
    /// A service that was not used for this long is no longer followed. Default 10 min.
    pub unused_after: Duration,
    /// How long endpoints are kept that a gateway no longer names after a reconnect, if they are half of a service or
    /// more. Default 30 s.
    pub hold: Duration,
    /// The directory for the last view; none: it is not kept.
    pub state: Option<PathBuf>,
    /// The least time between two writes of the last view. Default 2 s.
    pub save_interval: Duration,
    /// Services that are followed from the start, and always.
    pub services: Vec<ServiceName>,
}

impl DiscoveryOptions {
    /// The defaults, in the cluster `cluster`.
    pub fn new(cluster: impl Into<String>) -> Self {
        Self {
            cluster: cluster.into(),
            resolve_timeout: Duration::from_secs(1),
            negative_ttl: Duration::from_secs(5),
            max_subscriptions: 1000,
            unused_after: Duration::from_secs(600),
            hold: Duration::from_secs(30),
            state: None,
            save_interval: Duration::from_secs(2),
            services: Vec::new(),
        }
    }
}

/// The services that a node uses, as the mesh knows them.
#[derive(Debug)]
pub struct Discovery {
    shared: Arc<Shared>,
}

struct Shared {
    link: Link,
    options: DiscoveryOptions,
    sink: Arc<dyn Sink>,
    clock: Clock,
    state: Mutex<State>,
    /// Something is to be subscribed to or unsubscribed from.
    wake: Notify,
    ended: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    mesh: Option<Arc<MeshView>>,
    services: HashMap<ServiceName, Followed>,
    subscribe: Vec<ServiceName>,
    unsubscribe: Vec<ServiceName>,
    /// A stream is open, to this gateway.
    connected: Option<Arc<str>>,
    /// When a gateway last said anything.
    heard: Option<eastway_core::Timestamp>,
    /// The last view on disk is out of date.
    dirty: bool,
}

struct Followed {
    subscription: Subscription,
    answer: watch::Sender<Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Pending,
    Known,
    Unknown,
}

/// How discovery does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiscoveryStatus {
    /// The gateway that a stream is open to.
    pub gateway: Option<String>,
    /// Services that are followed.
    pub subscriptions: usize,
    /// Of them, those that are known.
    pub known: usize,
    /// Seconds since a gateway last said anything; none if none ever did.
    pub silent_seconds: Option<f64>,
}

impl Discovery {
    /// Discovery over `link`, telling `sink`. The last view on disk is handed to the sink before this returns; the
    /// future does the rest, and ends after [`Discovery::shutdown`].
    pub fn new(
        link: Link,
        options: DiscoveryOptions,
        sink: Arc<dyn Sink>,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::new(Shared {
            link,
            options,
            sink,
            clock: Clock::start(),
            state: Mutex::default(),
            wake: Notify::new(),
            ended: watch::Sender::new(false),
        });
        shared.load_last_view();
        for name in shared.options.services.clone() {
            shared.state.lock().follow(name, shared.clock.now(), true);
        }
        let run = driver::run(Arc::clone(&shared));
        (Arc::new(Self { shared }), run)
    }

    /// The service's view; on its first use, waits for a gateway to say. The sink knows the service before this returns.
    ///
    /// # Errors
    /// [`Reason::UnknownService`] if no cluster offers it, [`Reason::DiscoveryTimeout`] if no gateway said so in time,
    /// [`Reason::Overloaded`] if too many services are followed already.
    pub async fn resolve(&self, name: &ServiceName) -> Result<Arc<ServiceView>, Reason> {
        let mut answer = match self.shared.look_up(name) {
            Some(answered) => return answered,
            None => self.shared.want(name)?,
        };
        let answered = timeout(self.shared.options.resolve_timeout, answer.wait_for(|a| *a != Answer::Pending)).await;
        match answered.map(|answer| answer.map(|answer| *answer)) {
            Ok(Ok(_)) => self.shared.look_up(name).unwrap_or(Err(Reason::UnknownService)),
            Ok(Err(_)) => Err(Reason::UnknownService),
            Err(_) => Err(Reason::DiscoveryTimeout),
        }
    }

    /// The service's view as it is known now. Counts as use.
    pub fn view(&self, name: &ServiceName) -> Option<Arc<ServiceView>> {
        self.shared.look_up(name).and_then(Result::ok)
    }

    /// The service is in use. Takes a lock: now and then is enough, at least once in the time after which services
    /// count as unused.
    pub fn touch(&self, name: &ServiceName) {
        let now = self.shared.clock.now();
        if let Some(followed) = self.shared.state.lock().services.get_mut(name) {
            followed.subscription.used(now);
        }
    }

    /// The mesh around the services.
    pub fn mesh(&self) -> Option<Arc<MeshView>> {
        self.shared.state.lock().mesh.clone()
    }

    /// How discovery does.
    pub fn status(&self) -> DiscoveryStatus {
        let state = self.shared.state.lock();
        let now = self.shared.clock.now();
        DiscoveryStatus {
            gateway: state.connected.as_ref().map(ToString::to_string),
            subscriptions: state.services.len(),
            known: state.services.values().filter(|followed| followed.subscription.is_known()).count(),
            silent_seconds: state.heard.map(|heard| now.since(heard).as_secs_f64()),
        }
    }

    /// Ends the future, after the last view is written.
    pub fn shutdown(&self) {
        self.shared.ended.send_replace(true);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("link", &self.link).field("options", &self.options).finish_non_exhaustive()
    }
}

impl Shared {
    /// What is known at once; `None` if a gateway has to be asked.
    fn look_up(&self, name: &ServiceName) -> Option<Result<Arc<ServiceView>, Reason>> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let subscription = &mut state.services.get_mut(name)?.subscription;
        subscription.used(now);
        if let Some(view) = subscription.view(now) {
            return Some(Ok(Arc::new(view)));
        }
        subscription.is_unknown().then_some(Err(Reason::UnknownService))
    }

    fn want(&self, name: &ServiceName) -> Result<watch::Receiver<Answer>, Reason> {
        let mut state = self.state.lock();
        if !state.services.contains_key(name) && state.services.len() >= self.options.max_subscriptions {
            return Err(Reason::Overloaded);
        }
        let answer = state.follow(name.clone(), self.clock.now(), false);
        drop(state);
        self.wake.notify_one();
        Ok(answer)
    }
}

impl State {
    /// Follows a service, if it is not followed already.
    fn follow(&mut self, name: ServiceName, now: eastway_core::Timestamp, always: bool) -> watch::Receiver<Answer> {
        let subscribe = &mut self.subscribe;
        let followed = self.services.entry(name).or_insert_with_key(|name| {
            subscribe.push(name.clone());
            Followed { subscription: Subscription::new(now), answer: watch::Sender::new(Answer::Pending) }
        });
        if always {
            followed.subscription.follow_always();
        }
        followed.answer.subscribe()
    }
}
