//! Probes against real listeners, and the verdict's arithmetic.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn options(kind: ProbeKind, target: SocketAddr) -> ProbeOptions {
    ProbeOptions {
        kind,
        target,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(5),
        healthy_after: 1,
        unhealthy_after: 2,
    }
}

/// A listener that answers one connection with `answer`, and its address.
async fn answering(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(answer).await;
    });
    address
}

/// An address that nothing listens on.
async fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound")
}

#[tokio::test]
async fn http_judges_by_the_status() {
    let kind = ProbeKind::Http { path: "/healthz".to_owned() };
    let good = answering(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(probe(&options(kind.clone(), good)).await.is_ok());
    let bad = answering(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
    let error = probe(&options(kind, bad)).await.expect_err("unhealthy");
    assert!(error.to_string().contains("503"), "{error}");
}

/// What an application sees of one probe whose answer is this: the request, and how the connection ended.
async fn seen(kind: ProbeKind, answer: Vec<u8>) -> (String, std::io::Result<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let target = listener.local_addr().expect("bound");
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = vec![0; 1024];
        let read = if answer.is_empty() { 0 } else { stream.read(&mut request).await.expect("a request") };
        request.truncate(read);
        // More than fits into the buffers of one write, and not all of it at once, as an application does.
        for part in answer.chunks(1_000) {
            stream.write_all(part).await.expect("the probe reads");
            tokio::task::yield_now().await;
        }
        let end = stream.read(&mut [0; 16]).await;
        (String::from_utf8_lossy(&request).into_owned(), end)
    });
    assert!(probe(&options(kind, target)).await.is_ok());
    serving.await.expect("no panic")
}

#[tokio::test]
async fn a_probe_reads_the_answer_closes_in_order_and_says_who_it_is() {
    let kind = ProbeKind::Http { path: "/healthz".to_owned() };
    let body = "x".repeat(30_000);
    for head in ["HTTP/1.1 200 OK\r\ncontent-length: 30000\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
        let whole = format!("{head}{}", if head.contains("length") { &body } else { "" });
        let (request, end) = seen(kind.clone(), whole.into_bytes()).await;
        assert!(request.contains("user-agent: eastway-probe/"), "{request}");
        assert_eq!(end.expect("no reset"), 0, "{head}");
    }
    let (_, end) = seen(ProbeKind::Tcp, Vec::new()).await;
    assert_eq!(end.expect("no reset"), 0);
}

#[tokio::test]
async fn tcp_judges_by_the_connection() {
    assert!(probe(&options(ProbeKind::Tcp, answering(b"").await)).await.is_ok());
    assert!(matches!(probe(&options(ProbeKind::Tcp, refusing().await)).await, Err(ProbeError::Unreachable(_))));
}

#[tokio::test]
async fn a_command_judges_by_its_exit() {
    let target = refusing().await;
    let run = |argv: &[&str]| ProbeKind::Command { argv: argv.iter().map(ToString::to_string).collect() };
    assert!(probe(&options(run(&["true"]), target)).await.is_ok());
    assert!(matches!(probe(&options(run(&["false"]), target)).await, Err(ProbeError::Unhealthy(_))));
    assert!(matches!(probe(&options(run(&["/nonexistent"]), target)).await, Err(ProbeError::Unreachable(_))));
}

#[tokio::test]
async fn a_mute_application_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut options = options(ProbeKind::Http { path: "/".to_owned() }, listener.local_addr().expect("bound"));
    options.timeout = Duration::from_millis(20);
    assert!(matches!(probe(&options).await, Err(ProbeError::Timeout(_))));
}

#[test]
fn the_grpc_request_is_framed() {
    assert_eq!(&health_check_request("")[..], [0, 0, 0, 0, 0]);
    assert_eq!(&health_check_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
}

#[test]
fn one_lost_probe_changes_nothing() {
    let mut verdict = HealthVerdict::new(&options(ProbeKind::Tcp, SocketAddr::from(([127, 0, 0, 1], 1))));
    assert_eq!(verdict.observe(false), None, "never ready: stays warming");
    assert_eq!(verdict.observe(true), Some(Health::Ready));
    assert_eq!(verdict.observe(false), None);
    assert_eq!(verdict.observe(true), None);
    assert_eq!(verdict.observe(false), None);
    assert_eq!(verdict.observe(false), Some(Health::Unready));
    assert_eq!(verdict.observe(false), None);
    assert_eq!(verdict.observe(true), Some(Health::Ready));
}
