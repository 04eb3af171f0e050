//! The gateways in the store: which are there, and what is left of those that are gone.

use std::sync::Arc;
use std::time::Duration;

use eastway_registry::membership::{Collector, GatewayNews, GatewayReader, to_json};
use tokio::time::interval;

use super::slices::Slices;
use crate::hub::Hub;
use crate::store::keys;
use crate::store::{Commit, Election, Follower, Listing, Store, StoreSession};

/// The longest time between two looks of the leader at its siblings.
const COLLECT_INTERVAL: Duration = Duration::from_secs(5);

/// Loads the siblings that a store lists, whose addresses are known then. What fails here is told when the store is followed.
pub(crate) async fn load(hub: &Hub, from: &dyn Store, reader: &mut GatewayReader) {
    for entry in from.list(keys::GATEWAYS).await.unwrap_or_default().entries {
        if let Some(news) = reader.load(&entry) {
            hear(hub, news);
        }
    }
}

/// Keeps the own key in the store, however it is lost. Follows those of siblings, after those that were loaded, and tells the
/// catalogue which are there. Runs until it is dropped.
pub(crate) async fn follow(hub: Arc<Hub>, session: Arc<StoreSession>, slices: Arc<Slices>, mut reader: GatewayReader) {
    let mut gateways = Follower::new(&**session.store(), keys::GATEWAYS);
    while let Some(change) = gateways.next().await {
        for news in reader.change(&change, gateways.known()) {
            match news {
                GatewayNews::OwnKeyTaken => slices.doubt(),
                GatewayNews::OwnKeyLost => keep_own(&session, &hub, &reader, &slices),
                news => hear(&hub, news),
            }
        }
    }
}

/// Takes note of a sibling, and of where it is reached. One whose key is gone may merely be cut off from the store: its address
/// is kept for as long as it has endpoints.
fn hear(hub: &Hub, news: GatewayNews) {
    let (gateway, address) = match news {
        GatewayNews::Registered(gateway, address) => {
            hub.change(|catalogue, now| catalogue.gateway_registered(&gateway, now));
            (gateway, address)
        }
        GatewayNews::Unregistered(gateway) => {
            hub.change(|catalogue, _| catalogue.gateway_unregistered(&gateway));
            (gateway, None)
        }
        GatewayNews::OwnKeyLost | GatewayNews::OwnKeyTaken => return,
    };
    let is_member = hub.read(|catalogue, _| catalogue.siblings().contains(&*gateway));
    hub.siblings.send_if_modified(|siblings| match address {
        Some(address) => siblings.insert(gateway, address.clone()) != Some(address),
        None => !is_member && siblings.remove(&gateway).is_some(),
    });
}

fn keep_own(session: &StoreSession, hub: &Hub, reader: &GatewayReader, slices: &Slices) {
    if slices.replaced().borrow().is_none()
        && session.lease().is_some()
        && let Err(error) = session.keep(&keys::gateway(&hub.gateway), to_json(reader.own()))
    {
        tracing::warn!(error = %error, "cannot keep this gateway's key");
    }
}

/// As the leader, removes what is left of gateways that have been gone for long: endpoints that do not answer, or that
/// registered elsewhere since. What answers stays. Runs until it is dropped.
pub(crate) async fn collect(hub: Arc<Hub>, store: Arc<dyn Store>, election: Arc<Election>) {
    let mut gateways = Follower::new(&*store, keys::GATEWAYS);
    let mut collector = Collector::default();
    let after = hub.options.collect_after;
    let mut rounds = interval((after / 4).clamp(Duration::from_millis(100), COLLECT_INTERVAL));
    loop {
        tokio::select! {
            change = gateways.next() => match change {
                Some(change) => collector.hear(&change),
                None => return,
            },
            _ = rounds.tick() => {
                if !gateways.known().is_ready() {
                    continue;
                }
                let due = hub.read(|catalogue, now| collector.due(catalogue, gateways.known(), now, after));
                if !due.is_empty() && let Ok(listing) = store.list(keys::SERVICES).await {
                    for gateway in due {
                        collect_gateway(&hub, &*store, &election, &gateway, &listing).await;
                    }
                }
            }
        }
    }
}

async fn collect_gateway(hub: &Hub, store: &dyn Store, election: &Election, gateway: &str, listing: &Listing) {
    for entry in &listing.entries {
        let Some(leader) = election.fence() else { return };
        let collection = hub.read(|catalogue, _| Collector::collect(catalogue, gateway, entry, leader));
        let Some(collection) = collection else { continue };
        let removed = collection.removed;
        match store.txn(collection.txn).await {
            Ok(Commit::Applied(_)) => {
                tracing::info!(gateway, key = entry.key, removed, "collected endpoints of a gateway that is gone");
            }
            Ok(Commit::Conflict(_)) => tracing::debug!(gateway, key = entry.key, "not collected: it is not as it was"),
            Err(error) => tracing::warn!(gateway, error = %error, "cannot collect a slice"),
        }
    }
}
