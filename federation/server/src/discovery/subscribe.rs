//! One subscription stream.
//!
//! A message is formed when there is room for it, from the state at that moment: a sidecar that does not read gets one
//! fresh difference when it does, not a history.

use std::collections::HashMap;
use std::sync::Arc;

use eastway_core::ServiceName;
use eastway_proto::discovery::v1::subscribe_response::Event;
use eastway_proto::discovery::v1::{Heartbeat, SubscribeRequest, SubscribeResponse};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Status, Streaming};

use super::told::Told;
use crate::feed::Feed;
use crate::hub::{Hub, raised};
use crate::peering;
use crate::topic::Topic;

type Outgoing = mpsc::Sender<Result<SubscribeResponse, Status>>;

/// Runs until the stream ends or the gateway drains. What is said first of a service waits for the peers that may offer it, if
/// those are connected to on demand.
pub(super) async fn run(hub: Arc<Hub>, mut incoming: Streaming<SubscribeRequest>, outgoing: Outgoing) {
    let following = hub.feed(Feed::of_sidecar());
    let feed = &following.feed;
    let mut told: HashMap<Topic, Told> = HashMap::new();
    let mut awaited = FuturesUnordered::new();
    let mut draining = hub.draining.subscribe();
    let mut settled = hub.settled.subscribe();
    let mut heartbeats = interval(hub.options.heartbeat);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ready = false;
    loop {
        tokio::select! {
            message = incoming.message() => {
                let Ok(Some(request)) = message else { return };
                let services = follow(&hub, feed, &mut told, request);
                awaited.extend(services.into_iter().map(|service| offered(&hub, service)));
                if feed.wanted() > hub.options.max_topics {
                    let status = Status::resource_exhausted("too much is followed on one stream");
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
            Some(service) = awaited.next() => feed.publish([&Topic::Service(service)]),
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

/// Takes a request over. Stops before it starts, so that one request can renew a topic. Answers the services of which peers are
/// to be asked first.
fn follow(hub: &Hub, feed: &Feed, told: &mut HashMap<Topic, Told>, request: SubscribeRequest) -> Vec<ServiceName> {
    for topic in request.stop.iter().filter_map(Topic::from_wire) {
        feed.unwant(&topic);
        told.remove(&topic);
    }
    let mut services = Vec::new();
    for topic in request.start.iter().filter_map(Topic::from_wire) {
        match &topic {
            Topic::Service(name) if hub.demand.is_heeded() => {
                services.extend(feed.expect(topic.clone()).then(|| name.clone()));
            }
            _ => {
                feed.want(topic);
            }
        }
    }
    services
}

/// The service, once the peers that may offer it were asked.
async fn offered(hub: &Hub, service: ServiceName) -> ServiceName {
    peering::follow(hub, &service).await;
    service
}

/// Tells everything that is news. False: the sidecar is gone.
async fn tell_all(hub: &Hub, feed: &Feed, told: &mut HashMap<Topic, Told>, outgoing: &Outgoing) -> bool {
    while let Some(topic) = feed.next() {
        // Formed when there is room, not before.
        let Ok(room) = outgoing.reserve().await else { return false };
        let news = told.entry(topic.clone()).or_insert_with(|| Told::new(topic)).news(hub, feed);
        let mut news = news.into_iter().map(|event| Ok(SubscribeResponse { event: Some(event) }));
        if let Some(first) = news.next() {
            room.send(first);
        }
        for more in news {
            if outgoing.send(more).await.is_err() {
                return false;
            }
        }
    }
    true
}
