//! What the tests share: a worker, raw callers and upstreams over TCP, and a proxy made of this crate's parts.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use eastway_core::head::HttpVersion;
use eastway_transport::Io;
use http::uri::Scheme;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::body::Body;
use crate::client::{ClientOptions, H1, H2};
use crate::message::{Request, RequestHead, Response, ResponseHead};
use crate::refuse;
use crate::server::{Handler, ServerOptions, serve};
use crate::sweeper::Sweeper;

/// No test waits longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on a worker of its own.
pub(crate) fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    block_on(&runtime, pin!(async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") }))
}

/// As [`local`], with time that passes only while everything waits. For streams in memory.
pub(crate) fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    block_on(&runtime, pin!(test))
}

/// One type for all tests: otherwise each of them compiles the runtime anew.
fn block_on<T>(runtime: &Runtime, test: Pin<&mut dyn Future<Output = T>>) -> T {
    tokio::task::LocalSet::new().block_on(runtime, test)
}

/// Waits until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn options() -> ServerOptions {
    ServerOptions::new("test-node")
}

/// Serves every connection to the returned address.
pub(crate) async fn listen(handler: impl Handler) -> SocketAddr {
    listen_with(options(), handler).await
}

pub(crate) async fn listen_with(options: ServerOptions, handler: impl Handler) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let handler: AnyHandler = Rc::new(move |request| Box::pin(handler.handle(request)));
    tokio::task::spawn_local(accept(listener, options, handler));
    address
}

/// One type for all handlers of tests: otherwise each of them compiles hyper's servers anew.
type AnyHandler = Rc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Response>>>>;

async fn accept(listener: TcpListener, options: ServerOptions, handler: AnyHandler) {
    let sweeper = Sweeper::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (handler, options, sweeper) = (Rc::clone(&handler), options.clone(), sweeper.clone());
        tokio::task::spawn_local(async move {
            let handler = move |request| handler(request);
            serve(Io::Plain(tcp), &options, &sweeper, std::future::pending(), handler).await
        });
    }
}

pub(crate) async fn dial(address: SocketAddr) -> Io {
    Io::Plain(TcpStream::connect(address).await.expect("it listens"))
}

pub(crate) async fn h1(address: SocketAddr) -> H1 {
    H1::new(dial(address).await, &ClientOptions::default())
}

pub(crate) async fn h2(address: SocketAddr) -> H2 {
    H2::new(dial(address).await, Scheme::HTTP, &ClientOptions::default()).await.expect("no I/O yet")
}

/// Which version a [`proxy`] speaks to its upstream.
#[derive(Clone, Copy)]
pub(crate) enum Upstream {
    H1(SocketAddr),
    H2(SocketAddr),
}

/// Forwards each request over a connection of its own.
pub(crate) fn proxy(upstream: Upstream) -> impl Handler {
    move |request: Request| async move {
        let is_grpc = request.head.view().is_grpc();
        let answer = match upstream {
            Upstream::H1(address) => h1(address).await.send(request).await,
            Upstream::H2(address) => h2(address).await.send(request).await,
        };
        answer.unwrap_or_else(|error| refuse::response(error.reason(), "test-node", is_grpc))
    }
}

/// Answers with what it received: method, target and sorted header lines, then the body.
pub(crate) async fn mirror(request: Request) -> Response {
    let Request { head, body, .. } = request;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = head.fields.iter().map(|(name, value)| format!("{}: {}", text(name).to_lowercase(), text(value)));
    let mut lines: Vec<String> = fields.collect();
    lines.sort_unstable();
    let text = format!("{} {} for {}\n{}\n\n", head.method(), head.target(), head.authority(), lines.join("\n"));
    match body.collect(1 << 20).await {
        Ok((body, _)) => ok(Body::full([text.as_bytes(), &body].concat())),
        Err(error) => refuse::response(error.request_reason(), "mirror", false),
    }
}

