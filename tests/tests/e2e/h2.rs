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
    Ok(Answer { status: head.status, body: body.to_bytes(), trailers })
}
