//! What a lost packet costs those who share a connection: `cargo bench -p eastway-http --bench loss`.
//!
//! A client sends requests at a fixed rate, over one link, over several, and over HTTP/1.1 connections of which each carries
//! one request at a time, while every hundredth packet is lost. It runs in a network namespace of its own, which needs
//! `unshare`, `ip` and `nft`.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use eastway_core::head::HttpVersion;
use eastway_http::client::{Link, Pool, PoolOptions};
use eastway_http::link::LinkOptions;
use eastway_http::server::{Protocol, ServerOptions, serve};
use eastway_http::{Body, ClientOptions, H1, Request, RequestHead, Response, Sweeper};
use eastway_transport::Io;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep_until};

/// Requests per second.
const RATES: [u32; 2] = [500, 2_000];
/// How long each way is measured.
const TIME: Duration = Duration::from_secs(10);
/// Numbers of links.
const LINKS: [usize; 4] = [1, 2, 4, 8];
/// What a response's body holds.
const BYTES: usize = 1024;
/// Says that the process is in its namespace.
const INSIDE: &str = "EASTWAY_BENCH_LOSS";

fn main() {
    let measured = std::env::args().any(|arg| arg == "--bench");
    if std::env::var_os(INSIDE).is_none() && measured {
        let rules = "add table inet bench; \
            add chain inet bench lossy { type filter hook input priority 0; }; \
            add rule inet bench lossy tcp dport != 0 numgen random mod 100 == 0 drop";
        let script = format!("ip link set dev lo mtu 1500 gso_max_segs 1 up && nft '{rules}' && exec \"$@\"");
        let error = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "sh", "-c", &script, "sh"])
            .args(std::env::args_os())
            .env(INSIDE, "1")
            .exec();
        panic!("unshare does not start: {error}");
    }
    // `cargo test --benches` only wants to know that it runs.
    let (time, rates) = if measured { (TIME, &RATES[..]) } else { (TIME / 100, &RATES[..1]) };
    println!("{:>8}  {:<24} {:>9} {:>9} {:>9} {:>9}", "per s", "over", "p50 ms", "p99 ms", "p99.9 ms", "most ms");
    for &rate in rates {
        for links in LINKS {
            let server = server(Protocol::Link);
            let name = if links == 1 { "1 link".to_owned() } else { format!("{links} links") };
            row(rate, &name, measure(rate, time, async move || Links::open(server, links).await));
        }
        let server = server(Protocol::Http1);
        row(rate, "HTTP/1.1 connections", measure(rate, time, async move || Connections::to(server)));
    }
}

fn row(rate: u32, name: &str, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let at = |share: f64| {
        let place = ((latencies.len() as f64 * share) as usize).min(latencies.len().saturating_sub(1));
        latencies.get(place).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    println!("{rate:>8}  {name:<24} {:>9.2} {:>9.2} {:>9.2} {:>9.2}", at(0.5), at(0.99), at(0.999), at(1.0));
}

/// Serves whoever connects, on a thread of its own, for as long as the process lives.
fn server(protocol: Protocol) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        run(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            tell.send(listener.local_addr().expect("bound")).expect("somebody waits");
            let sweeper = Sweeper::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (sweeper, mut options) = (sweeper.clone(), ServerOptions::new("bench"));
                options.protocol = protocol;
                spawn_local(
                    async move { serve(plain(stream), &options, &sweeper, std::future::pending(), answer).await },
                );
            }
        });
    });
    told.recv().expect("it listens")
}

async fn answer(_: Request) -> Response {
    let mut response = Response::empty(200);
    response.body = Body::full(vec![0; BYTES]);
    response
}

fn plain(stream: TcpStream) -> Io {
    stream.set_nodelay(true).expect("a socket");
    Io::Plain(stream)
}

fn run<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, what)
}

/// What sends requests.
trait Way: 'static {
    async fn send(&self, request: Request) -> bool;
}

/// Sends `rate` requests per second for so long, and says how long each took from when it was due.
fn measure<W: Way>(rate: u32, time: Duration, way: impl AsyncFnOnce() -> W) -> Vec<Duration> {
    run(async move {
        let (way, latencies, failed) =
            (Rc::new(way().await), Rc::<RefCell<Vec<_>>>::default(), Rc::<Cell<u32>>::default());
        let began = Instant::now();
        let mut sent = Vec::new();
        for number in 0.. {
            let due = began + Duration::from_secs(1) * number / rate;
            if due > began + time {
                break;
            }
            sleep_until(due).await;
            let (way, latencies, failed) = (Rc::clone(&way), Rc::clone(&latencies), Rc::clone(&failed));
            sent.push(spawn_local(async move {
                let head = RequestHead::new(HttpVersion::Http11, "GET", "/", "bench");
                if !way.send(Request::new(head, Body::empty())).await {
                    failed.set(failed.get() + 1);
                }
                latencies.borrow_mut().push(due.elapsed());
            }));
        }
        for request in sent {
            request.await.expect("no panic");
        }
        assert_eq!(failed.get(), 0, "requests failed");
        latencies.take()
    })
}

struct Links {
    links: Vec<Link>,
    next: Cell<usize>,
}

impl Links {
    async fn open(server: SocketAddr, count: usize) -> Self {
        let mut links = Vec::new();
        for _ in 0..count {
            let stream = TcpStream::connect(server).await.expect("the server listens");
            links.push(Link::new(plain(stream), &LinkOptions::default(), Duration::from_secs(1)));
        }
        Self { links, next: Cell::new(0) }
    }
}

impl Way for Links {
    async fn send(&self, request: Request) -> bool {
        // The one with the fewest streams, in turns among equals.
        let turn = self.next.replace(self.next.get() + 1);
        let order = (0..self.links.len()).map(|place| &self.links[(turn + place) % self.links.len()]);
        let link = order.min_by_key(|link| link.streams()).expect("there are links");
        whole(link.send(request).await).await
    }
}

struct Connections {
    server: SocketAddr,
    pool: Pool<()>,
}

impl Connections {
    fn to(server: SocketAddr) -> Self {
        Self { server, pool: Pool::new(PoolOptions { max_idle_per_key: 1_000, ..PoolOptions::default() }) }
    }
}

impl Way for Connections {
    async fn send(&self, request: Request) -> bool {
        let connection = match self.pool.take(&()) {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(self.server).await.expect("the server listens");
                self.pool.lease((), H1::new(plain(stream), &ClientOptions::default()))
            }
        };
        whole(connection.send(request).await).await
    }
}

async fn whole<E>(sent: Result<Response, E>) -> bool {
    let Ok(response) = sent else { return false };
    response.body.collect(BYTES).await.is_ok_and(|(body, _)| body.len() == BYTES)
}
