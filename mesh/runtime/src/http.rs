//! A small HTTP/1.1 server for operators and scrapers: the admin API, `/metrics`, `/live` and `/ready`.
//!
//! It runs on the control runtime, reads and writes whole messages, and bounds everything: connections, heads, bodies and
//! times. When all places are taken, a new connection takes that of the least recently active one: connections that do
//! nothing never keep a probe of `/live` out. It is never used for the traffic of services.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eastway_core::former::with_former_names;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::displacing::{Displacing, Occupant};
use crate::readiness::Readiness;
use crate::throttled;

/// Answers a request. Its errors are responses.
pub type Handler = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Response<Bytes>> + Send + Sync>;

/// The bounds of a server.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Connections at once; one more ends the least recently active one. Default 64.
    pub connections: usize,
    /// Bytes of a request's body. Default 1 MiB.
    pub body: usize,
    /// Time for a request's head, also while a connection is idle. Default 10 s.
    pub head_timeout: Duration,
    /// Time for a request's body and its answer. Default 30 s.
    pub timeout: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        let (head_timeout, timeout) = (Duration::from_secs(10), Duration::from_secs(30));
        Self { connections: 64, body: 1 << 20, head_timeout, timeout }
    }
}

/// Binds a listener; port 0 takes a free port, which `local_addr` tells.
///
/// # Errors
/// The address is in use or not ours; the message names it.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
    TcpListener::bind(address).await.map_err(named)
}

/// Serves until it is dropped; its connections end with it.
pub async fn serve(listener: TcpListener, handler: Handler, options: ServeOptions) {
    let places = Displacing::new(options.connections, options.connections);
    let options = Arc::new(options);
    let mut connections = JoinSet::new();
    loop {
        let (stream, address) = tokio::select! {
            // Ended connections are collected while waiting for the next, so that they do not pile up.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: an inactive connection gives its own.
                    throttled!(warn, %error, "cannot accept an administrative connection");
                    places.displace_one();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let place = places.enter(address.ip());
        connections.spawn(connection(stream, place, Arc::clone(&handler), Arc::clone(&options)));
    }
}

/// A response of one line of text.
pub fn text(status: StatusCode, line: &str) -> Response<Bytes> {
    content(status, "text/plain; charset=utf-8", format!("{line}\n"))
}

/// A response of JSON, indented, because people read it with `curl`.
pub fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<Bytes> {
    match serde_json::to_string_pretty(value) {
        Ok(body) => content(status, "application/json", body + "\n"),
        Err(error) => {
            tracing::error!(%error, "an administrative answer is not JSON");
            text(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        }
    }
}

/// As [`json`], where the names of earlier releases stand beside the present ones.
pub fn json_by_both_names<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<Bytes> {
    match with_former_names(value) {
        Ok(value) => json(status, &value),
        // It says so.
        Err(_) => json(status, value),
    }
}

/// A response with a content type.
pub fn content(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The parameters of a request's query, decoded, in their order.
pub fn query<B>(request: &Request<B>) -> Vec<(String, String)> {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = request.uri().query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

/// The handler of the metrics listener: `/metrics` by `expose`, which is told what the request accepts and answers a media
/// type and a text, `/live` always, `/ready` by `readiness`.
pub fn observability(
    readiness: Readiness,
    expose: impl Fn(Option<&str>) -> (&'static str, String) + Send + Sync + 'static,
) -> Handler {
    Arc::new(move |request| {
        let response = if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        } else {
            match request.uri().path() {
                "/metrics" => {
                    let (content_type, text) = expose(accepted(request.headers()).as_deref());
                    let mut response = content(StatusCode::OK, content_type, text);
                    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
                    response
                }
                "/live" => text(StatusCode::OK, "live"),
                "/ready" => match readiness.waiting_for()[..] {
                    [] => {
                        let doubts = readiness.doubts().into_iter().map(|doubt| format!(", but {doubt}"));
                        text(StatusCode::OK, &format!("ready{}", doubts.collect::<String>()))
                    }
                    ref pending => text(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {}", pending.join(", "))),
                },
                _ => text(StatusCode::NOT_FOUND, "there are /metrics, /live and /ready"),
            }
        };
        Box::pin(std::future::ready(response))
    })
}

/// What a request accepts, as one list; `None` if it does not say.
fn accepted(headers: &HeaderMap) -> Option<String> {
    let stated: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    (!stated.is_empty()).then(|| stated.join(","))
}

async fn connection(stream: TcpStream, mut place: Occupant, handler: Handler, options: Arc<ServeOptions>) {
    let activity = place.activity();
    let touching: Handler = Arc::new(move |request| {
        let (answering, activity) = (handler(request), activity.clone());
        activity.touch();
        Box::pin(async move {
            let response = answering.await;
            activity.touch();
            response
        })
    });
    tokio::select! {
        () = serve_one(stream, touching, options) => {}
        () = place.displaced() => tracing::debug!("an inactive administrative connection made room for another"),
    }
}

/// Serves one connection that somebody else has accepted, until it ends. Whoever accepts bounds how many there are.
pub async fn serve_one(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    handler: Handler,
    options: Arc<ServeOptions>,
) {
    let head_timeout = options.head_timeout;
    let service = service_fn(move |request| {
        let (handler, options) = (Arc::clone(&handler), Arc::clone(&options));
        async move { Ok::<_, Infallible>(answer(request, handler, &options).await.map(Full::new)) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(io), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "an administrative connection broke");
    }
}

async fn answer(request: Request<Incoming>, handler: Handler, options: &ServeOptions) -> Response<Bytes> {
    let (parts, body) = request.into_parts();
    let answered = async {
        match Limited::new(body, options.body).collect().await {
            Ok(body) => handler(Request::from_parts(parts, body.to_bytes())).await,
            Err(error) if error.is::<LengthLimitError>() => {
                text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")
            }
            Err(_) => text(StatusCode::BAD_REQUEST, "the body cannot be read"),
        }
    };
    match timeout(options.timeout, answered).await {
        Ok(response) => response,
        Err(_) => text(StatusCode::REQUEST_TIMEOUT, "the request took too long"),
    }
}

#[cfg(test)]
mod tests;
