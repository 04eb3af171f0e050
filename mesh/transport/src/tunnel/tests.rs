//! What holds for every tunnel, over QUIC and over TCP: how streams are opened, refused and ended, and many at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eastway_core::{EndpointId, LoadReport, Reason, SpiffeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::StreamError;
use crate::io::Io;
use crate::testing::*;
use crate::tunnel::{MAX_MESSAGE, OpenError, OpeningError, StreamAccepted, StreamOpen, Tunnel};

/// Makes a test of each function for each transport.
macro_rules! over_each {
    ($($name:ident)*) => {
        mod over_quic {
            $(#[tokio::test] async fn $name() { super::$name(super::Over::Quic).await })*
        }
        mod over_tcp {
            $(#[tokio::test] async fn $name() { super::$name(super::Over::Tcp).await })*
        }
    };
}

over_each! {
    a_stream_carries_bytes_both_ways_and_each_end_by_itself
    the_opening_messages_arrive_and_early_bytes_follow
    a_refusal_carries_its_reason
    a_message_over_the_limit_is_not_sent
    a_message_that_breaks_the_contract_is_refused
    an_opener_that_takes_too_long_is_refused
    an_opener_that_is_slow_holds_nobody_up
    a_peer_speaks_for_callers_of_its_own_trust_domain_only
    a_peer_that_does_not_answer_costs_the_opening_timeout
    an_aborted_stream_carries_its_reason_in_both_directions
    a_dropped_stream_is_never_taken_for_one_that_ended
    what_was_sent_before_the_end_arrives_although_the_stream_is_dropped
    the_end_of_a_tunnel_ends_its_streams_with_its_reason
    a_tunnel_whose_peer_is_slow_stays_usable
    counts_follow_the_streams
    many_streams_run_at_once
    streams_beyond_the_limit_wait_for_room_and_then_time_out
    a_reader_that_stalls_does_not_stop_the_others
}

fn open() -> StreamOpen {
    StreamOpen {
        zone: Some("a".to_owned()),
        exclude: vec![EndpointId::new("payments-2")],
        ..StreamOpen::new("payments.shop.mesh.internal:80", caller())
    }
}

fn accepted() -> StreamAccepted {
    let load = LoadReport::from_header("active=1");
    StreamAccepted { endpoint: EndpointId::new("payments-1"), zone: Some("b".to_owned()), load }
}

/// A stream that was opened and accepted: both ends.
async fn stream(out: &Arc<dyn Tunnel>, back: &Arc<dyn Tunnel>) -> (Io, Io) {
    let message = open();
    let accepting = async {
        let opening = soon(back.accept()).await.expect("open").opening().await.expect("an opening message");
        opening.accept(accepted()).await.expect("answered")
    };
    let (near, far) = tokio::join!(soon(out.open(&message, Bytes::new())), accepting);
    (near.expect("accepted").1, far)
}

async fn a_stream_carries_bytes_both_ways_and_each_end_by_itself(over: Over) {
    let (out, back) = over.tunnel(Limits::default()).await;
    let (mut near, mut far) = stream(&out, &back).await;
    send_all(&mut near, b"request").await;
    assert_eq!(read_all(&mut far).await, b"request");
    // The caller has ended its half; the answer still comes.
    send_all(&mut far, b"response").await;
    assert_eq!(read_all(&mut near).await, b"response");

    let (mut near, mut far) = stream(&out, &back).await;
    send_all(&mut far, b"greeting").await;
    assert_eq!(read_all(&mut near).await, b"greeting");
    send_all(&mut near, b"farewell").await;
    assert_eq!(read_all(&mut far).await, b"farewell");
}

async fn the_opening_messages_arrive_and_early_bytes_follow(over: Over) {
    let (out, back) = over.tunnel(Limits::default()).await;
    let early = Bytes::from(noise(16 << 10, 3));
    let sent = early.clone();
    let serving = async {
        let opening = soon(back.accept()).await.expect("open").opening().await.expect("an opening message");
        assert_eq!((opening.open(), &**opening.peer()), (&open(), &SpiffeId::gateway(US, "gw-1")));
        let mut far = opening.accept(accepted()).await.expect("answered");
        let mut first = vec![0; 16 << 10];
        soon(far.read_exact(&mut first)).await.expect("read");
        assert!(first == sent);
        far
    };
    let message = open();
    let (near, _far) = tokio::join!(soon(out.open(&message, early)), serving);
    let (answer, near) = near.expect("accepted");
    assert_eq!(answer, accepted());
    assert_eq!(near.peer_id().as_deref(), Some(&SpiffeId::gateway(EU, "gw-1")));
}

async fn a_refusal_carries_its_reason(over: Over) {
    let (out, back) = over.tunnel(Limits::default()).await;
    for reason in [Reason::NoReadyEndpoint, Reason::NotExported, Reason::Draining] {
        let message = open();
        let (opened, ()) = tokio::join!(soon(out.open(&message, Bytes::from_static(&[1; 5000]))), async {
            let opening = soon(back.accept()).await.expect("open").opening().await.expect("an opening message");
            opening.refuse(reason, "as told").await;
        });
        let error = opened.expect_err("refused");
        assert_eq!(error.reason(), reason);
        assert!(matches!(error, OpenError::Refused { message, .. } if message == "as told"));
    }
    assert_eq!(out.stats().streams, 0);
}

async fn a_message_over_the_limit_is_not_sent(over: Over) {
    let (out, _back) = over.tunnel(Limits::default()).await;
    let message = StreamOpen { baggage: "b".repeat(MAX_MESSAGE), ..open() };
    let error = soon(out.open(&message, Bytes::new())).await.expect_err("too large");
    assert!(matches!(error, OpenError::TooLarge));
    assert_eq!(error.reason(), Reason::MalformedOpen);
}

/// Sends `bytes` instead of an opening message: what the server makes of it, and what it answers.
async fn opening_of(over: Over, options: Limits, bytes: &[u8]) -> (OpeningError, Vec<u8>) {
    let (out, back) = over.tunnel(options).await;
    let mut near = out.open_raw().await.expect("opened");
    near.write_all(bytes).await.expect("written");
    let incoming = soon(back.accept()).await.expect("a stream");
    let error = soon(incoming.opening()).await.expect_err("refused");
    let answer = read_all(&mut near).await;
    (error, answer)
}

async fn a_message_that_breaks_the_contract_is_refused(over: Over) {
    let oversize = (MAX_MESSAGE as u32 + 1).to_be_bytes();
    let garbage = b"\0\0\0\x04\xff\xff\xff\xff";
    for bytes in [&oversize[..], garbage] {
        let (error, answer) = opening_of(over, Limits::default(), bytes).await;
        assert_eq!(error.reason(), Reason::MalformedOpen);
        // The answer is a whole message, of which the reason's number is a part.
        assert_eq!(answer[..4], (answer.len() as u32 - 4).to_be_bytes());
        assert!(answer.contains(&(Reason::MalformedOpen.number() as u8)));
    }
}

async fn an_opener_that_takes_too_long_is_refused(over: Over) {
    let options = Limits { opening_timeout: Duration::from_millis(50), ..Limits::default() };
    let (error, answer) = opening_of(over, options, b"\0\0\0\x09slow").await;
    assert!(matches!(error, OpeningError::Timeout), "{error:?}");
    assert!(answer.contains(&(Reason::StreamOpenTimeout.number() as u8)));
}

async fn an_opener_that_is_slow_holds_nobody_up(over: Over) {
    let (out, back) = over.tunnel(Limits::default()).await;
    let mut slow = out.open_raw().await.expect("opened");
    slow.write_all(b"\0").await.expect("written");
    let _waiting = soon(back.accept()).await.expect("the slow stream");
    let (mut near, mut far) = stream(&out, &back).await;
    send_all(&mut near, b"fast").await;
    assert_eq!(read_all(&mut far).await, b"fast");
}

async fn a_peer_speaks_for_callers_of_its_own_trust_domain_only(over: Over) {
    let (out, back) = over.tunnel(Limits::default()).await;
    let message = StreamOpen::new("payments.shop.mesh.internal:80", SpiffeId::workload(EU, "shop", "payments"));
    let (opened, refused) = tokio::join!(soon(out.open(&message, Bytes::new())), async {
        soon(back.accept()).await.expect("open").opening().await.expect_err("refused")
    });
    assert!(matches!(refused, OpeningError::ForeignSource(id) if id == message.source));
    assert_eq!(opened.expect_err("refused").reason(), Reason::IdentityRefused);
}

async fn a_peer_that_does_not_answer_costs_the_opening_timeout(over: Over) {
    let options = Limits { open_timeout: Duration::from_millis(50), ..Limits::default() };
    let (out, back) = over.tunnel(options).await;
    let error = soon(out.open(&open(), Bytes::new())).await.expect_err("no answer");
    assert!(matches!(error, OpenError::Timeout));
    assert_eq!(error.reason(), Reason::StreamOpenTimeout);
    // The peer learns that nobody waits any more, unless the reset has overtaken the message already.
    if let Ok(opening) = soon(back.accept()).await.expect("open").opening().await {
        let mut far = opening.accept(accepted()).await.expect("the reply fits into the window");
        let error = read_error(&mut far).await;
        assert_eq!(StreamError::of(&error), Some(&StreamError::Reset(Reason::CallerGone)));
    }
}

async fn an_aborted_stream_carries_its_reason_in_both_directions(over: Over) {
    let (out, back) = over.tunnel(Limits::default()).await;
    let (near, mut far) = stream(&out, &back).await;
    near.abort(Reason::IdleTimeout);
    let error = read_error(&mut far).await;
    assert_eq!(StreamError::of(&error), Some(&StreamError::Reset(Reason::IdleTimeout)));
    let error = write_error(&mut far).await;
    // QUIC tells the two directions apart.
    let told = StreamError::of(&error).map(StreamError::reason);
    assert_eq!(told, Some(Reason::IdleTimeout), "{error:?}");
}

async fn a_dropped_stream_is_never_taken_for_one_that_ended(over: Over) {
    let (out, back) = over.tunnel(Limits::default()).await;
    let (near, mut far) = stream(&out, &back).await;
    drop(near);
    assert_eq!(StreamError::of(&read_error(&mut far).await), Some(&StreamError::Reset(Reason::CallerGone)));
    let (mut near, far) = stream(&out, &back).await;
    drop(far);
    assert_eq!(StreamError::of(&read_error(&mut near).await), Some(&StreamError::Reset(Reason::UpstreamReset)));
}

async fn what_was_sent_before_the_end_arrives_although_the_stream_is_dropped(over: Over) {
    let (out, back) = over.tunnel(Limits::default()).await;
    let (mut near, mut far) = stream(&out, &back).await;
    let bytes = noise(1 << 20, 4);
    send_all(&mut near, &bytes).await;
    drop(near);
    assert!(read_all(&mut far).await == bytes);
}

async fn the_end_of_a_tunnel_ends_its_streams_with_its_reason(over: Over) {
    let (out, back) = over.tunnel(Limits::default()).await;
    let (mut near, _far) = stream(&out, &back).await;
    back.close(Reason::Draining);
    assert_eq!(StreamError::of(&read_error(&mut near).await), Some(&StreamError::Lost(Reason::Draining)));
    assert_eq!(soon(out.closed()).await, Reason::Draining);
    assert!(out.is_closed() && soon(out.accept()).await.is_none());
    let error = soon(out.open(&open(), Bytes::new())).await.expect_err("closed");
    assert_eq!(error.reason(), Reason::Draining);
}

async fn a_tunnel_whose_peer_is_slow_stays_usable(over: Over) {
    let options = Limits { open_timeout: Duration::from_millis(100), ..Limits::default() };
    let (out, back) = over.tunnel(options).await;
    let message = open();
    let (error, _unanswered) = tokio::join!(out.open(&message, Bytes::new()), soon(back.accept()));
    assert!(matches!(error, Err(OpenError::Timeout)));
    assert!(out.is_usable());
}

async fn counts_follow_the_streams(over: Over) {
    let (out, back) = over.tunnel(Limits::default()).await;
    let (mut near, mut far) = stream(&out, &back).await;
    assert_eq!((out.stats().streams, back.stats().streams), (1, 1));
    let before = (out.stats(), back.stats());
    send_all(&mut near, &[7; 100_000]).await;
    assert_eq!(read_all(&mut far).await.len(), 100_000);
    assert_eq!(out.stats().bytes_sent - before.0.bytes_sent, 100_000);
    assert_eq!(back.stats().bytes_received - before.1.bytes_received, 100_000);
    drop((near, far));
    let stats = out.stats();
    assert_eq!((stats.streams, stats.opened, stats.accepted), (0, 1, 0));
    assert_eq!((back.stats().opened, back.stats().accepted), (0, 1));
    assert!(stats.rtt > Duration::ZERO);
}

async fn many_streams_run_at_once(over: Over) {
    const STREAMS: u32 = 1000;
    let (out, back) = over.tunnel(Limits::default()).await;
    let mut near = Vec::new();
    for number in 0..STREAMS {
        let mut stream = soon(out.open_raw()).await.expect("opened");
        stream.write_u32(number).await.expect("written");
        near.push(stream);
    }
    let mut far = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = soon(back.accept_raw()).await.expect("accepted");
        let number = soon(stream.read_u32()).await.expect("read");
        stream.write_u32(number).await.expect("written");
        far.push(stream);
    }
    assert_eq!(out.stats().streams, u64::from(STREAMS));
    for (number, stream) in (0..).zip(&mut near) {
        assert_eq!(soon(stream.read_u32()).await.expect("answered"), number);
    }
}

async fn streams_beyond_the_limit_wait_for_room_and_then_time_out(over: Over) {
    let max_streams = match over {
        Over::Quic => 2,
        // A link allows no fewer.
        Over::Tcp => 64,
    };
    let options = Limits { max_streams, open_timeout: Duration::from_millis(50), ..Limits::default() };
    let (out, back) = over.tunnel(options).await;
    let mut first = out.open_raw().await.expect("opened");
    let mut others = Vec::new();
    for _ in 1..max_streams {
        others.push(out.open_raw().await.expect("opened"));
    }
    assert!(matches!(out.open_raw().await, Err(OpenError::Timeout)));
    // The end of one makes room.
    send_all(&mut first, b"x").await;
    let mut far = soon(back.accept_raw()).await.expect("accepted");
    assert_eq!(read_all(&mut far).await, b"x");
    send_all(&mut far, b"").await;
    assert_eq!(read_all(&mut first).await, b"");
    soon(async { while out.open_raw().await.is_err() {} }).await;
}

async fn a_reader_that_stalls_does_not_stop_the_others(over: Over) {
    let (out, back) = over.tunnel(Limits::default()).await;
    let mut stalled = out.open_raw().await.expect("opened");
    stalled.write_all(&[1]).await.expect("written");
    let filling = tokio::spawn(async move { stalled.write_all(&vec![1; 8 << 20]).await });
    let _unread = soon(back.accept_raw()).await.expect("accepted");
    let mut near = out.open_raw().await.expect("opened");
    let bytes = noise(4 << 20, 6);
    let receiving = async {
        let mut far = soon(back.accept_raw()).await.expect("accepted");
        read_all(&mut far).await
    };
    let (received, ()) = tokio::join!(receiving, send_all(&mut near, &bytes));
    assert!(received == bytes);
    assert!(!filling.is_finished());
    filling.abort();
}
