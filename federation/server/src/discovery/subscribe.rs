//! One subscription stream.
//!
//! A message is formed when there is room for it, from the state at that moment: a sidecar that does not read gets one
//! fresh difference when it does, not a history.

use std::collections::HashMap;
use std::sync::Arc;

use eastway_client::convert;
use eastway_core::ServiceName;
use eastway_proto::discovery::v1::subscribe_response::Event;
use eastway_proto::discovery::v1::{Heartbeat, ServiceUnknown, SubscribeRequest, SubscribeResponse};
use eastway_registry::ServiceFacts;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Status, Streaming};

use crate::feed::{Feed, Item};
use crate::hub::{Hub, raised};

/// Bytes of endpoints in one message: a small part of what a sidecar reads, whatever a service's size and labels are.
const ENDPOINT_BYTES: usize = 4 << 20;

type Outgoing = mpsc::Sender<Result<SubscribeResponse, Status>>;

/// What the sidecar was told of one service.
#[derive(Debug, Default)]
struct SentService {
    /// `None`: that nobody offers it, or nothing yet.
    facts: Option<Arc<ServiceFacts>>,
    seq: u64,
    /// The count of load reports up to which it heard.
    loads: u64,
}

/// Runs until the stream ends or the gateway drains.
pub(super) async fn run(hub: Arc<Hub>, mut incoming: Streaming<SubscribeRequest>, outgoing: Outgoing) {
    let following = hub.feed(false);
    let feed = &following.feed;
    let mut told: HashMap<ServiceName, SentService> = HashMap::new();
    let mut draining = hub.draining.subscribe();
    let mut settled = hub.settled.subscribe();
    let mut heartbeats = interval(hub.options.heartbeat);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ready = false;
    loop {
        tokio::select! {
            message = incoming.message() => {
                let Ok(Some(request)) = message else { return };
                if !follow(feed, &mut told, request, hub.options.max_subscriptions) {
                    let status = Status::resource_exhausted("too many subscriptions on one stream");
                    let _ = outgoing.send(Err(status)).await;
                    return;
                }
            }
            () = raised(&mut settled), if !ready => {
                ready = true;
                if !tell_all(&hub, feed, &mut told, &outgoing).await {
                    return;
                }
            }
            () = feed.arrived(), if ready => {
                if !tell_all(&hub, feed, &mut told, &outgoing).await {
                    return;
                }
            }
            _ = heartbeats.tick() => {
                let heartbeat = Event::Heartbeat(Heartbeat {});
                let _ = outgoing.try_send(Ok(SubscribeResponse { event: Some(heartbeat) }));
                if outgoing.is_closed() {
                    return;
                }
            }
            () = raised(&mut draining) => return,
        }
    }
}

/// Takes a request over. Stops before it starts, so that one request can renew a service. False: too many.
fn follow(feed: &Feed, told: &mut HashMap<ServiceName, SentService>, request: SubscribeRequest, limit: usize) -> bool {
    for name in request.unsubscribe.iter().filter_map(|name| convert::service_name(name).ok()) {
        feed.unwant(&name);
        told.remove(&name);
    }
    for name in request.subscribe.iter().filter_map(|name| convert::service_name(name).ok()) {
        feed.want(&name);
    }
    feed.wanted() <= limit
}

/// Tells everything that is news. False: the sidecar is gone.
async fn tell_all(hub: &Hub, feed: &Feed, told: &mut HashMap<ServiceName, SentService>, outgoing: &Outgoing) -> bool {
    while let Some(item) = feed.next() {
        let Ok(room) = outgoing.reserve().await else { return false };
        let event = match item {
            Item::Mesh => Some(Event::Mesh(convert::mesh_to_wire(&hub.read(|catalogue, _| catalogue.mesh())))),
            Item::Service(name) => tell_service(hub, feed, told, &name),
            Item::Loads(name) => told.get_mut(&name).and_then(|told| tell_loads(hub, told, &name)),
        };
        if let Some(event) = event {
            room.send(Ok(SubscribeResponse { event: Some(event) }));
        }
    }
    true
}

fn tell_service(
    hub: &Hub,
    feed: &Feed,
    all: &mut HashMap<ServiceName, SentService>,
    name: &ServiceName,
) -> Option<Event> {
    let (facts, now) = hub.read(|catalogue, now| (catalogue.facts(name), now));
    let first = !all.contains_key(name);
    let told = all.entry(name.clone()).or_default();
    let Some(facts) = facts else {
        let news = told.facts.take().is_some() || first;
        return news.then(|| Event::Unknown(ServiceUnknown { name: name.to_string() }));
    };
    let Some(known) = told.facts.replace(Arc::clone(&facts)) else {
        (told.seq, told.loads) = (0, 0);
        feed.add_loads(name);
        // What does not fit follows as differences.
        let facts = match facts.first_part(ENDPOINT_BYTES) {
            Some(part) => {
                feed.add(name);
                &*told.facts.insert(Arc::new(part))
            }
            None => &facts,
        };
        return Some(Event::Service(convert::facts_to_wire(facts, 0, now)));
    };
    let mut delta = known.delta_to(&facts)?;
    if delta.cut(ENDPOINT_BYTES) {
        let mut part = (*known).clone();
        part.apply(delta.clone());
        told.facts = Some(Arc::new(part));
        feed.add(name);
    }
    told.seq += 1;
    Some(Event::Delta(convert::delta_to_wire(name, &delta, told.seq, now)))
}

fn tell_loads(hub: &Hub, told: &mut SentService, name: &ServiceName) -> Option<Event> {
    let (loads, seq) = hub.read(|catalogue, _| (catalogue.loads_since(name, told.loads), catalogue.load_seq()));
    told.loads = seq;
    (!loads.is_empty()).then(|| Event::Loads(convert::loads_to_wire(name, &loads)))
}
