//! Discovery: what callers know, also when nobody answers.

use std::time::Duration;

use eastway_client::link::channel_over;
use eastway_client::{Connector, DiscoveryOptions, LinkOptions};
use eastway_core::{Health, Reason, ServiceName};
use eastway_proto::discovery::v1::SubscribeRequest;
use eastway_proto::discovery::v1::discovery_client::DiscoveryClient;
use eastway_proto::discovery::v1::subscribe_response::Event;
use tokio::time::{Instant, sleep, timeout};

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

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_does_not_read_gets_the_latest_state_and_not_the_history() {
    let gateway = Gateway::start("us-east").await;
    let sidecar = gateway.sidecar("p1", "a", 1);
    sidecar.registrar.registered().await;
    let (link, wire) = gateway.link("storefront", &[]);
    let io = wire.connect("gw-1").await.expect("connected");
    let narrow = LinkOptions { stream_window: 2048, ..link.options().clone() };
    let channel = channel_over(io, &narrow).await.expect("a channel");
    let request = SubscribeRequest { subscribe: vec![payments().to_string()], unsubscribe: vec![] };
    let (requests, outgoing) = tokio::sync::mpsc::channel(1);
    requests.send(request).await.expect("room");
    let stream = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut stream = DiscoveryClient::new(channel).subscribe(stream).await.expect("a stream").into_inner();

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
        match message.expect("not ended").event {
            Some(Event::Service(service)) => (last, seq) = (service.endpoints[0].health, service.seq),
            Some(Event::Delta(delta)) => {
                assert_eq!(delta.seq, seq + 1, "no holes");
                (last, seq) = (delta.upsert[0].health, delta.seq);
                updates += 1;
            }
            _ => {}
        }
    }
    assert!(updates < FLIPS / 10, "{updates} updates of {FLIPS} flips");
}
