//! An HTTP/2 client with prior knowledge, for what `curl` cannot send: trailers, a Host beside `:authority`.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// How long an exchange may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

/// Sends a request with its body in `frames` through the proxy at `proxy`, by HTTP/2 in cleartext.
///
/// # Errors
/// What went wrong, in words.
pub(crate) fn send(proxy: SocketAddr, request: Request<()>, frames: Vec<Frame<Bytes>>) -> Result<Answer, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let exchange = tokio::time::timeout(PATIENCE, exchange(proxy, request, frames));
        exchange.await.map_err(|_| "no answer in time".to_owned())?
    })
}

/// A request line for `url` by `method`, to add headers to.
pub(crate) fn request(method: &str, url: &str) -> http::request::Builder {
    Request::builder().method(method).uri(url).version(http::Version::HTTP_2)
}

/// A part of a body.
pub(crate) fn data(bytes: &[u8]) -> Frame<Bytes> {
    Frame::data(Bytes::copy_from_slice(bytes))
}

/// The trailers at the end of a body.
pub(crate) fn trailers(name: &'static str, value: &'static str) -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([(
        http::HeaderName::from_static(name),
        http::HeaderValue::from_static(value),
    )]))
}

async fn exchange(proxy: SocketAddr, request: Request<()>, frames: Vec<Frame<Bytes>>) -> Result<Answer, String> {
    let stream = tokio::net::TcpStream::connect(proxy).await.map_err(|error| format!("cannot connect: {error}"))?;
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| format!("no HTTP/2: {error}"))?;
    tokio::spawn(connection);
    let frames = frames.into_iter().map(Ok::<_, std::convert::Infallible>);
    let request = request.map(|()| StreamBody::new(tokio_stream::iter(frames)));
    let response = client.send_request(request).await.map_err(|error| format!("no answer: {error:?}"))?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| format!("no whole answer: {error:?}"))?;
    let trailers = body.trailers().cloned();
    Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
}

/// Answers whose bodies nobody reads, on one connection, which lasts until this is dropped.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) answers: Vec<hyper::Response<hyper::body::Incoming>>,
    _runtime: tokio::runtime::Runtime,
}

/// Sends `count` requests for `url` over one connection to `proxy`, and takes the heads of their answers only.
///
/// # Errors
/// What went wrong, in words.
pub(crate) fn unread(proxy: SocketAddr, url: &str, count: usize) -> Result<Unread, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let asking = async {
        let stream = tokio::net::TcpStream::connect(proxy).await.map_err(|error| error.to_string())?;
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let mut answers = Vec::new();
        for _ in 0..count {
            let asked =
                request("GET", url).body(http_body_util::Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
            answers.push(client.send_request(asked).await.map_err(|error| error.to_string())?);
        }
        Ok(answers)
    };
    let answers = runtime.block_on(async { tokio::time::timeout(PATIENCE, asking).await });
    let answers: Result<_, String> = answers.map_err(|_| "no answer in time".to_owned())?;
    Ok(Unread { answers: answers?, _runtime: runtime })
}
