//! The task behind [`super::Registrar`].

use std::sync::Arc;
use std::time::Duration;

use eastway_proto::discovery::v1::discovery_client::DiscoveryClient;
use eastway_proto::discovery::v1::register_rejected::Cause;
use eastway_proto::discovery::v1::register_request::Event as RequestEvent;
use eastway_proto::discovery::v1::register_response::Event as ResponseEvent;
use eastway_proto::discovery::v1::{
    Deregister, HealthReport, Heartbeat, RegisterRejected, RegisterRequest, RegisterResponse,
};
use eastway_registry::Registration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Shared;
use crate::convert;
use crate::link::{Backoff, Connection};

/// How many messages wait for a slow gateway.
const MESSAGES: usize = 16;
/// Between two reports of load.
const LOAD_INTERVAL: Duration = Duration::from_millis(100);
/// A load that does not change is reported again after this long. Callers forget a load that they have not heard of for
/// half a minute, because its sidecar may be gone: of a workload that holds a steady number of long streams they would know
/// nothing otherwise. So a few reports may be lost before it comes to that.
const LOAD_AGAIN: Duration = Duration::from_secs(5);
/// Before a rejected registration is tried again: an operator may have changed the resources.
const REJECTED_PAUSE: Duration = Duration::from_secs(5);

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
    #[error("the gateway does not take the registration: {0}")]
    Rejected(String),
    #[error("a later incarnation is known; going on from it")]
    Renumbered,
    #[error("deregistered")]
    Left,
    #[error("another gateway comes first, and answers again")]
    Returned,
}

/// Runs until it deregistered.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut deregistering = shared.deregistering.subscribe();
    let mut backoff = Backoff::new();
    let mut session = 0;
    while !*deregistering.borrow() {
        let error = match shared.link.connection().await {
            Ok(connection) => {
                session += 1;
                let error = stream(&shared, &connection, session, &mut backoff).await;
                if matches!(error, StreamError::Ended | StreamError::Silent | StreamError::Status(_)) {
                    shared.link.failed(&connection);
                }
                error
            }
            Err(error) => StreamError::Connect(error),
        };
        shared.status.send_modify(|status| status.gateway = None);
        let pause = match &error {
            StreamError::Left => break,
            StreamError::Renumbered | StreamError::Returned => Duration::ZERO,
            StreamError::Rejected(_) => REJECTED_PAUSE,
            _ => backoff.pause(shared.link.options()),
        };
        log(&error, pause);
        tokio::select! {
            () = sleep(pause) => {}
            () = asked(&mut deregistering) => {}
        }
    }
    shared.left.send_replace(true);
}

/// One stream, until it fails or it deregisters.
async fn stream(shared: &Shared, connection: &Connection, session: u64, backoff: &mut Backoff) -> StreamError {
    let options = shared.link.options();
    let (messages, outgoing) = mpsc::channel(MESSAGES);
    let mut health = shared.health.subscribe();
    let current = health.borrow_and_update().0;
    let registration = convert::registration_to_wire(&shared.registration(session), current);
    let first = RegisterRequest { event: Some(RequestEvent::Registration(registration)) };
    if messages.try_send(first).is_err() {
        return StreamError::Ended;
    }
    let mut client = DiscoveryClient::new(connection.channel.clone()).max_decoding_message_size(options.max_message);
    let opening = timeout(options.silence, client.register(ReceiverStream::new(outgoing)));
    let mut incoming = match opening.await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return StreamError::Status(Box::new(status)),
        Err(_) => return StreamError::Silent,
    };
    let mut load = shared.load.subscribe();
    load.mark_changed();
    let mut deregistering = shared.deregistering.subscribe();
    let mut ticks = interval(LOAD_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut spoke = Instant::now();
    let mut reported = Instant::now();
    let mut heard = Instant::now();
    loop {
        let say = tokio::select! {
            message = incoming.message() => {
                heard = Instant::now();
                match shared.take(message, connection, backoff) {
                    Ok(()) => continue,
                    Err(error) => return error,
                }
            }
            Ok(()) = health.changed() => {
                let (health, reason) = health.borrow_and_update().clone();
                RequestEvent::Health(HealthReport { health: convert::health_to_wire(health).into(), reason })
            }
            () = shared.link.returned(connection) => return StreamError::Returned,
            () = asked(&mut deregistering) => return leave(messages, incoming, options.silence).await,
            _ = ticks.tick() => {
                if heard.elapsed() >= options.silence {
                    return StreamError::Silent;
                }
                let due = load.has_changed().unwrap_or(false) || reported.elapsed() >= LOAD_AGAIN;
                let report = if due { *load.borrow_and_update() } else { None };
                match report {
                    Some(report) => {
                        reported = Instant::now();
                        RequestEvent::Load(convert::load_to_wire(report))
                    }
                    None if spoke.elapsed() >= options.heartbeat => RequestEvent::Heartbeat(Heartbeat {}),
                    None => continue,
                }
            }
        };
        spoke = Instant::now();
        match timeout(options.silence, messages.send(RegisterRequest { event: Some(say) })).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return StreamError::Ended,
            Err(_) => return StreamError::Silent,
        }
    }
}

