//! A node that sends every request on and every answer back, between a caller and upstreams that a test plays.

use std::cell::Cell;
use std::rc::Rc;

use eastway_transport::Io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::client::{ClientOptions, H1, Pool, PoolOptions};
use crate::message::Request;
use crate::refuse;
use crate::server::{Ended, ServerOptions};
use crate::sweeper::Sweeper;
pub(super) use crate::testing::Raw as Peer;
use crate::upgrade::UpgradeError;

/// Two ends of a TCP connection.
pub(super) async fn tcp() -> (TcpStream, Io) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.expect("it listens"), Io::Plain(far.expect("it came").0))
}

/// Forwards what comes over `io`; each upstream connection is played by `upstream`, with its number.
pub(super) fn serve<F>(io: Io, upstream: impl Fn(Io, usize) -> F + 'static) -> JoinHandle<Ended>
where
    F: Future<Output = ()> + 'static,
{
    let dialled = Cell::new(0);
    serve_over(io, ServerOptions::new("test-node"), move || {
        let (near, far) = Io::pair(64 * 1024);
        dialled.set(dialled.get() + 1);
        tokio::task::spawn_local(upstream(far, dialled.get()));
        near
    })
}

/// Forwards what comes over `io` over connections that `dial` makes, and that are used again.
pub(super) fn serve_over(io: Io, options: ServerOptions, dial: impl Fn() -> Io + 'static) -> JoinHandle<Ended> {
    tokio::task::spawn_local(async move {
        let (pool, dial) = (Pool::new(PoolOptions::default()), Rc::new(dial));
        let handler = move |mut request: Request| {
            let (pool, dial) = (pool.clone(), Rc::clone(&dial));
            async move {
                let asking = request.upgrading.take();
                let fresh = || pool.lease((), H1::new(dial(), &ClientOptions::default()));
                let sent = pool.take(&()).unwrap_or_else(fresh).send(request).await;
                let mut response = sent.unwrap_or_else(|error| refuse::response(error.reason(), "test-node", false));
                if let (Some(asking), Some(serving)) = (asking, response.upgrading.take()) {
                    tokio::task::spawn_local(async move {
                        let (mut asking, mut serving) = (asking.io().await?, serving.io().await?);
                        let _ = tokio::io::copy_bidirectional(&mut asking, &mut serving).await;
                        Ok::<_, UpgradeError>(())
                    });
                }
                response
            }
        };
        crate::serve(io, &options, &Sweeper::new(), std::future::pending(), handler).await
    })
}

/// A caller in memory, and its node.
pub(super) fn caller<F>(upstream: impl Fn(Io, usize) -> F + 'static) -> (Peer<Io>, JoinHandle<Ended>)
where
    F: Future<Output = ()> + 'static,
{
    let (near, far) = Io::pair(64 * 1024);
    (Peer(near), serve(far, upstream))
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
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\n\r\nok";

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
