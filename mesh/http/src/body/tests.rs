use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::sweeper::Sweeper;
use crate::testing::{channel, data, frame, local, paused};

/// Writes down what it sees.
#[derive(Clone, Default)]
struct Notes(Rc<RefCell<Vec<String>>>);

impl Notes {
    fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

impl Observer for Notes {
    fn data(&mut self, len: usize) {
        self.0.borrow_mut().push(format!("data {len}"));
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.0.borrow_mut().push(format!("trailers {}", trailers.len()));
    }

    fn end(&mut self, end: &End<'_>) {
        self.0.borrow_mut().push(format!("{end:?}"));
    }
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    trailers
}

#[test]
fn observers_see_everything_and_exactly_one_end() {
    local(async {
        let notes = Notes::default();
        let body = Body::held(Bytes::from("abc"), Some(trailers())).observe(notes.clone());
        body.collect(9).await.expect("whole");
        assert_eq!(notes.take(), ["data 3", "trailers 1", "Complete"]);

        drop(Body::full("abc").observe(notes.clone()));
        assert_eq!(notes.take(), ["Dropped"]);
        drop(Body::empty().observe(notes.clone()));
        assert_eq!(notes.take(), ["Complete"], "nothing was left to read");

        let (sender, body) = channel();
        sender.send(Err(BodyError::Truncated)).await.expect("room");
        assert!(body.observe(notes.clone()).collect(9).await.is_err());
        assert_eq!(notes.take(), ["Failed(Truncated)"]);

        let mut body = Body::full("abc").observe(notes.clone());
        frame(&mut body).await;
        drop(body);
        assert_eq!(notes.take(), ["data 3", "Complete"], "its reader need not ask for the end");
    });
}

#[test]
fn what_a_body_holds_is_released_at_its_end() {
    local(async {
        let guard = Rc::new(());
        let mut body = Body::full("abc").hold(Rc::clone(&guard));
        frame(&mut body).await;
        assert_eq!(Rc::strong_count(&guard), 2);
        assert!(frame(&mut body).await.is_none());
        assert_eq!(Rc::strong_count(&guard), 1, "at the end, not when the body is dropped");
        drop(body);
    });
}

#[test]
fn a_silent_body_fails_after_its_limit_and_one_that_trickles_does_not() {
    paused(async {
        let sweeper = Sweeper::new();
        let (sender, body) = channel();
        let notes = Notes::default();
        let mut body = body.idle_limit(sweeper.after(Duration::from_secs(5))).observe(notes.clone());
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(4)).await;
            sender.send(data(b"x")).await.expect("open");
            assert!(matches!(frame(&mut body).await, Some(Ok(_))));
        }
        notes.take();
        let silent = frame(&mut body).await;
        assert!(matches!(silent, Some(Err(BodyError::Idle))), "{silent:?}");
        assert!(frame(&mut body).await.is_none());
        assert_eq!(notes.take(), ["Failed(Idle)"]);
        assert_eq!(sweeper.live(), 0);
    });
}

#[test]
fn a_body_that_nobody_asks_for_is_not_silent() {
    paused(async {
        let sweeper = Sweeper::new();
        let (sender, body) = channel();
        let mut body = body.idle_limit(sweeper.after(Duration::from_secs(5)));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let late = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            sender.send(data(b"x")).await.expect("open");
        };
        let (received, ()) = tokio::join!(frame(&mut body), late);
        assert!(matches!(received, Some(Ok(_))), "{received:?}");
    });
}

#[test]
fn collecting_stops_at_the_limit() {
    local(async {
        assert_eq!(Body::full("abc").collect(3).await.expect("fits").0, "abc");
        assert!(matches!(Body::full("abcd").collect(3).await, Err(BodyError::TooLong)));
    });
}

#[test]
fn a_small_response_is_held_until_it_is_complete() {
    local(async {
        let (sender, body) = channel();
        assert!(!held::is_small(&body, held::LIMIT), "its length is unknown");
        drop(sender);
        for (size, small) in [(0, false), (1, true), (16 * 1024, true), (16 * 1024 + 1, false)] {
            let body = Body::full(vec![b'x'; size]);
            assert_eq!(held::is_small(&body, held::LIMIT), small, "{size}");
            let (body, with_trailers) = held::hold(body, held::LIMIT).await.expect("whole");
            assert!(!with_trailers);
            assert_eq!(body.collect(1 << 20).await.expect("whole").0.len(), size);
        }
    });
}