/// Waits until the end was asked for.
async fn asked(deregistering: &mut watch::Receiver<bool>) {
    let _ = deregistering.wait_for(|deregistering| *deregistering).await;
}

fn log(error: &StreamError, pause: Duration) {
    let cause = std::error::Error::source(error).map(tracing::field::display);
    tracing::info!(error = %error, cause, pause_ms = pause.as_millis() as u64, "not registered");
}

/// Deregisters and waits until the gateway has heard it, which it shows by ending the stream.
async fn leave(
    messages: mpsc::Sender<RegisterRequest>,
    mut incoming: Streaming<RegisterResponse>,
    limit: Duration,
) -> StreamError {
    let deregister = messages.send(RegisterRequest { event: Some(RequestEvent::Deregister(Deregister {})) });
    if matches!(timeout(limit, deregister).await, Ok(Ok(()))) {
        drop(messages);
        let _ = timeout(limit, async { while let Ok(Some(_)) = incoming.message().await {} }).await;
    }
    StreamError::Left
}

impl Shared {
    fn registration(&self, session: u64) -> Registration {
        let workload = self.workload.clone();
        Registration {
            service: workload.service,
            endpoint: workload.endpoint,
            // The gateway takes the account from the certificate.
            account: String::new(),
            zone: workload.zone.into(),
            address: workload.address,
            weight: workload.weight,
            capacity: workload.capacity,
            labels: Arc::new(workload.labels.into_iter().collect()),
            incarnation: *self.incarnation.lock(),
            session,
        }
    }

    /// Takes a gateway's message.
    fn take(
        &self,
        message: Result<Option<RegisterResponse>, tonic::Status>,
        connection: &Connection,
        backoff: &mut Backoff,
    ) -> Result<(), StreamError> {
        let message = message.map_err(|status| StreamError::Status(Box::new(status)))?.ok_or(StreamError::Ended)?;
        match message.event {
            Some(ResponseEvent::Accepted(accepted)) => {
                backoff.reset();
                tracing::info!(gateway = accepted.gateway, epoch = accepted.epoch, "registered");
                self.status.send_modify(|status| {
                    status.gateway = Some(connection.gateway.to_string());
                    status.rejected = None;
                    status.accepted += 1;
                });
                Ok(())
            }
            Some(ResponseEvent::Rejected(rejected)) => Err(self.rejected(rejected)),
            Some(ResponseEvent::Heartbeat(_)) | None => Ok(()),
        }
    }

    /// A life that no gateway ever accepted goes on from the highest incarnation known: its clock was set back. One that
    /// was accepted before has been replaced, and must not fight its successor.
    fn rejected(&self, rejected: RegisterRejected) -> StreamError {
        let never_accepted = self.status.borrow().accepted == 0;
        if rejected.cause() == Cause::StaleIncarnation && never_accepted {
            let mut incarnation = self.incarnation.lock();
            *incarnation = rejected.highest_incarnation.saturating_add(1).max(*incarnation);
            return StreamError::Renumbered;
        }
        self.status.send_modify(|status| status.rejected = Some(rejected.message.clone()));
        tracing::error!(message = rejected.message, "the registration is rejected");
        StreamError::Rejected(rejected.message)
    }
}
