//! What a request costs in allocations once its connections are warm: a node, served and calling over TCP, checked with a
//! counting allocator.

use std::rc::Rc;

use eastway_http::client::{Pool, PoolOptions};
use eastway_http::{ClientOptions, H1, Request, ServerOptions, Sweeper, refuse, serve};
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

/// How many allocations one request makes, all parts in this thread; the caller and the upstream make none.
fn allocations(request: &str, forwarded: usize, answer: &str, returned: usize) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let work = async {
        let (mut caller, served) = tcp().await;
        let (dialled, answering) = tcp().await;
        tokio::task::spawn_local(upstream(answering, forwarded, answer.as_bytes().to_vec()));
        tokio::task::spawn_local(async move {
            let pool = Rc::new(Pool::new(PoolOptions::default()));
            pool.lease((), H1::new(Io::Plain(dialled), &ClientOptions::default())).give_back();
            let handler = move |request: Request| {
                let connection = pool.take(&()).expect("one connection is enough");
                async move {
                    let sent = connection.send(request).await;
                    sent.unwrap_or_else(|error| refuse::response(error.reason(), "test", false))
                }
            };
            let options = ServerOptions::new("test");
            serve(Io::Plain(served), &options, &Sweeper::new(), std::future::pending(), handler).await
        });
        let mut received = vec![0; returned];
        let mut before = 0;
        for round in 0..WARM + ROUNDS {
            if round == WARM {
                before = eastway_allocations::so_far();
            }
            caller.write_all(request.as_bytes()).await.expect("open");
            caller.read_exact(&mut received).await.expect("an answer");
        }
        (eastway_allocations::so_far() - before) as f64 / ROUNDS as f64
    };
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

fn fields() -> String {
    (0..12).map(|at| format!("x-field-{at}: value {at}\r\n")).collect()
}

fn body(length: usize) -> String {
    "x".repeat(length)
}

fn get() -> String {
    format!("GET /path?query HTTP/1.1\r\nhost: a.b\r\n{}\r\n", fields())
}

fn post(length: usize) -> String {
    format!("POST /path HTTP/1.1\r\nhost: a.b\r\n{}content-length: {length}\r\n\r\n{}", fields(), body(length))
}

fn ok(framing: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ndate: now\r\n{}{framing}\r\n\r\n{body}", fields())
}

#[test]
fn a_request_allocates_nothing_unless_its_answer_streams() {
    let chunked = format!("400\r\n{}\r\n0\r\n\r\n", body(1024));
    // What a body that is still to come holds: the connection, until it has come.
    let exchanges = [
        (get(), ok("content-length: 0", ""), 0.0),
        (get(), ok("content-length: 1024", &body(1024)), 0.0),
        (get(), ok("transfer-encoding: chunked", &chunked), 1.0),
        (post(100), ok("content-length: 100", &body(100)), 0.0),
        (post(2000), ok("content-length: 2000", &body(2000)), 0.0),
    ];
    for (request, answer, made) in exchanges {
        assert_eq!(allocations(&request, request.len(), &answer, answer.len()), made, "{request}{answer}");
    }
}
