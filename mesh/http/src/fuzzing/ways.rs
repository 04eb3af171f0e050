//! The ways through nodes, and a node made of hyper to compare them with, with the same bytes on both ends.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use eastway_core::Reason;
use eastway_transport::Io;
use http::uri::Scheme;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::message::Message;
use crate::client::{ClientOptions, H1, H2, Link, SendError};
use crate::framing::{self, Asked};
use crate::link::LinkOptions;
use crate::message::{Request, Response};
use crate::server::{Handler, Protocol, ServerOptions, serve};
use crate::sweeper::Sweeper;
use crate::upgrade::UpgradeError;
use crate::{h2_heads, refuse};

/// How long a body waits to be asked for between two nodes.
const PATIENCE: Duration = Duration::from_millis(1);

/// The name of this node in refusals.
const NODE: &str = "test-node";

/// The way that a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A node that is not ours: hyper's, both halves, with our judgement. To compare with.
    Hyper,
    /// One node: in and out by HTTP/1.1.
    Ours,
    /// Two nodes, and a link between them.
    Link,
    /// Two nodes, and HTTP/2 between them.
    Http2,
    /// Two nodes, and an opaque stream of a link between them, in which the second serves.
    Opaque,
}

impl Way {
    /// All ways through nodes of ours.
    pub const NODES: [Self; 4] = [Self::Ours, Self::Link, Self::Http2, Self::Opaque];
}

/// What came out at both ends.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What each upstream connection received.
    pub upstream: Vec<Vec<u8>>,
    /// What the caller received.
    pub answer: Vec<u8>,
}

impl Seen {
    /// The requests that upstreams received.
    pub fn requests(&self) -> Vec<Message> {
        self.upstream.iter().filter_map(|bytes| Message::request(bytes)).collect()
    }
}

/// What an upstream says to a complete request, unless it is to say something else.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// More turns of the only thread than a few requests in memory need.
const TURNS: usize = 200;

/// More than the heads and bodies that are made up.
const ROOM: usize = 128 * 1024;

/// Sends `bytes` to a node that forwards each request over a connection of its own. Each upstream says `answer` once the
/// request is complete, and closes if `closes`.
pub fn run(way: Way, bytes: &[u8], answer: &[u8], closes: bool) -> Seen {
    run_in_pieces(way, bytes, answer, closes, &[usize::MAX])
}

/// As [`run`], with the caller's bytes in pieces of `sizes` in turn, and the upstream's as they come.
pub fn run_in_pieces(way: Way, bytes: &[u8], answer: &[u8], closes: bool, sizes: &[usize]) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { return Seen::default() };
    tokio::task::LocalSet::new().block_on(&runtime, exchange(way, bytes, answer.into(), closes, sizes))
}

type Upstreams = Rc<RefCell<Vec<Rc<RefCell<Vec<u8>>>>>>;

async fn exchange(way: Way, bytes: &[u8], answer: Rc<[u8]>, closes: bool, sizes: &[usize]) -> Seen {
    let (mut caller, io) = Io::pair(ROOM.max(bytes.len()));
    let upstreams = Upstreams::default();
    let dialled = Rc::clone(&upstreams);
    let connect = move || {
        let (near, far) = Io::pair(ROOM);
        let received = Rc::new(RefCell::default());
        dialled.borrow_mut().push(Rc::clone(&received));
        tokio::task::spawn_local(upstream(far, received, Rc::clone(&answer), closes));
        near
    };
    let served = async {
        match way {
            Way::Hyper => by_hyper(io, connect).await,
            Way::Ours => serve_by(io, Protocol::Detect, to_upstream(connect)).await,
            Way::Link => by_link(io, connect).await,
            Way::Http2 => by_http2(io, connect).await,
            Way::Opaque => by_opaque(io, connect).await,
        }
    };
    let sent = async {
        let mut left = bytes;
        for &size in sizes.iter().cycle() {
            let (piece, rest) = left.split_at(size.clamp(1, left.len().max(1)).min(left.len()));
            // The server may close before it has read everything.
            if piece.is_empty() || caller.write_all(piece).await.is_err() {
                break;
            }
            left = rest;
            // Long enough for each piece to be read by itself.
            for _ in 0..if left.is_empty() { 0 } else { 3 } {
                tokio::task::yield_now().await;
            }
        }
        // hyper does not serve a caller that hangs up early: everything in memory has its turn first.
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        let _ = caller.shutdown().await;
        let mut answer = Vec::new();
        let _ = caller.read_to_end(&mut answer).await;
        answer
    };
    let ((), answer) = tokio::join!(served, sent);
    let upstream = upstreams.borrow().iter().map(|received| received.borrow().clone()).collect();
    Seen { upstream, answer }
}

async fn serve_by(io: Io, protocol: Protocol, handler: impl Handler) {
    let options = ServerOptions { protocol, ..ServerOptions::new(NODE) };
    serve(io, &options, &Sweeper::new(), std::future::pending(), handler).await;
}

