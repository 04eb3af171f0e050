//! gRPC over one connection that exists already.
//!
//! The connection's identity is known before the first byte of gRPC, so each connection gets a service of its own that
//! carries it; nothing is looked up in headers.

use std::time::Duration;

use bytes::Bytes;
use eastway_transport::Io;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Body, StdError};
use tower_service::Service;

/// Concurrent streams of one connection: a sidecar needs two, a peer one.
const MAX_STREAMS: u32 = 16;
/// The largest head of a request.
const MAX_HEADERS: u32 = 16 << 10;
/// How long a connection may take to end after its streams were told to.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves `service` on `io` until the other side ends, falls silent, or `ending` completes.
pub(crate) async fn serve<S, B>(io: Io, service: S, silence: Duration, ending: impl Future<Output = ()>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S: Service<Request<Incoming>, Error = std::convert::Infallible, Future: Send>,
    B: Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
{
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(silence / 3)
        .keep_alive_timeout(silence)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(error = %error, "a gRPC connection ended");
            }
            return;
        }
        () = ending => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection).await;
}
