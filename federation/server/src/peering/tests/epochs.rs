//! Which life of a gateway counts, whatever its store and its clock say.

use super::*;

/// A clock that is wrong by centuries.
const fn far_future() -> u64 {
    9_000_000_000_000
}

const fn long_ago() -> u64 {
    1_000
}

#[tokio::test(start_paused = true)]
async fn an_epoch_from_the_far_future_is_not_believed_and_does_not_kill_the_name() {
    let wan = Arc::new(Wan::default());
    let us = cluster(&wan, "us-east", "eu-west").await;
    us.run().await;
    let mut eu = cluster(&wan, "eu-west", "us-east").await;
    eu.options.wall_clock = far_future;
    eu.run().await;
    eu.sidecar("p1", "a", 1).registrar.registered().await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!((ready(&us), staleness(&us)), (None, None));
    eu.kill().await;
    eu.options.wall_clock = crate::options::wall_clock;
    let server = eu.run().await;
    assert!(server.epoch() < far_future());
    eventually("believed", || (ready(&us) == Some(1)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_ignored_because_of_a_later_life_hears_it_and_the_next_life_counts_again() {
    let (_wan, us, mut eu) = two_clusters().await;
    eu.sidecar("p1", "a", 1).registrar.registered().await;
    eventually("seen", || (ready(&us) == Some(1)).then_some(())).await;
    // A backup from before its first start, on a machine whose clock was set back.
    eu.kill().await;
    let meta = eu.store.get(keys::META).await.expect("an answer").expect("claimed");
    let mut meta: serde_json::Value = serde_json::from_slice(&meta.value).expect("JSON");
    meta["gateways"] = serde_json::json!({});
    eu.store.put(keys::META, meta.to_string().into()).await.expect("restored");
    eu.store.delete(&keys::epoch("gw-1")).await.expect("restored");
    let right = std::mem::replace(&mut eu.options.wall_clock, long_ago);
    let server = eu.run().await;
    assert_eq!(server.epoch(), long_ago());
    let fenced = eventually("it hears why", || server.status().fenced_by.into_iter().next()).await;
    assert!(fenced.0.contains("us-east") && fenced.1 > long_ago(), "{fenced:?}");
    drop(server);
    eu.kill().await;
    eu.options.wall_clock = right;
    let server = eu.run().await;
    eventually("fresh again", || (staleness(&us) == Some(Staleness::Fresh)).then_some(())).await;
    sleep(Duration::from_secs(5)).await;
    assert!(server.status().fenced_by.is_empty() && staleness(&us) == Some(Staleness::Fresh));
}
