//! Once warm, a small request needs one allocation: the body that is handed to the application as one piece. Without that, none.

use bytes::{Buf, Bytes};
use eastway_core::Timestamp;
use eastway_link::{Connection, Event, HttpVersion, LinkOptions, Outgoing, RequestHead, ResponseHead, Side};

const NOW: Timestamp = Timestamp::from_millis(1);

const REQUEST: [(&str, &str); 8] = [
    ("accept", "*/*"),
    ("accept-encoding", "gzip, deflate, br"),
    ("user-agent", "payments/1.2"),
    ("content-type", "application/json"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("x-request-id", "5f1c6dbe-92a4-4c5f-8f6e-0d7a4a3f2b11"),
    ("eastway-source", "spiffe://us-east.mesh.internal/ns/shop/sa/checkout"),
    ("x-tenant", "t-77"),
];

const RESPONSE: [(&str, &str); 4] = [
    ("content-type", "application/json"),
    ("date", "Sat, 28 Nov 2026 12:00:00 GMT"),
    ("server", "payments"),
    ("cache-control", "no-store"),
];

static BODY: &[u8] = &[b'x'; 200];

/// Two sides in memory, and what they use again.
struct Pair {
    caller: Connection,
    called: Connection,
    out: Outgoing,
    body: Vec<u8>,
}

fn deliver(from: &mut Connection, to: &mut Connection, out: &mut Outgoing) {
    from.transmit(NOW, out, 65_536);
    while out.has_remaining() {
        let chunk = out.chunk();
        let length = chunk.len();
        to.receive(chunk, NOW).expect("proper frames");
        out.advance(length);
    }
}

impl Pair {
    fn exchange(&mut self, copy: bool) {
        let head = RequestHead {
            version: HttpVersion::Http11,
            method: "GET",
            authority: "payments.us-east.mesh",
            target: "/v1/accounts/4711",
            length: None,
            upgrade: None,
            fields: REQUEST,
        };
        let id = self.caller.open_request(head, true, NOW).expect("a stream");
        deliver(&mut self.caller, &mut self.called, &mut self.out);
        while let Some(event) = self.called.poll_event() {
            let Event::Request { stream, head, .. } = event else { panic!("{event:?}") };
            assert_eq!(head.view().fields.count(), REQUEST.len());
            self.called.recycle(head);
            let head = ResponseHead { status: 200, length: Some(200), upgrade: None, fields: RESPONSE };
            self.called.send_response(stream, head, false).expect("a response");
            let sent = self.called.send_data(stream, &mut Bytes::from_static(BODY), true, NOW);
            assert_eq!(sent, Ok(200));
        }
        deliver(&mut self.called, &mut self.caller, &mut self.out);
        while let Some(event) = self.caller.poll_event() {
            if let Event::Response { head, .. } = event {
                assert_eq!(head.view().fields.count(), RESPONSE.len());
                self.caller.recycle(head);
            }
        }
        self.body.clear();
        let read = if copy { self.caller.read_into(id, &mut self.body) } else { self.caller.read(id).len() };
        assert_eq!((read, self.caller.stats().streams, self.called.stats().streams), (200, 0, 0));
    }
}

fn pair() -> Pair {
    let options = LinkOptions::default();
    Pair {
        caller: Connection::new(Side::Connecting, &options, NOW),
        called: Connection::new(Side::Accepting, &options, NOW),
        out: Outgoing::new(),
        body: Vec::new(),
    }
}

#[test]
fn a_small_request_needs_no_memory_of_its_own() {
    let mut pair = pair();
    for (copy, most) in [(false, 1), (true, 0)] {
        (0..100).for_each(|_| pair.exchange(copy));
        let made = eastway_allocations::during(|| (0..1000).for_each(|_| pair.exchange(copy)));
        assert!(made <= 1000 * most, "{made} allocations of 1,000 requests");
    }
}

/// What is measured from outside, for example by `perf stat`: `EASTWAY_LINK_EXCHANGES` exchanges.
#[test]
fn many_exchanges() {
    let count = std::env::var("EASTWAY_LINK_EXCHANGES").ok().and_then(|count| count.parse().ok()).unwrap_or(1000);
    let mut pair = pair();
    (0..count).for_each(|_| pair.exchange(true));
    assert_eq!(pair.caller.stats().opened, count);
}