/// A successful response.
pub(crate) fn ok(body: Body) -> Response {
    answered(200, body)
}

/// A response with this status.
pub(crate) fn answered(status: u16, body: Body) -> Response {
    Response::new(ResponseHead::new(status), body)
}

/// A raw caller.
pub(crate) struct Raw<T = TcpStream>(pub(crate) T);

impl Raw {
    pub(crate) async fn dial(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.expect("it listens"))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Raw<T> {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("it reads");
    }

    /// Everything until the connection closes.
    pub(crate) async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        // A reset after the answer is an end, too.
        let _ = self.0.read_to_end(&mut all).await;
        String::from_utf8_lossy(&all).into_owned()
    }

    /// What comes until it ends in `end`.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let mut all = Vec::new();
        while !all.ends_with(end.as_bytes()) {
            let mut byte = [0];
            let read = self.0.read(&mut byte).await.expect("open");
            assert_eq!(read, 1, "closed after {:?}", String::from_utf8_lossy(&all));
            all.push(byte[0]);
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// Sends raw bytes and gives everything that comes back until the connection closes.
pub(crate) async fn ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::dial(address).await;
    raw.send(bytes).await;
    raw.rest().await
}

/// A raw upstream that answers each connection with fixed bytes once a head has come, and takes down what it received.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    seen: Rc<RefCell<Vec<u8>>>,
    closed: Rc<RefCell<usize>>,
}

impl Recorder {
    pub(crate) async fn new(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (seen, closed): (Rc<RefCell<Vec<u8>>>, Rc<RefCell<usize>>) = Default::default();
        let (seen_by_task, closed_by_task) = (Rc::clone(&seen), Rc::clone(&closed));
        tokio::task::spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                record(tcp, answer, &seen_by_task).await;
                *closed_by_task.borrow_mut() += 1;
            }
        });
        Self { address, seen, closed }
    }

    /// What was received so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.borrow()).into_owned()
    }

    /// Waits until the peer of the first connection has closed it.
    pub(crate) async fn closed(&self) {
        until(|| *self.closed.borrow() > 0).await;
    }
}

async fn record(mut tcp: TcpStream, answer: &[u8], seen: &RefCell<Vec<u8>>) {
    let mut chunk = vec![0; 64 * 1024];
    let mut answered = false;
    while let Ok(read @ 1..) = tcp.read(&mut chunk).await {
        seen.borrow_mut().extend_from_slice(&chunk[..read]);
        let complete = seen.borrow().windows(4).any(|window| window == b"\r\n\r\n");
        if complete && !answered {
            answered = true;
            let _ = tcp.write_all(answer).await;
        }
    }
}

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

pub(crate) fn get(host: &str) -> Request {
    request("GET", "/", host, Body::empty())
}

pub(crate) fn post(host: &str, body: Body) -> Request {
    request("POST", "/", host, body)
}

pub(crate) fn request(method: &str, target: &str, host: &str, body: Body) -> Request {
    Request::new(RequestHead::new(HttpVersion::Http11, method, target, host), body)
}

/// A body that the test feeds.
pub(crate) fn channel() -> (tokio::sync::mpsc::Sender<Result<http_body::Frame<Bytes>, crate::BodyError>>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    (sender, Body::boxed(Channel(receiver)))
}

struct Channel(tokio::sync::mpsc::Receiver<Result<http_body::Frame<Bytes>, crate::BodyError>>);

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = crate::BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, crate::BodyError>>> {
        self.0.poll_recv(cx)
    }
}

pub(crate) fn data(bytes: &'static [u8]) -> Result<http_body::Frame<Bytes>, crate::BodyError> {
    Ok(http_body::Frame::data(Bytes::from_static(bytes)))
}

/// The next frame of a body.
pub(crate) async fn frame(body: &mut Body) -> Option<Result<http_body::Frame<Bytes>, crate::BodyError>> {
    std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(body), cx)).await
}
