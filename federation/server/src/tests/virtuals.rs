//! Virtual addresses of names: one number for each, whoever asks.

use eastway_client::DiscoveryOptions;
use eastway_core::{MeshHost, Reason};

use crate::store::{Store as _, keys};
use crate::testing::Gateway;

fn host(name: &str) -> MeshHost {
    name.parse().expect("a name")
}

/// What a caller of the gateway that knows nothing yet is told.
async fn number(gateway: &Gateway, name: &str) -> Result<u32, Reason> {
    let (discovery, _notes, _task) = gateway.caller(DiscoveryOptions::new("us-east"));
    discovery.address(&host(name)).await
}

#[tokio::test(start_paused = true)]
async fn a_name_has_one_number_whichever_gateway_is_asked_and_keeps_it_through_their_lives() {
    let first = Gateway::start("us-east").await;
    let second = first.sibling("gw-2");
    second.run().await;
    let names = ["shop/payments", "shop/payments/us-east"];
    let wide = number(&first, names[0]).await.expect("a number");
    let one = number(&second, names[1]).await.expect("a number");
    assert_ne!(wide, one);
    for gateway in [&first, &second] {
        assert_eq!([number(gateway, names[0]).await, number(gateway, names[1]).await], [Ok(wide), Ok(one)]);
    }
    first.kill().await;
    first.run().await;
    assert_eq!(number(&first, names[0]).await, Ok(wide));
}

#[tokio::test(start_paused = true)]
async fn names_that_nobody_offers_use_no_numbers_up() {
    let gateway = Gateway::start("us-east").await;
    for name in ["shop/nobody", "shop/payments/mars"] {
        assert_eq!(number(&gateway, name).await, Err(Reason::DiscoveryTimeout), "{name}");
    }
    let held = gateway.store.list(keys::VIRTUALS).await.expect("the store");
    assert!(held.entries.is_empty(), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_told_nothing_asks_again_and_follows_no_more_names_than_it_may() {
    let gateway = Gateway::start("us-east").await;
    let options = DiscoveryOptions { max_addresses: 1, ..DiscoveryOptions::new("us-east") };
    let (discovery, _notes, _task) = gateway.caller(options);
    let ledger = host("shop/ledger");
    assert_eq!(discovery.address(&ledger).await, Err(Reason::DiscoveryTimeout));
    let mut resources = gateway.resources.lock().clone();
    let service = resources.services.values().next().cloned().expect("payments");
    resources.services.insert(ledger.service.clone(), service);
    gateway.running().set_resources(resources);
    let number = discovery.address(&ledger).await.expect("it is offered now");
    assert_eq!(discovery.address(&host("shop/payments")).await, Err(Reason::Overloaded));
    assert_eq!(discovery.addresses(), [(ledger.clone(), number)]);
    discovery.release_address(&ledger);
    assert!(discovery.address(&host("shop/payments")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn numbers_are_kept_on_disk_for_a_start_without_a_gateway() {
    let gateway = Gateway::start("us-east").await;
    let state = tempfile::tempdir().expect("a folder");
    let options = || DiscoveryOptions { state: Some(state.path().to_owned()), ..DiscoveryOptions::new("us-east") };
    let (discovery, _notes, task) = gateway.caller(options());
    let number = discovery.address(&host("shop/payments")).await.expect("a number");
    discovery.shutdown();
    task.await.expect("ended");
    gateway.kill().await;
    let (discovery, _notes, _task) = gateway.caller(options());
    assert_eq!(discovery.address(&host("shop/payments")).await, Ok(number));
}
