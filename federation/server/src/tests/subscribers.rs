//! Discovery: what callers know, also when nobody answers.

use std::time::Duration;

use eastway_client::convert::SERVICE;
use eastway_client::link::channel_over;
use eastway_client::{Connector, DiscoveryOptions, LinkOptions};
use eastway_core::resource::Service;
use eastway_core::{Health, Reason, ServiceName};
use eastway_proto::discovery::v1::discovery_client::DiscoveryClient;
use eastway_proto::discovery::v1::subscribe_response::Event;
use eastway_proto::discovery::v1::update::Change;
use eastway_proto::discovery::v1::{ServiceDelta, ServiceView, SubscribeRequest, SubscribeResponse, Topic, Update};
use prost::Message;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;

use crate::document::DocumentId;
use crate::resources::Stored;
use crate::testing::{Gateway, eventually, payments};

#[tokio::test(start_paused = true)]
async fn unknown_names_are_answered_at_once_remembered_and_then_forgotten() {
    let gateway = Gateway::start("us-east").await;
    let (discovery, notes, _task) = gateway.caller(DiscoveryOptions::new("us-east"));
    let cart = ServiceName::new("shop", "cart");
    let asked = Instant::now();
    assert_eq!(discovery.resolve(&cart).await, Err(Reason::UnknownService));
    assert!(asked.elapsed() < Duration::from_millis(900));
    assert_eq!(discovery.status().subscriptions, 1);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(discovery.status().subscriptions, 0);
    assert_eq!(*notes.unused.lock(), std::slice::from_ref(&cart));

    let mut resources = gateway.resources.lock().clone();
    resources.services.insert(cart.clone(), Default::default());
    gateway.running().set_resources(resources);
    assert!(discovery.resolve(&cart).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_becomes_known_without_being_asked_for_again() {
    let gateway = Gateway::start("us-east").await;
    let (discovery, notes, _task) = gateway.caller(DiscoveryOptions::new("us-east"));
    let cart = ServiceName::new("shop", "cart");
    assert_eq!(discovery.resolve(&cart).await, Err(Reason::UnknownService));
    let mut resources = gateway.resources.lock().clone();
    resources.services.insert(cart.clone(), Default::default());
    gateway.running().set_resources(resources);
    eventually("known", || notes.services.lock().get(&cart).cloned()).await;
    gateway.running().set_resources(gateway.resources.lock().clone());
    eventually("unknown again", || (notes.unknown.lock().len() == 2).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_gateway_the_first_use_waits_one_second() {
    let gateway = Gateway::start("us-east").await;
    gateway.kill().await;
    let (discovery, _, _task) = gateway.caller(DiscoveryOptions::new("us-east"));
    let asked = Instant::now();
    assert_eq!(discovery.resolve(&payments()).await, Err(Reason::DiscoveryTimeout));
    assert_eq!(asked.elapsed().as_millis() / 100, 10);
    gateway.run().await;
    eventually("connected", || discovery.status().gateway).await;
    assert!(discovery.resolve(&payments()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_bounded_and_dropped_when_unused() {
    let gateway = Gateway::start("us-east").await;
    let options = DiscoveryOptions { max_subscriptions: 2, ..DiscoveryOptions::new("us-east") };
    let (discovery, notes, _task) = gateway.caller(options);
    assert!(discovery.resolve(&payments()).await.is_ok());
    let name = |n: u32| ServiceName::new("shop", format!("s{n}"));
    assert_eq!(discovery.resolve(&name(1)).await, Err(Reason::UnknownService));
    assert_eq!(discovery.resolve(&name(2)).await, Err(Reason::Overloaded));
    sleep(Duration::from_secs(595)).await;
    discovery.touch(&payments());
    sleep(Duration::from_secs(595)).await;
    assert!(discovery.view(&payments()).is_some(), "in use");
    sleep(Duration::from_secs(601)).await;
    assert_eq!(discovery.status().subscriptions, 0);
    assert!(notes.unused.lock().contains(&payments()));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_sidecar_serves_from_its_last_view_with_no_gateway_answering() {
    let gateway = Gateway::start("us-east").await;
    let sidecar = gateway.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    let state = tempfile::tempdir().expect("a directory");
    let options = DiscoveryOptions { state: Some(state.path().to_owned()), ..DiscoveryOptions::new("us-east") };
    let (discovery, _, task) = gateway.caller(options.clone());
    let before = discovery.resolve(&payments()).await.expect("known");
    discovery.shutdown();
    task.await.expect("ended");
    gateway.kill().await;

    let (discovery, notes, _task) = gateway.caller(options.clone());
    assert_eq!(discovery.view(&payments()).expect("known at once").endpoints, before.endpoints);
    assert_eq!(notes.services.lock()[&payments()].endpoints, before.endpoints);
    assert_eq!(notes.mesh.lock().clone().expect("a mesh").cluster.name, "us-east");
    assert!(discovery.resolve(&payments()).await.is_ok());

    let elsewhere = DiscoveryOptions { cluster: "eu-west".to_owned(), ..options.clone() };
    let (discovery, ..) = gateway.caller(elsewhere);
    assert!(discovery.view(&payments()).is_none(), "a last view of another cluster is not believed");
    std::fs::write(state.path().join("view.json"), "{").expect("written");
    let (discovery, ..) = gateway.caller(options);
    assert!(discovery.view(&payments()).is_none(), "a damaged one neither");
}

#[tokio::test(start_paused = true)]
async fn the_last_view_is_written_while_running_so_that_a_kill_loses_little() {
    let gateway = Gateway::start("us-east").await;
    let sidecar = gateway.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    let state = tempfile::tempdir().expect("a directory");
    let options = DiscoveryOptions { state: Some(state.path().to_owned()), ..DiscoveryOptions::new("us-east") };
    let (discovery, _, task) = gateway.caller(options.clone());
    discovery.resolve(&payments()).await.expect("known");
    sleep(Duration::from_secs(5)).await;
    task.abort();
    let (discovery, ..) = gateway.caller(options);
    assert_eq!(discovery.view(&payments()).expect("known").endpoints.len(), 1);
}

/// A bare stream that follows `topics`, with room for so many bytes on the way.
async fn follow(
    gateway: &Gateway,
    topics: &[(&str, &str)],
    window: u32,
) -> (mpsc::Sender<SubscribeRequest>, Streaming<SubscribeResponse>) {
    let (link, wire) = gateway.link("storefront", &[]);
    let io = wire.connect("gw-1").await.expect("connected");
    let options = LinkOptions { stream_window: window, ..link.options().clone() };
    let channel = channel_over(io, &options).await.expect("a channel");
    let topic = |(kind, name): &(&str, &str)| Topic { kind: (*kind).to_owned(), name: (*name).to_owned() };
    let (requests, outgoing) = mpsc::channel(1);
    let request = SubscribeRequest { start: topics.iter().map(topic).collect(), stop: vec![] };
    requests.send(request).await.expect("room");
    let stream = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    (requests, DiscoveryClient::new(channel).subscribe(stream).await.expect("a stream").into_inner())
}

/// The next event but for signs of life, in words.
async fn next(stream: &mut Streaming<SubscribeResponse>) -> String {
    loop {
        let message = timeout(Duration::from_secs(10), stream.message()).await.expect("in time").expect("no error");
        return match message.expect("not ended").event {
            Some(Event::Complete(topic)) => format!("complete {} {}", topic.kind, topic.name),
            Some(Event::Update(Update { kind, name, version, change: Some(change) })) => match change {
                Change::Snapshot(body) => format!("{kind} {name} {version} {}", String::from_utf8_lossy(&body)),
                Change::Removed(_) => format!("{kind} {name} removed"),
                Change::Delta(_) => format!("{kind} {name} {version} changed"),
            },
            _ => continue,
        };
    }
}

/// What counts in the cluster's store becomes `documents`, as another gateway would write it.
async fn store(gateway: &Gateway, documents: &[&Value]) {
    let stored = Stored::read(&gateway.store).await.expect("read");
    let documents = documents.iter().map(|one| (DocumentId::of(one).expect("an id"), (*one).clone())).collect();
    stored
        .replace(&gateway.store, &documents, &Default::default(), ("ann", 7, "gw-2"))
        .await
        .expect("written")
        .expect("nobody else writes");
}

#[tokio::test(start_paused = true)]
async fn resources_of_a_kind_that_only_a_later_release_knows_are_passed_on_as_they_are() {
    let gateway = Gateway::start("us-east").await;
    let widget = |name: &str, turns: u32| {
        json!({ "kind": "Widget", "apiVersion": "eastway.dev/v2", "metadata": { "name": name, "namespace": "shop" },
                "spec": { "turns": turns, "unheard": ["of"] } })
    };
    let (first, second) = (widget("w1", 1), widget("w2", 2));
    let other = json!({ "kind": "Gadget", "apiVersion": "eastway.dev/v2", "metadata": { "name": "g" }, "spec": {} });
    let topics = [("Widget", "*"), ("Gadget", "default/g"), ("nothing", "x")];
    let (_requests, mut stream) = follow(&gateway, &topics, 1 << 20).await;
    assert_eq!(next(&mut stream).await, "complete Widget *", "there is none");

    store(&gateway, &[&first, &other]).await;
    assert_eq!(next(&mut stream).await, format!("Gadget default/g 0 {other}"));
    assert_eq!(next(&mut stream).await, format!("Widget shop/w1 0 {first}"));
    let first = widget("w1", 7);
    store(&gateway, &[&first, &second]).await;
    assert_eq!(next(&mut stream).await, "Gadget default/g removed");
    assert_eq!(next(&mut stream).await, format!("Widget shop/w1 1 {first}"));
    assert_eq!(next(&mut stream).await, format!("Widget shop/w2 0 {second}"));
    store(&gateway, &[&second]).await;
    assert_eq!(next(&mut stream).await, "Widget shop/w1 removed");
}

#[tokio::test(start_paused = true)]
async fn what_callers_are_held_to_is_told_apart_from_the_service_and_before_anybody_serves_it() {
    let gateway = Gateway::start("us-east").await;
    let options =
        DiscoveryOptions { served: Some(ServiceName::new("shop", "cart")), ..DiscoveryOptions::new("us-east") };
    let (discovery, _, _task) = gateway.caller(options);
    let rules = discovery.served().await.expect("told");
    assert!(rules.protocol(80).is_some() && rules.export.is_empty(), "as for every service that nobody declares");
    assert_eq!(discovery.status().subscriptions, 0, "whoever serves need not know all who serve");
    let mut resources = gateway.resources.lock().clone();
    let cart = Service { export: vec!["eu-west".to_owned()], ..Service::default() };
    resources.services.insert(ServiceName::new("shop", "cart"), cart);
    gateway.running().set_resources(resources);
    for _ in 0..1000 {
        if discovery.served().await.expect("told").exports_to("eu-west") {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("never told");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_does_not_read_gets_the_latest_state_and_not_the_history() {
    let gateway = Gateway::start("us-east").await;
    let sidecar = gateway.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    let (_requests, mut stream) = follow(&gateway, &[(SERVICE, "shop/payments")], 2048).await;

    const FLIPS: usize = 2000;
    for flip in 0..FLIPS {
        let health = if flip % 2 == 0 { Health::Unready } else { Health::Ready };
        sidecar.registrar.set_health(health, "");
        eventually("flipped", || (gateway.health("p1") == Some(health)).then_some(())).await;
    }
    sidecar.registrar.set_health(Health::Draining, "");
    eventually("flipped", || (gateway.health("p1") == Some(Health::Draining)).then_some(())).await;

    let (mut last, mut updates, mut seq) = (0, 0, 0);
    while last != eastway_proto::discovery::v1::Health::Draining as i32 {
        let message = timeout(Duration::from_secs(10), stream.message()).await.expect("in time").expect("no error");
        let Some(Event::Update(update)) = message.expect("not ended").event else { continue };
        match update.change {
            Some(Change::Snapshot(body)) => {
                let view = ServiceView::decode(&*body).expect("a view");
                (last, seq) = (view.endpoints[0].health, update.version);
            }
            Some(Change::Delta(body)) => {
                assert_eq!(update.version, seq + 1, "no holes");
                let delta = ServiceDelta::decode(&*body).expect("a difference");
                (last, seq) = (delta.upsert[0].health, update.version);
                updates += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(updates < FLIPS / 10, "{updates} updates of {FLIPS} flips");
}
