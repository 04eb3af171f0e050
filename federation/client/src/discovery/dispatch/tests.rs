//! Updates of all kinds, as this version and later ones send them. (Discovery as a whole is tested with real gateways in
//! `federation/server`.)

use std::time::Duration;

use eastway_core::view::{MeshView, ServiceView};
use eastway_core::{EndpointId, LoadReport, ServiceName};
use eastway_proto::discovery::v1::SubscribeResponse;
use eastway_proto::discovery::v1::subscribe_response::Event;
use prost::Message;

use super::super::{DiscoveryOptions, Kinds};
use super::*;
use crate::sink::Sink;

/// What a gateway of this release says on a stream, one message a line, in hexadecimal. It stays as it is: whoever changes
/// the protocol still reads it.
const THIS_RELEASE: &str = include_str!("recorded/this-release.txt");
/// The same of a gateway of a later release, which sends more than this one knows.
const LATER_RELEASE: &str = include_str!("recorded/later-release.txt");

const NOW: Timestamp = Timestamp::from_millis(60_000);

/// Notes what it is told.
#[derive(Debug, Default)]
struct Notes {
    mesh: Mutex<Option<Arc<MeshView>>>,
    services: Mutex<Vec<Arc<ServiceView>>>,
    loads: Mutex<Vec<(EndpointId, LoadReport)>>,
    unknown: Mutex<Vec<ServiceName>>,
}

impl Sink for Notes {
    fn mesh(&self, mesh: &Arc<MeshView>) {
        *self.mesh.lock() = Some(Arc::clone(mesh));
    }

    fn service(&self, service: &Arc<ServiceView>) {
        self.services.lock().push(Arc::clone(service));
    }

    fn loads(&self, _service: &ServiceName, loads: &[(EndpointId, LoadReport)]) {
        self.loads.lock().extend(loads.iter().cloned());
    }

    fn unknown(&self, service: &ServiceName) {
        self.unknown.lock().push(service.clone());
    }
}

/// A node that serves and calls shop/payments.
struct Node {
    notes: Arc<Notes>,
    common: Arc<Common>,
    kinds: Kinds,
    dispatcher: Dispatcher,
}

fn payments() -> ServiceName {
    ServiceName::new("shop", "payments")
}

fn node() -> Node {
    let notes = Arc::new(Notes::default());
    let common = Common::new(Arc::clone(&notes) as Arc<dyn Sink>);
    let options = DiscoveryOptions { served: Some(payments()), ..DiscoveryOptions::new("us-east") };
    let (kinds, dispatcher) = Kinds::new(&common, &options);
    kinds.services.want(&payments()).expect("room");
    Node { notes, common, kinds, dispatcher }
}

/// The messages of a recorded stream.
fn recorded(text: &str) -> Vec<SubscribeResponse> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hexadecimal");
    let bytes = |line: &str| line.as_bytes().chunks(2).map(byte).collect::<Vec<_>>();
    lines.map(|line| SubscribeResponse::decode(&*bytes(line)).expect("a message")).collect()
}

impl Node {
    /// Takes a recorded stream.
    fn hears(&self, text: &str) -> Result<(), UpdateError> {
        recorded(text).into_iter().try_for_each(|message| match message.event {
            Some(Event::Update(update)) => self.dispatcher.take(update, NOW),
            Some(Event::Heartbeat(_) | Event::Complete(_)) | None => Ok(()),
        })
    }

    /// What is known of shop/payments: endpoints with their health, and the zones of other clusters.
    fn known(&self) -> String {
        let Some(Ok(view)) = self.kinds.services.look_up(&payments()) else { return "unknown".to_owned() };
        let endpoints = view.endpoints.iter().map(|e| format!("{} {:?} {}", e.id, e.health, e.address));
        let zones = view.remote.iter().map(|remote| format!("{} {}", remote.zone, remote.summary.ready));
        endpoints.chain(zones).collect::<Vec<_>>().join(", ")
    }
}

#[tokio::test]
async fn what_this_release_said_is_understood_for_ever() {
    let node = node();
    node.hears(THIS_RELEASE).expect("understood");
    assert_eq!(node.known(), "p1 Degraded 10.0.0.1:15008, p3 Ready 10.0.0.3:15008, eu-west/a 2");
    let mesh = node.kinds.mesh.view().expect("a mesh");
    let peers: Vec<_> = mesh.peers.iter().map(|peer| (peer.cluster.name.as_str(), peer.min_rtt)).collect();
    assert_eq!((mesh.cluster.name.as_str(), peers), ("us-east", vec![("eu-west", Some(Duration::from_millis(80)))]));
    let rules = node.kinds.served.rules(Duration::ZERO).await.expect("rules");
    assert!(rules.exports_to("eu-west") && rules.protocol(9000).is_some());
    let loads = [
        (EndpointId::new("p1"), LoadReport { active_requests: 4, utilisation: Some(0.5), error_rate: 0.0 }),
        (EndpointId::new("p1"), LoadReport { active_requests: 5, utilisation: None, error_rate: 0.25 }),
    ];
    assert_eq!(*node.notes.loads.lock(), loads);
    assert_eq!(*node.notes.unknown.lock(), [payments()], "it was offered by nobody in between");
}

