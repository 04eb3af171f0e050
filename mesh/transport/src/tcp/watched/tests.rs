//! What shows that a host is gone, and what does not.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::tcp::{DialOptions, bind, dial};
use crate::testing::*;

const LIMIT: Duration = Duration::from_secs(1);

fn heard(silence: Duration) -> Heard {
    Heard { silence, unacknowledged: 0, retransmitted: 0, unanswered: 0, backoff: 0 }
}

#[test]
fn only_silence_that_was_asked_into_shows_that_a_host_is_gone() {
    let silent = heard(LIMIT);
    assert!(!silent.is_gone(LIMIT), "nothing was asked");
    let sent = Heard { unacknowledged: 1, ..silent };
    assert!(!sent.is_gone(LIMIT), "it was sent just now");
    assert!(Heard { retransmitted: 3, ..sent }.is_gone(LIMIT));
    assert!(!Heard { silence: LIMIT / 2, retransmitted: 3, ..sent }.is_gone(LIMIT));
    let probing = Heard { unanswered: 1, backoff: 4, ..silent };
    assert!(!probing.is_gone(LIMIT), "the answer to a probe may be under way");
    assert!(Heard { unanswered: 2, ..probing }.is_gone(LIMIT));
}

#[test]
fn what_may_still_arrive_is_looked_at_again() {
    assert!(heard(LIMIT).is_quiet());
    assert!(!Heard { unacknowledged: 1, ..heard(LIMIT) }.is_quiet());
    assert!(!Heard { backoff: 1, ..heard(LIMIT) }.is_quiet(), "its window is closed");
}

#[tokio::test]
async fn a_peer_that_does_not_read_for_many_times_the_limit_gets_everything_all_the_same() {
    const LIMIT: Duration = Duration::from_millis(50);
    let listener = TcpListener::from_std(bind(LOOPBACK).expect("bound")).expect("registered");
    let address = listener.local_addr().expect("bound");
    let options = DialOptions { user_timeout: None, ..DialOptions::default() };
    let mut near = Watched::new(soon(dial(address, &options)).await.expect("connected"), LIMIT);
    let (mut far, _) = soon(listener.accept()).await.expect("accepted");
    let all = vec![7; 32 << 20];
    let writing = tokio::spawn(async move {
        near.write_all(&all).await?;
        near.shutdown().await
    });
    // The window must have been closed for long: that it was is what the test is about.
    tokio::time::sleep(20 * LIMIT).await;
    assert!(!writing.is_finished(), "the kernel takes it all: the test tests nothing");
    let mut got = Vec::new();
    soon(far.read_to_end(&mut got)).await.expect("whole");
    assert_eq!(got.len(), 32 << 20);
    writing.await.expect("no panic").expect("everything was sent");
}
