//! Serving HTTP/1.1 and HTTP/2 over any byte stream.
//!
//! [`serve`] drives one connection to its end. Every request is judged by [`framing`](crate::framing) before the handler
//! sees it; what is refused never reaches it. The handler's future is dropped when the caller goes away. HTTP/1.1 and the link
//! are our own code, HTTP/2 is hyper's.
//!
//! There is no timer per request: deadlines of the worker's sweeper watch the connection's heads and idle times.

mod detect;
mod drive;
mod h1;
mod io;
mod link;
mod options;
mod service;

use std::fmt;
use std::sync::Arc;

use eastway_core::Reason;
use eastway_transport::Io;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};

pub use options::{Protocol, ServerOptions};

use crate::exec::LocalExec;
use crate::message::{Request, Response};
use crate::sweeper::Sweeper;
use drive::drive;
use io::{Progress, ServerIo};

/// Answers requests.
pub trait Handler: 'static {
    /// Answers an admitted request. Dropped without an answer if the caller goes away first.
    fn handle(&self, request: Request) -> impl Future<Output = Response> + 'static + use<Self>;

    /// A request was refused before it reached [`handle`](Handler::handle): for the metrics.
    fn refused(&self, reason: Reason) {
        let _ = reason;
    }
}

impl<H, F> Handler for H
where
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    fn handle(&self, request: Request) -> impl Future<Output = Response> + 'static + use<H, F> {
        self(request)
    }
}

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// In good order, or its bytes were handed over after an upgrade.
    Done,
    /// It carried no request for too long, did not finish a request's head in time, or left its response unread.
    Idle,
    /// What it sent is not HTTP, or too large.
    Malformed(Reason),
    /// The caller went away in the middle of a request or response.
    CallerGone,
    /// It failed.
    Failed(hyper::Error),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Idle => f.write_str("idle for too long"),
            Self::Malformed(reason) => write!(f, "refused: {reason}"),
            Self::CallerGone => f.write_str("the caller went away"),
            Self::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}

/// Serves one connection until it ends. Once `stop` resolves it takes no further request, tells the peer so, and ends
/// with the last response.
pub async fn serve(
    mut io: Io,
    options: &ServerOptions,
    sweeper: &Sweeper,
    stop: impl Future<Output = ()>,
    handler: impl Handler,
) -> Ended {
    let (protocol, read) = match options.protocol {
        Protocol::Detect => {
            let detected = sweeper.within(options.header_timeout, detect::detect(&mut io)).await;
            match detected {
                Ok(Ok((protocol, read))) => (protocol, read),
                Ok(Err(_)) => return Ended::CallerGone,
                Err(_) => return Ended::Idle,
            }
        }
        protocol => (protocol, bytes::Bytes::new()),
    };
    match protocol {
        Protocol::Link => return link::serve(io, options, sweeper, stop, handler).await,
        Protocol::Http1 => return h1::serve(io, read, (options, sweeper), stop, handler).await,
        Protocol::Http2 | Protocol::Detect => {}
    }
    let progress = Arc::new(Progress::default());
    let io = TokioIo::new(ServerIo::new(io.rewound(read), Arc::clone(&progress)));
    let service =
        service::service(handler, Arc::clone(&progress), Arc::clone(&options.node), options.max_header_bytes as usize);
    let connection = Box::pin(http2_builder(options).serve_connection(io, service));
    drive(connection, options, sweeper, &progress, stop).await
}

/// Heads of up to so many times the limit are read, in order to be refused with words.
const HEAD_ROOM: u32 = 4;

fn http2_builder(options: &ServerOptions) -> http2::Builder<LocalExec> {
    let h2 = &options.h2;
    let mut builder = http2::Builder::new(LocalExec);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(h2.stream_window)
        .initial_connection_window_size(h2.connection_window)
        .max_frame_size(h2.max_frame_size)
        .max_concurrent_streams(h2.max_streams)
        // Beyond this the library answers by a bare 431 and a reset that says "try again", which clients do.
        .max_header_list_size(options.max_header_bytes.saturating_mul(HEAD_ROOM))
        .max_send_buf_size(h2.send_buffer);
    if let Some(ping) = h2.ping {
        builder.keep_alive_interval(ping.interval).keep_alive_timeout(ping.timeout);
    }
    builder
}

#[cfg(test)]
mod tests;
