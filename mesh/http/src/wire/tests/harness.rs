//! A forwarder between a caller and upstreams that a test plays.

use std::rc::Rc;
use std::time::Duration;

use eastway_transport::Io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::framing::Asked;
use crate::fuzzing::shell;
use crate::head::Place;
use crate::sweeper::Sweeper;
pub(super) use crate::testing::Raw as Peer;
use crate::wire::{Buffers, HeadLimits, Limits, ResponseHead, ServerEnd, Shared};

pub(super) fn shared() -> Shared {
    let limits = Limits { silence: Duration::from_secs(30), ..Limits::default() };
    Shared { buffers: Buffers::new(32 * 1024, 16), sweeper: Sweeper::new(), limits: Rc::new(limits) }
}

/// Two ends of a TCP connection.
pub(super) async fn tcp() -> (TcpStream, Io) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.expect("it listens"), Io::Plain(far.expect("it came").0))
}

/// Forwards what comes over `io`; each upstream connection is played by `upstream`, with its number.
pub(super) fn serve<F>(io: Io, shared: &Shared, upstream: impl Fn(Io, usize) -> F + 'static) -> JoinHandle<ServerEnd>
where
    F: Future<Output = ()> + 'static,
{
    let shared = shared.clone();
    let mut dialled = 0;
    tokio::task::spawn_local(async move {
        let connect = async || {
            let (near, far) = Io::pair(64 * 1024);
            dialled += 1;
            tokio::task::spawn_local(upstream(far, dialled));
            near
        };
        shell::forward(io, &shared, true, connect).await
    })
}

/// A caller in memory, and its forwarder.
pub(super) fn caller<F>(
    shared: &Shared,
    upstream: impl Fn(Io, usize) -> F + 'static,
) -> (Peer<Io>, JoinHandle<ServerEnd>)
where
    F: Future<Output = ()> + 'static,
{
    let (near, far) = Io::pair(64 * 1024);
    (Peer(near), serve(far, shared, upstream))
}

impl<T: AsyncRead + AsyncWrite + Unpin> Peer<T> {
    /// Sends and expects exactly this back.
    pub(super) async fn ask(&mut self, request: &str, answer: &str) {
        self.send(request).await;
        self.expect(answer).await;
    }

    /// Expects exactly this.
    pub(super) async fn expect(&mut self, answer: &str) {
        let mut got = vec![0; answer.len()];
        let mut filled = 0;
        while filled < got.len() {
            match self.0.read(&mut got[filled..]).await {
                Ok(read @ 1..) => filled += read,
                ended => panic!("{ended:?} after {:?}", String::from_utf8_lossy(&got[..filled])),
            }
            let so_far = &got[..filled];
            assert!(answer.as_bytes().starts_with(so_far), "{:?}", String::from_utf8_lossy(so_far));
        }
    }

    /// Ends the own direction.
    pub(super) async fn shutdown(&mut self) {
        self.0.shutdown().await.expect("open");
    }
}

pub(super) const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The head of a response to GET, parsed.
pub(super) fn head(text: &str) -> (ResponseHead, Vec<Place>) {
    let mut places = Vec::new();
    let parsed = ResponseHead::parse(text.as_bytes(), &mut places, Asked::default(), HeadLimits::default());
    (parsed.expect("valid").expect("complete"), places)
}

/// Answers every request without a body.
pub(super) async fn quick(io: Io, _: usize) {
    let mut peer = Peer(io);
    let mut seen = Vec::new();
    let mut byte = [0];
    while let Ok(1) = peer.0.read(&mut byte).await {
        seen.push(byte[0]);
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            if peer.0.write_all(OK.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