#[test]
fn held_trailers_come_after_the_data_and_hide_the_length() {
    local(async {
        let mut body = Body::held(Bytes::from("abc"), Some(trailers()));
        assert_eq!(body.size_hint().exact(), None);
        assert_eq!(frame(&mut body).await.expect("open").expect("well").into_data().expect("data"), "abc");
        assert!(!body.is_end_stream());
        assert!(frame(&mut body).await.expect("open").expect("well").is_trailers());
        assert!(body.is_end_stream() && frame(&mut body).await.is_none());
    });
}

#[test]
fn a_kept_body_is_sent_again_from_its_start() {
    local(async {
        let kept = Kept::new(Body::full("hello"), 16);
        for _ in 0..3 {
            let attempt = kept.attempt().expect("repeatable");
            assert_eq!(attempt.size_hint().exact(), Some(5));
            assert_eq!(attempt.collect(99).await.expect("whole").0, "hello");
            assert!(kept.is_complete());
        }
    });
}

#[test]
fn a_later_attempt_replays_and_then_streams_on() {
    local(async {
        let (sender, body) = channel();
        let kept = Kept::new(body, 16);
        let mut first = kept.attempt().expect("repeatable");
        for chunk in [&b"one"[..], b"two"] {
            sender.send(data(chunk)).await.expect("room");
            let sent = frame(&mut first).await.expect("open").expect("well").into_data().expect("data");
            assert_eq!(sent, chunk, "the first attempt streams");
        }
        let mut second = kept.attempt().expect("repeatable");
        let late = frame(&mut first).await;
        assert!(matches!(late, Some(Err(BodyError::Superseded))), "{late:?}");
        let replayed = frame(&mut second).await.expect("open").expect("well").into_data().expect("data");
        assert_eq!(replayed, "onetwo");
        assert!(!second.is_end_stream() && !kept.is_complete());
        sender.send(data(b"three")).await.expect("room");
        sender.send(Ok(Frame::trailers(trailers()))).await.expect("room");
        drop(sender);
        assert_eq!(second.collect(99).await.expect("whole"), (Bytes::from("three"), Some(trailers())));
        let third = kept.attempt().expect("repeatable");
        assert_eq!(third.collect(99).await.expect("whole"), (Bytes::from("onetwothree"), Some(trailers())));
    });
}

#[test]
fn beyond_the_limit_there_is_no_other_attempt() {
    local(async {
        let (sender, body) = channel();
        let kept = Kept::new(body, 5);
        let mut attempt = kept.attempt().expect("repeatable");
        sender.send(data(b"12345")).await.expect("room");
        frame(&mut attempt).await;
        assert!(kept.is_repeatable(), "just");
        sender.send(data(b"6")).await.expect("room");
        let last = frame(&mut attempt).await.expect("open").expect("well").into_data().expect("data");
        assert_eq!(last, "6", "the attempt itself goes on");
        assert!(!kept.is_repeatable() && kept.attempt().is_none());
        drop(sender);
        assert!(frame(&mut attempt).await.is_none());

        let known = Kept::new(Body::full("123456"), 5);
        assert!(known.is_repeatable(), "nothing went by yet");
        let attempt = known.attempt().expect("the first");
        assert!(known.is_repeatable(), "not even begun");
        attempt.collect(9).await.expect("whole");
        assert!(!known.is_repeatable());
    });
}

#[test]
fn a_caller_that_fails_ends_all_attempts_and_is_named() {
    local(async {
        let (sender, body) = channel();
        let kept = Kept::new(body, 99);
        let first = kept.attempt().expect("repeatable");
        assert_eq!(kept.failure(), None);
        sender.send(Err(BodyError::Truncated)).await.expect("room");
        assert!(first.collect(99).await.is_err());
        assert_eq!(kept.failure(), Some(Reason::CallerGone));
        assert!(kept.attempt().is_none());
    });
}

#[test]
fn no_body_is_kept_for_free() {
    let kept = Kept::new(Body::empty(), 0);
    assert!(kept.attempt().is_some_and(|body| body.is_end_stream()));
    assert!(kept.attempt().is_some() && kept.is_complete());
}

#[test]
fn the_last_attempt_copies_nothing() {
    local(async {
        let (sender, body) = channel();
        let kept = Kept::new(body, 99);
        let mut first = kept.attempt().expect("repeatable");
        sender.send(data(b"one")).await.expect("room");
        frame(&mut first).await;
        drop(kept);
        sender.send(data(b"two")).await.expect("room");
        drop(sender);
        assert_eq!(first.collect(9).await.expect("whole").0, "two");
    });
}

#[test]
fn a_body_stays_small() {
    assert!(size_of::<Body>() <= 72, "{} bytes are moved with every request", size_of::<Body>());
}