#[test]
fn what_a_later_release_says_besides_is_passed_over() {
    let node = node();
    node.hears(LATER_RELEASE).expect("unknown kinds, fields, changes and events are no failure");
    assert_eq!(node.known(), "p1 Ready 10.0.0.1:15008");
}

#[test]
fn a_hole_in_the_stream_is_noticed_and_what_is_not_followed_passed_over() {
    let node = node();
    let update = |kind: &str, name: &str, version, change| Update {
        kind: kind.to_owned(),
        name: name.to_owned(),
        version,
        change: Some(change),
    };
    let take = |update: Update| node.dispatcher.take(update, NOW);
    let delta = |version| update("service", "shop/payments", version, Change::Delta(Vec::new()));
    let snapshot = |version| update("service", "shop/payments", version, Change::Snapshot(Vec::new()));
    assert!(matches!(take(delta(1)), Err(UpdateError::Gap { last: None, .. })), "no snapshot came before");
    take(snapshot(0)).expect("taken");
    take(delta(1)).expect("taken");
    assert!(matches!(take(delta(3)), Err(UpdateError::Gap { last: Some(1), found: 3, .. })));
    node.dispatcher.disconnected();
    assert!(take(delta(2)).is_err(), "nor on this stream");
    take(snapshot(0)).expect("taken");
    take(update("service", "shop/payments", 0, Change::Removed(Default::default()))).expect("taken");
    assert!(take(delta(1)).is_err(), "there is nothing to differ from");
    take(update("service", "shop/cart", 7, Change::Delta(Vec::new()))).expect("nobody follows it");
    let broken = take(update("service", "shop/payments", 0, Change::Snapshot(vec![0xff])));
    assert!(matches!(broken, Err(UpdateError::Unreadable { .. })));
    take(update("mesh", "", 0, Change::Snapshot(Vec::new()))).expect_err("a mesh has a cluster");
}

#[test]
fn what_is_kept_of_unknown_kinds_is_kept_on_and_what_is_damaged_left_out() {
    let first = node();
    first.hears(THIS_RELEASE).expect("understood");
    let foreign = Kept { kind: "shift".to_owned(), name: "zone".to_owned(), body: serde_json::json!({ "until": 7 }) };
    let damaged = Kept { kind: "service".to_owned(), name: "shop/cart".to_owned(), body: serde_json::json!(7) };
    let mut kept = first.dispatcher.kept(NOW);
    kept.insert(0, foreign.clone());
    kept.push(damaged.clone());

    let next = node();
    next.dispatcher.restore(kept, NOW);
    assert_eq!(next.known(), first.known());
    assert!(next.notes.mesh.lock().is_some(), "told before the services, which need it");
    let again = next.dispatcher.kept(NOW);
    assert!(again.contains(&foreign) && !again.contains(&damaged));
    assert_eq!(again.len(), 4, "mesh, rules, payments, and what is not known: {again:?}");
}

#[test]
fn a_stream_is_asked_for_everything_and_then_for_the_news() {
    let node = node();
    let words = |request: SubscribeRequest| {
        let mut words: Vec<_> =
            request.start.into_iter().map(|topic| format!("+{} {}", topic.kind, topic.name)).collect();
        words.extend(request.stop.into_iter().map(|topic| format!("-{} {}", topic.kind, topic.name)));
        words
    };
    let everything = ["+mesh ", "+served shop/payments", "+service shop/payments", "+load shop/payments"];
    assert_eq!(words(node.dispatcher.everything()), everything);
    assert_eq!(node.dispatcher.news(), None);
    node.kinds.services.want(&ServiceName::new("shop", "cart")).expect("room");
    assert_eq!(
        node.dispatcher.news().map(words),
        Some(vec!["+service shop/cart".to_owned(), "+load shop/cart".to_owned()])
    );
    node.dispatcher.tick(node.common.clock.now() + Duration::from_secs(3_600));
    let news = node.dispatcher.news().map(words).expect("both are unused");
    assert_eq!(news.len(), 4);
    assert!(news.iter().all(|word| word.starts_with('-')), "{news:?}");
}
