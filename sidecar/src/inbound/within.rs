//! HTTP inside the stream of a CONNECT: served here like any other call, because what an application is told of its caller
//! must not depend on the way that the caller chose.

use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use eastway_core::resource::ServicePort;
use eastway_core::{Chain, SpiffeId};
use eastway_http::Upgrading;
use eastway_http::server::{Protocol, serve as serve_http};
use eastway_request::{Answer, AnswerEnd, Layer, Spoken};
use eastway_runtime::clock;
use eastway_transport::Io;
use tokio::io::AsyncReadExt as _;

use super::{handler, options};
use crate::record::Telemetry;
use crate::stream;
use crate::worker::Worker;

/// Who asks, and what is told of it.
pub(super) type Caller = (Arc<SpiffeId>, Telemetry);

/// Serves the requests in the stream that is about to open, until either side has ended.
pub(super) fn serve(worker: &Rc<Worker>, caller: Caller, asking: Upgrading, answer: Answer<Telemetry>) {
    let (worker, guard) = (Rc::clone(worker), worker.node.draining.guard());
    tokio::task::spawn_local(async move {
        let _guard = guard;
        match asking.io().await {
            Ok(io) => requests(&worker, &caller, io, answer).await,
            Err(error) => tracing::debug!(error = %Chain(&error), "the caller went away"),
        }
    });
}

/// Serves the requests in a stream.
async fn requests(worker: &Rc<Worker>, (caller, telemetry): &Caller, io: Io, mut answer: Answer<Telemetry>) {
    let (options, sweeper) = (options(worker, Protocol::Detect), worker.sweeper.clone());
    let stop = worker.node.draining.wait();
    let handler = handler(worker, caller, telemetry, Layer::Connected);
    let ended = serve_http(io, &options, &sweeper, stop, handler).await;
    answer.end(AnswerEnd::Complete, clock::now());
    tracing::trace!(?ended, "a stream of requests ended");
}

/// What is in a stream that is about to open shows its caller or the application, whoever speaks first: requests are served, all else is
/// relayed. `held` is kept for so long.
pub(super) fn either(
    worker: &Rc<Worker>,
    caller: Caller,
    (asking, application): (Upgrading, Io),
    (answer, port): (Answer<Telemetry>, Option<ServicePort>),
    held: impl Sized + 'static,
) {
    let (worker, guard) = (Rc::clone(worker), worker.node.draining.guard());
    tokio::task::spawn_local(async move {
        let _guards = (held, guard);
        let asking = match asking.io().await {
            Ok(asking) => asking,
            Err(error) => return tracing::debug!(error = %Chain(&error), "the caller went away"),
        };
        match first(asking, &application).await {
            (asking, Some(Spoken::Http)) => {
                drop(application);
                requests(&worker, &caller, asking, answer).await;
            }
            (asking, _) => stream::relay(&worker, (asking, application), port.as_ref(), answer).await,
        }
    });
}

/// Waits for the first bytes of either side; those of the caller are put back. `None` if the application speaks first, or neither
/// ever does. There is no limit of time: who waits to be taken for something else than HTTP waits for ever.
async fn first(mut asking: Io, application: &Io) -> (Io, Option<Spoken>) {
    let mut read = BytesMut::new();
    let spoken = loop {
        let speaks = async {
            match application.tcp() {
                // An error shows again when it is read.
                Some(tcp) => drop(tcp.readable().await),
                None => std::future::pending().await,
            }
        };
        let came = tokio::select! {
            biased;
            came = asking.read_buf(&mut read) => came,
            () = speaks, if read.is_empty() => break None,
        };
        if came.map_or(true, |length| length == 0) {
            break None;
        }
        if let Some(spoken) = Spoken::by(&read) {
            break Some(spoken);
        }
    };
    (asking.rewound(read.freeze()), spoken)
}
