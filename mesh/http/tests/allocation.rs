//! A request allocates nothing once its connections are warm: both halves, over TCP, checked with a counting allocator.

use std::rc::Rc;

use eastway_http::Sweeper;
use eastway_http::fuzzing::shell;
use eastway_http::wire::{Buffers, Limits, Shared};
use eastway_transport::Io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Two ends of a TCP connection.
async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.expect("it listens"), far.expect("it came").0)
}

/// Takes so many bytes, and gives an answer to them, over and over.
async fn upstream(mut tcp: TcpStream, takes: usize, answer: Vec<u8>) {
    let mut request = vec![0; takes];
    while tcp.read_exact(&mut request).await.is_ok() {
        tcp.write_all(&answer).await.expect("open");
    }
}

const WARM: usize = 50;
const ROUNDS: usize = 500;

/// How many allocations `ROUNDS` exchanges make, all parts in this thread; the caller and the upstream make none.
fn allocations(request: &[u8], forwarded: usize, answer: &[u8], returned: usize) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let work = async {
        let (mut caller, served) = tcp().await;
        let (dialled, answering) = tcp().await;
        let shared =
            Shared { buffers: Buffers::default(), sweeper: Sweeper::new(), limits: Rc::new(Limits::default()) };
        tokio::task::spawn_local(upstream(answering, forwarded, answer.to_vec()));
        let mut dialled = Some(Io::Plain(dialled));
        tokio::task::spawn_local(async move {
            let connect = async || dialled.take().expect("one connection is enough");
            shell::forward(Io::Plain(served), &shared, true, connect).await
        });
        let mut received = vec![0; returned];
        let mut before = 0;
        for round in 0..WARM + ROUNDS {
            if round == WARM {
                before = eastway_allocations::so_far();
            }
            caller.write_all(request).await.expect("open");
            caller.read_exact(&mut received).await.expect("an answer");
        }
        eastway_allocations::so_far() - before
    };
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

fn fields() -> String {
    (0..20).map(|at| format!("x-field-{at}: value {at}\r\n")).collect()
}

#[test]
fn a_request_without_a_body_allocates_nothing() {
    let request = format!("GET /path?query HTTP/1.1\r\nHost: a.b\r\n{}\r\n", fields());
    let answer = format!("HTTP/1.1 200 OK\r\n{}content-length: 100\r\n\r\n{}", fields(), "x".repeat(100));
    assert_eq!(allocations(request.as_bytes(), request.len(), answer.as_bytes(), answer.len()), 0);
}

#[test]
fn bodies_allocate_nothing() {
    for size in [10, 5_000, 200_000] {
        let body = "x".repeat(size);
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{body}");
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n{body}");
        let made = allocations(request.as_bytes(), request.len(), answer.as_bytes(), answer.len());
        assert_eq!(made, 0, "bodies of {size} bytes");
    }
}

#[test]
fn chunks_and_trailers_allocate_nothing() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX: y\r\n\r\n";
    let forwarded = request.replace("TE: trailers", "te: trailers");
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nanswer\r\n0\r\nX: y\r\n\r\n";
    assert_eq!(allocations(request.as_bytes(), forwarded.len(), answer.as_bytes(), answer.len()), 0);
}

#[test]
fn a_question_before_the_body_allocates_nothing() {
    // The upstream of this test takes head and body before it says anything: the body comes unasked only after a second,
    // so the caller sends it at once, and is told to go on by an interim answer of its own.
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n";
    let forwarded = request.len() - "Expect: 100-continue\r\n".len();
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(allocations(request.as_bytes(), forwarded, answer.as_bytes(), answer.len()), 0);
}
