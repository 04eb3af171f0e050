//! Callers of another make, which need not read, nor answer.

use bytes::Buf as _;
use eastway_core::Timestamp;
use eastway_link::{Connection, Outgoing, Side};
use tokio::task::JoinHandle;

use super::*;
use crate::link::heads;
use crate::testing::paused;

const IDLE: Duration = Duration::from_millis(50);

/// The server's side of what a test writes and reads by itself.
fn served(handler: impl Handler) -> (Io, JoinHandle<Ended>) {
    let (near, far) = Io::pair(64 * 1024);
    let mut options = ServerOptions::new("test");
    options.protocol = Protocol::Link;
    options.idle_timeout = IDLE;
    let sweeper = Sweeper::with_period(IDLE / 5);
    let serving = async move { serve(far, &options, &sweeper, std::future::pending(), handler).await };
    (near, tokio::task::spawn_local(serving))
}

/// What a caller writes.
struct Caller(Connection);

impl Caller {
    fn new() -> Self {
        Self(Connection::new(Side::Connecting, &LinkOptions::default(), Timestamp::ZERO))
    }

    /// The bytes of one more request, and of the greeting before the first.
    fn request(&mut self) -> Bytes {
        let head = get("/").head;
        self.0.open_request(heads::request(&head, None, true), true, Timestamp::ZERO).expect("room");
        let mut outgoing = Outgoing::new();
        self.0.transmit(Timestamp::ZERO, &mut outgoing, usize::MAX);
        outgoing.copy_to_bytes(outgoing.remaining())
    }
}

const BODY: usize = 512 * 1024;

async fn large(_: Request) -> Response {
    ok(Body::full(vec![b'a'; BODY]))
}

#[test]
fn a_caller_that_reads_nothing_is_given_up() {
    paused(async {
        let (mut near, served) = served(large);
        near.write_all(&Caller::new().request()).await.expect("taken");
        assert!(matches!(served.await.expect("no panic"), Ended::Idle));
    });
}

#[test]
fn a_caller_that_asks_on_and_reads_nothing_is_given_up_as_well() {
    paused(async {
        let (mut near, served) = served(large);
        let mut caller = Caller::new();
        let mut ticks = tokio::time::interval(IDLE / 2);
        while !served.is_finished() {
            ticks.tick().await;
            // Once it is given up, nothing is taken.
            let _ = near.write_all(&caller.request()).await;
        }
        assert!(matches!(served.await.expect("no panic"), Ended::Idle));
    });
}

#[test]
fn a_stream_on_which_nothing_moves_is_no_idle_connection() {
    paused(async {
        let (mut near, served) = served(|_| std::future::pending::<Response>());
        near.write_all(&Caller::new().request()).await.expect("taken");
        tokio::time::sleep(IDLE * 20).await;
        assert!(!served.is_finished());
    });
}

#[test]
fn a_caller_that_reads_slowly_gets_everything() {
    paused(async {
        let (mut near, _served) = served(large);
        near.write_all(&Caller::new().request()).await.expect("taken");
        let (mut came, mut room) = (0, vec![0; 16 * 1024]);
        let mut ticks = tokio::time::interval(IDLE / 2);
        while came < BODY {
            ticks.tick().await;
            let read = near.read(&mut room).await.expect("it goes on");
            assert!(read > 0, "it ended after {came} bytes");
            came += read;
        }
    });
}

#[test]
fn a_caller_that_does_not_answer_the_notice_to_drain_is_closed() {
    paused(async {
        let (mut near, served) = served(mirror);
        near.write_all(&Caller::new().request()).await.expect("taken");
        let mut all = Vec::new();
        near.read_to_end(&mut all).await.expect("an orderly end");
        assert!(matches!(served.await.expect("no panic"), Ended::Idle));
    });
}

/// A server of another make that gives nothing up.
#[test]
fn a_request_whose_upgrade_is_refused_ends_its_direction() {
    local(async {
        let (near, mut far) = Io::pair(64 * 1024);
        let link = Link::new(near, &LinkOptions::default(), PATIENCE);
        let refused = ResponseHead::new(426);
        let mut server = Connection::new(Side::Accepting, &LinkOptions::default(), Timestamp::ZERO);
        let (mut room, mut ended) = (vec![0; 4096], false);
        let asking = link.clone();
        let asked = tokio::task::spawn_local(async move { asking.send(asking_for(b"shout")).await });
        while !ended {
            let read = far.read(&mut room).await.expect("the link is open");
            assert!(read > 0, "the link ended before the request");
            server.receive(&room[..read], Timestamp::ZERO).expect("proper frames");
            while let Some(event) = server.poll_event() {
                match event {
                    Event::Request { stream, end, .. } => {
                        assert!(!end, "what follows an upgrade has no room");
                        server.send_response(stream, heads::response(&refused, None), true).expect("it is waited for");
                    }
                    event => ended |= matches!(event, Event::Finished { .. }),
                }
            }
            let mut outgoing = Outgoing::new();
            server.transmit(Timestamp::ZERO, &mut outgoing, usize::MAX);
            far.write_all(&outgoing.copy_to_bytes(outgoing.remaining())).await.expect("taken");
        }
        assert_eq!(asked.await.expect("no panic").expect("answered").head.status, 426);
        drop(link);
    });
}
