//! The task behind [`super::Discovery`]: streams to gateways, one after the other, and housekeeping in between.

use std::sync::Arc;
use std::time::Duration;

use eastway_proto::discovery::v1::discovery_client::DiscoveryClient;
use eastway_proto::discovery::v1::subscribe_response::Event;
use eastway_proto::discovery::v1::{SubscribeRequest, SubscribeResponse};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::dispatch::UpdateError;
use crate::link::{Backoff, Connection};

/// How many requests wait for a slow gateway.
const REQUESTS: usize = 16;
/// How many topics are put into one request.
const TOPICS_PER_REQUEST: usize = 500;
/// Between two rounds of housekeeping.
const HOUSEKEEPING: Duration = Duration::from_millis(250);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("no gateway answers")]
    Connect(#[source] std::io::Error),
    #[error("the gateway ended the stream")]
    Ended,
    #[error("the gateway is silent")]
    Silent,
    #[error("the gateway refuses the stream")]
    Status(#[source] Box<tonic::Status>),
    #[error("the gateway's message cannot be taken")]
    Update(#[source] UpdateError),
    #[error("another gateway comes first, and answers again")]
    Returned,
}

/// Runs until shutdown.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ended = shared.ended.subscribe();
    tokio::select! {
        () = follow(&shared) => {}
        () = keep_house(&shared) => {}
        _ = ended.wait_for(|ended| *ended) => {}
    }
    shared.save_last_view().await;
}

/// One stream after the other.
async fn follow(shared: &Shared) {
    let mut backoff = Backoff::new();
    loop {
        let error = match shared.link.connection().await {
            Ok(connection) => {
                let error = stream(shared, &connection, &mut backoff).await;
                shared.link.failed(&connection);
                shared.disconnected();
                error
            }
            Err(error) => StreamError::Connect(error),
        };
        let returned = matches!(error, StreamError::Returned);
        let pause = if returned { Duration::ZERO } else { backoff.pause(shared.link.options()) };
        log(&error, pause);
        sleep(pause).await;
    }
}

fn log(error: &StreamError, pause: Duration) {
    let cause = std::error::Error::source(error).map(tracing::field::display);
    let pause_ms = pause.as_millis() as u64;
    tracing::info!(error = %error, cause, pause_ms, "discovery goes on with the last view");
}

/// One stream, until it fails.
async fn stream(shared: &Shared, connection: &Connection, backoff: &mut Backoff) -> StreamError {
    let options = shared.link.options();
    let opening_requests = opening(shared);
    let (requests, outgoing) = mpsc::channel(REQUESTS.max(opening_requests.len()));
    for request in opening_requests {
        if requests.try_send(request).is_err() {
            return StreamError::Ended;
        }
    }
    let mut client = DiscoveryClient::new(connection.channel.clone()).max_decoding_message_size(options.max_message);
    let opening = client.subscribe(ReceiverStream::new(outgoing));
    let mut incoming = match timeout(options.silence, opening).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return StreamError::Status(Box::new(status)),
        Err(_) => return StreamError::Silent,
    };
    shared.connected(&connection.gateway);
    loop {
        tokio::select! {
            message = timeout(options.silence, incoming.message()) => {
                let message = match message {
                    Ok(Ok(Some(message))) => message,
                    Ok(Ok(None)) => return StreamError::Ended,
                    Ok(Err(status)) => return StreamError::Status(Box::new(status)),
                    Err(_) => return StreamError::Silent,
                };
                backoff.reset();
                if let Err(error) = shared.take(message) {
                    return StreamError::Update(error);
                }
            }
            () = shared.link.returned(connection) => return StreamError::Returned,
            () = shared.common.wake.notified() => {
                let Some(request) = shared.dispatcher.news() else { continue };
                match timeout(options.silence, requests.send(request)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return StreamError::Ended,
                    Err(_) => return StreamError::Silent,
                }
            }
        }
    }
}

/// Ends holds, drops what is unused, writes the last view.
async fn keep_house(shared: &Shared) {
    let mut rounds = interval_at(Instant::now() + HOUSEKEEPING, HOUSEKEEPING);
    let mut saved = Instant::now();
    loop {
        rounds.tick().await;
        shared.dispatcher.tick(shared.common.clock.now());
        if saved.elapsed() >= shared.options.save_interval {
            saved = Instant::now();
            shared.save_last_view().await;
        }
    }
}

/// The requests that open a stream: everything that is followed.
fn opening(shared: &Shared) -> Vec<SubscribeRequest> {
    let everything = shared.dispatcher.everything().start;
    everything
        .chunks(TOPICS_PER_REQUEST)
        .map(|start| SubscribeRequest { start: start.to_vec(), stop: Vec::new() })
        .collect()
}

impl Shared {
    fn connected(&self, gateway: &Arc<str>) {
        self.state.lock().connected = Some(Arc::clone(gateway));
        tracing::info!(gateway = %gateway, "discovery follows a gateway");
    }

    fn disconnected(&self) {
        self.state.lock().connected = None;
        self.dispatcher.disconnected();
    }

    /// Takes a gateway's message. Events of later versions are signs of life like any other.
    fn take(&self, message: SubscribeResponse) -> Result<(), UpdateError> {
        let now = self.common.clock.now();
        self.state.lock().heard = Some(now);
        match message.event {
            Some(Event::Update(update)) => self.dispatcher.take(update, now),
            Some(Event::Complete(_) | Event::Heartbeat(_)) | None => Ok(()),
        }
    }
}