/// Sends every request over a connection of its own.
fn to_upstream(connect: impl Fn() -> Io + 'static) -> impl Handler {
    move |request: Request| {
        let io = connect();
        async move { or_refusal(H1::new(io, &ClientOptions::default()).send(request).await) }
    }
}

fn or_refusal(sent: Result<Response, SendError>) -> Response {
    sent.unwrap_or_else(|error| refuse::response(error.reason(), NODE, false))
}

/// The second of two nodes, reached over what is returned.
fn second(protocol: Protocol, connect: impl Fn() -> Io + 'static) -> Io {
    let (near, far) = Io::pair(ROOM);
    tokio::task::spawn_local(serve_by(far, protocol, to_upstream(connect)));
    near
}

async fn by_link(io: Io, connect: impl Fn() -> Io + 'static) {
    let link = Link::new(second(Protocol::Link, connect), &LinkOptions::default(), PATIENCE);
    let handler = move |request: Request| {
        let link = link.clone();
        async move { or_refusal(link.send(request).await) }
    };
    serve_by(io, Protocol::Detect, handler).await;
}

async fn by_http2(io: Io, connect: impl Fn() -> Io + 'static) {
    let options = ClientOptions { continue_after: PATIENCE, ..ClientOptions::default() };
    let Ok(h2) = H2::new(second(Protocol::Http2, connect), Scheme::HTTPS, &options).await else { return };
    let handler = move |request: Request| {
        let h2 = h2.clone();
        async move { or_refusal(h2.send(request).await) }
    };
    serve_by(io, Protocol::Detect, handler).await;
}

async fn by_opaque(mut io: Io, connect: impl Fn() -> Io + 'static) {
    let (near, far) = Io::pair(ROOM);
    let connect = Rc::new(connect);
    let within = move |request: Request| {
        let connect = Rc::clone(&connect);
        if let Some(upgrading) = request.upgrading {
            tokio::task::spawn_local(async move {
                let io = upgrading.io().await?;
                serve_by(io, Protocol::Detect, to_upstream(move || connect())).await;
                Ok::<_, UpgradeError>(())
            });
        }
        async { Response::empty(200) }
    };
    tokio::task::spawn_local(serve_by(far, Protocol::Link, within));
    let link = Link::new(near, &LinkOptions::default(), PATIENCE);
    if let Ok(mut stream) = link.open("a:80", &[]).await {
        let _ = tokio::io::copy_bidirectional(&mut io, &mut stream).await;
    }
}

type HyperBody = Either<Full<Bytes>, Incoming>;

async fn by_hyper(io: Io, connect: impl Fn() -> Io + 'static) {
    let service = service_fn(move |request| {
        let io = connect();
        async move { Ok::<_, Infallible>(call_by_hyper(io, request).await) }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).await;
}

async fn call_by_hyper(io: Io, request: http::Request<Incoming>) -> http::Response<HyperBody> {
    let (parts, body) = request.into_parts();
    let head = match framing::admit_request(&parts) {
        Ok(head) => head,
        Err(reason) => return refused_by_hyper(reason),
    };
    let target = if head.is_connect() { head.authority() } else { head.target() };
    let mut sent = http::Request::builder().method(head.method()).uri(target).header("host", head.authority());
    for (name, value) in head.fields.iter() {
        sent = sent.header(name, value);
    }
    if let Some(length) = head.length {
        sent = sent.header("content-length", length);
    }
    let Ok(sent) = sent.body(body) else { return refused_by_hyper(Reason::MalformedRequest) };
    let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await else {
        return refused_by_hyper(Reason::Internal);
    };
    tokio::task::spawn_local(connection);
    let Ok(response) = sender.send_request(sent).await else { return refused_by_hyper(Reason::UpstreamReset) };
    let (parts, body) = response.into_parts();
    match framing::admit_response(&parts, Asked::default()) {
        Ok(head) => h2_heads::response(&head).map(|()| Either::Right(body)),
        Err(reason) => refused_by_hyper(reason),
    }
}

fn refused_by_hyper(reason: Reason) -> http::Response<HyperBody> {
    let refused = refuse::response(reason, NODE, false);
    h2_heads::response(&refused.head).map(|()| Either::Left(Full::new(refuse::line(reason).into())))
}

/// Reads a request to its end, asks for its body if that waits, answers, and goes on taking down what comes.
async fn upstream(mut io: Io, received: Rc<RefCell<Vec<u8>>>, answer: Rc<[u8]>, closes: bool) {
    let mut chunk = [0; 4096];
    let (mut asked, mut answered) = (false, false);
    while let Ok(read @ 1..) = io.read(&mut chunk).await {
        received.borrow_mut().extend_from_slice(&chunk[..read]);
        let Some(request) = Message::request(&received.borrow()) else { continue };
        let waits = request.fields.iter().any(|field| field == "expect: 100-continue");
        if waits && !request.whole && !std::mem::replace(&mut asked, true) {
            let _ = io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        if request.whole && !std::mem::replace(&mut answered, true) {
            let _ = io.write_all(&answer).await;
            if closes {
                return;
            }
        }
    }
}
