//! The pool of HTTP/1.1 connections.

use std::time::Duration;

use eastway_transport::Io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::body::Body;
use crate::client::{ClientOptions, H1, Leased, Pool, PoolOptions};
use crate::message::Request;
use crate::server::serve;
use crate::sweeper::Sweeper;
use crate::testing::{channel, data, get, ok, options, paused, until};

/// A connection whose server answers every request with `name`; it ends when told.
async fn connection(name: &'static str) -> (H1, impl FnOnce()) {
    let (near, far) = Io::pair(1 << 16);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    tokio::task::spawn_local(async move {
        let handler = move |_: Request| async move { ok(Body::full(name)) };
        let (sweeper, options) = (Sweeper::new(), options());
        tokio::select! {
            _ = serve(far, &options, &sweeper, std::future::pending(), handler) => {}
            Ok(()) = stopped => {}
        }
    });
    let connection = H1::new(near, &ClientOptions::default());
    (connection, move || stop.send(()).expect("it serves"))
}

async fn used(leased: Leased<&'static str>) -> String {
    let response = leased.send(get("a")).await.expect("an answer");
    let (bytes, _) = response.body.collect(99).await.expect("whole");
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Puts a connection that was used once into the pool.
async fn fill(pool: &Pool<&'static str>, key: &'static str, name: &'static str) -> impl FnOnce() + use<> {
    let before = pool.idle();
    let (fresh, stop) = connection(name).await;
    assert_eq!(used(pool.lease(key, fresh)).await, name);
    until(|| pool.idle() == before + 1).await;
    stop
}

#[test]
fn the_connection_used_last_is_taken_first() {
    paused(async {
        let pool = Pool::new(PoolOptions::default());
        assert!(pool.take(&"x").is_none());
        let _stops = (fill(&pool, "x", "one").await, fill(&pool, "x", "two").await, fill(&pool, "y", "other").await);
        let last = pool.take(&"x").expect("two are idle");
        assert!(last.is_reused());
        assert_eq!(pool.idle(), 2);
        let first = pool.take(&"x").expect("one is idle");
        assert!(pool.take(&"x").is_none());
        assert_eq!((used(last).await, used(first).await), ("two".to_owned(), "one".to_owned()));
        until(|| pool.idle() == 3).await;
        assert_eq!(used(pool.take(&"x").expect("idle")).await, "one", "it came back last");
    });
}

#[test]
fn a_response_that_is_not_read_to_its_end_does_not_come_back() {
    paused(async {
        let pool = Pool::new(PoolOptions::default());
        // It is not here whole with its head.
        let (fresh, _stop) = connection("x".repeat(1 << 20).leak()).await;
        let response = pool.lease("x", fresh).send(get("a")).await.expect("an answer");
        drop(response);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(pool.idle(), 0);
    });
}

#[test]
fn a_response_without_a_body_comes_back_at_once() {
    paused(async {
        let pool = Pool::new(PoolOptions::default());
        let (fresh, _stop) = connection("").await;
        let response = pool.lease("x", fresh).send(get("a")).await.expect("an answer");
        until(|| pool.idle() == 1).await;
        drop(response);
    });
}

/// An upstream that answers as soon as it has a head, and reads on.
async fn early() -> H1 {
    let (near, mut far) = Io::pair(1 << 16);
    tokio::task::spawn_local(async move {
        let mut chunk = [0; 4096];
        let _ = far.read(&mut chunk).await;
        let _ = far.write_all(crate::testing::OK).await;
        while let Ok(1..) = far.read(&mut chunk).await {}
    });
    H1::new(near, &ClientOptions::default())
}

#[test]
fn a_connection_that_still_sends_comes_back_when_it_is_done() {
    paused(async {
        for (takes, idle) in [(Duration::from_millis(500), 1), (Duration::from_secs(5), 0)] {
            let pool = Pool::new(PoolOptions::default());
            let (sender, body) = channel();
            sender.send(data(b"abc")).await.expect("room");
            let response =
                pool.lease("x", early().await).send(crate::testing::post("a", body)).await.expect("an answer");
            response.body.collect(9).await.expect("whole");
            assert_eq!(pool.idle(), 0);
            tokio::time::sleep(takes).await;
            drop(sender);
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(pool.idle(), idle, "{takes:?}");
        }
    });
}

#[test]
fn a_connection_that_its_server_closed_is_never_handed_out() {
    paused(async {
        let pool = Pool::new(PoolOptions::default());
        let stop = fill(&pool, "x", "one").await;
        stop();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(pool.take(&"x").is_none());
        assert_eq!(pool.idle(), 0);
    });
}

#[test]
fn idle_connections_are_closed_after_their_time() {
    paused(async {
        let pool = Pool::new(PoolOptions { idle_timeout: Duration::from_secs(10), ..PoolOptions::default() });
        let _stop = fill(&pool, "x", "one").await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(used(pool.take(&"x").expect("not yet")).await, "one");
        until(|| pool.idle() == 1).await;
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(pool.idle(), 1, "use starts its time anew");
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(pool.idle(), 0);
    });
}

#[test]
fn the_pool_keeps_no_more_than_it_may() {
    paused(async {
        let pool = Pool::new(PoolOptions { max_idle_per_key: 2, max_idle: 3, ..PoolOptions::default() });
        let mut stops = Vec::new();
        for key in ["x", "x", "x", "y", "y"] {
            let (fresh, stop) = connection("one").await;
            used(pool.lease(key, fresh)).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            stops.push(stop);
        }
        assert_eq!(pool.idle(), 3);
        let held = [pool.take(&"x"), pool.take(&"x"), pool.take(&"x")];
        assert_eq!(held.iter().flatten().count(), 2);
    });
}

#[test]
fn retaining_closes_the_rest_and_the_pool_ends_its_task() {
    paused(async {
        let pool = Pool::new(PoolOptions::default());
        let _stops = (fill(&pool, "x", "one").await, fill(&pool, "y", "two").await);
        pool.retain(|key| *key == "y");
        assert_eq!(pool.idle(), 1);
        assert!(pool.take(&"x").is_none());
        let leased = pool.take(&"y").expect("kept");
        drop(pool);
        assert_eq!(used(leased).await, "two", "a connection outlives its pool");
    });
}
