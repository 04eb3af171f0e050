//! The task behind [`super::Discovery`]: streams to gateways, one after the other, and housekeeping in between.

use std::sync::Arc;
use std::time::Duration;

use eastway_core::ServiceName;
use eastway_proto::discovery::v1::discovery_client::DiscoveryClient;
use eastway_proto::discovery::v1::subscribe_response::Event;
use eastway_proto::discovery::v1::{SubscribeRequest, SubscribeResponse};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::{Answer, Shared};
use crate::convert::{self, ConvertError};
use crate::link::{Backoff, Connection};

/// How many requests wait for a slow gateway.
const REQUESTS: usize = 16;
/// How many names are put into one request.
const NAMES_PER_REQUEST: usize = 500;
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
    #[error("the gateway's message cannot be read")]
    Malformed(#[source] ConvertError),
    #[error("the stream has a hole")]
    Gap(#[source] super::subscription::Gap),
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
    let (requests, outgoing) = mpsc::channel(REQUESTS);
    for request in shared.all_wanted() {
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
                    return error;
                }
            }
            () = shared.link.returned(connection) => return StreamError::Returned,
            () = shared.wake.notified() => {
                let Some(request) = shared.next_request() else { continue };
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
        shared.tick();
        if saved.elapsed() >= shared.options.save_interval {
            saved = Instant::now();
            shared.save_last_view().await;
        }
    }
}

impl Shared {
    fn connected(&self, gateway: &Arc<str>) {
        let mut state = self.state.lock();
        state.connected = Some(Arc::clone(gateway));
        tracing::info!(gateway = %gateway, "discovery follows a gateway");
    }

    fn disconnected(&self) {
        let mut state = self.state.lock();
        state.connected = None;
        state.services.values_mut().for_each(|followed| followed.subscription.disconnected());
    }

    /// The requests that open a stream: everything that is followed.
    fn all_wanted(&self) -> Vec<SubscribeRequest> {
        let mut state = self.state.lock();
        state.subscribe.clear();
        state.unsubscribe.clear();
        let names: Vec<String> = state.services.keys().map(ToString::to_string).collect();
        let request = |names: &[String]| SubscribeRequest { subscribe: names.to_vec(), unsubscribe: Vec::new() };
        let mut requests: Vec<_> = names.chunks(NAMES_PER_REQUEST).map(request).collect();
        requests.truncate(REQUESTS);
        requests
    }

    fn next_request(&self) -> Option<SubscribeRequest> {
        let mut state = self.state.lock();
        let text = |names: Vec<ServiceName>| names.iter().map(ToString::to_string).collect();
        let subscribe: Vec<String> = text(std::mem::take(&mut state.subscribe));
        let unsubscribe: Vec<String> = text(std::mem::take(&mut state.unsubscribe));
        (!subscribe.is_empty() || !unsubscribe.is_empty()).then_some(SubscribeRequest { subscribe, unsubscribe })
    }

    /// Takes a gateway's message.
    fn take(&self, message: SubscribeResponse) -> Result<(), StreamError> {
        let now = self.clock.now();
        self.state.lock().heard = Some(now);
        match message.event {
            Some(Event::Mesh(mesh)) => {
                let mesh = Arc::new(convert::mesh_from_wire(mesh).map_err(StreamError::Malformed)?);
                {
                    let mut state = self.state.lock();
                    state.mesh = Some(Arc::clone(&mesh));
                    state.dirty = true;
                }
                self.sink.mesh(&mesh);
            }
            Some(Event::Service(service)) => {
                let seq = service.seq;
                let facts = convert::facts_from_wire(service, now).map_err(StreamError::Malformed)?;
                let name = facts.name.clone();
                self.change(&name, |s| {
                    s.snapshot(facts, seq, now, self.options.hold);
                    Ok(())
                })?;
            }
            Some(Event::Delta(delta)) => {
                let seq = delta.seq;
                let (name, delta) = convert::delta_from_wire(delta, now).map_err(StreamError::Malformed)?;
                self.change(&name, |s| s.delta(delta, seq))?;
            }
            Some(Event::Unknown(unknown)) => {
                let name = convert::service_name(&unknown.name).map_err(StreamError::Malformed)?;
                self.change(&name, |s| {
                    s.unknown(now, self.options.hold);
                    Ok(())
                })?;
            }
            Some(Event::Loads(batch)) => {
                let (name, loads) = convert::loads_from_wire(batch).map_err(StreamError::Malformed)?;
                if self.state.lock().services.contains_key(&name) {
                    self.sink.loads(&name, &loads);
                }
            }
            // Events of newer versions are signs of life like any other.
            Some(Event::Heartbeat(_)) | None => {}
        }
        Ok(())
    }

    /// Changes what is known of a service, tells the sink, then whoever waits. Services that are no longer followed are
    /// passed over: the gateway had not heard of that yet.
    fn change(
        &self,
        name: &ServiceName,
        change: impl FnOnce(&mut super::Subscription) -> Result<(), super::subscription::Gap>,
    ) -> Result<(), StreamError> {
        let view = {
            let mut state = self.state.lock();
            state.dirty = true;
            let Some(followed) = state.services.get_mut(name) else { return Ok(()) };
            change(&mut followed.subscription).map_err(StreamError::Gap)?;
            followed.subscription.view(self.clock.now())
        };
        self.publish(name, view);
        Ok(())
    }

    fn publish(&self, name: &ServiceName, view: Option<eastway_core::view::ServiceView>) {
        let answer = match view {
            Some(view) => {
                self.sink.service(&Arc::new(view));
                Answer::Known
            }
            None => {
                self.sink.unknown(name);
                Answer::Unknown
            }
        };
        if let Some(followed) = self.state.lock().services.get(name) {
            followed.answer.send_replace(answer);
        }
    }

    /// One round of housekeeping.
    fn tick(&self) {
        let now = self.clock.now();
        let (mut changed, mut dropped) = (Vec::new(), Vec::new());
        {
            let mut state = self.state.lock();
            let (unused_after, negative_ttl) = (self.options.unused_after, self.options.negative_ttl);
            for (name, followed) in &mut state.services {
                if followed.subscription.tick(now) {
                    changed.push((name.clone(), followed.subscription.view(now)));
                }
                if followed.subscription.is_over(now, unused_after, negative_ttl) {
                    dropped.push(name.clone());
                }
            }
            for name in &dropped {
                state.services.remove(name);
                state.subscribe.retain(|wanted| wanted != name);
                state.unsubscribe.push(name.clone());
            }
            state.dirty |= !changed.is_empty() || !dropped.is_empty();
            if state.connected.is_none() {
                state.unsubscribe.clear();
            }
        }
        for (name, view) in changed {
            self.publish(&name, view);
        }
        if !dropped.is_empty() {
            self.wake.notify_one();
        }
        dropped.iter().for_each(|name| self.sink.unused(name));
    }
}
