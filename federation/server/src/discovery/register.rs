//! One registration stream.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use eastway_client::convert;
use eastway_core::ServiceName;
use eastway_proto::discovery::v1::register_rejected::Cause;
use eastway_proto::discovery::v1::register_request::Event as RequestEvent;
use eastway_proto::discovery::v1::register_response::Event as ResponseEvent;
use eastway_proto::discovery::v1::{
    Heartbeat, RegisterAccepted, RegisterRejected, RegisterRequest, RegisterResponse, Registration,
};
use eastway_registry::{RegisterError, StreamId};
use eastway_runtime::throttled;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tonic::{Status, Streaming};

use super::flips::Flips;
use crate::hub::{Hub, raised};
use crate::local::is_local;

/// How long a registration waits to be in the store before it is acknowledged. A store that is away holds up nobody longer.
const DURABLE: Duration = Duration::from_secs(1);

type Outgoing = mpsc::Sender<Result<RegisterResponse, Status>>;

/// The workload that proved who it is.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) namespace: String,
    pub(super) account: String,
    /// Where its connection comes from.
    pub(super) from: IpAddr,
}

/// How a stream goes on after a message.
enum Next {
    Listen,
    End,
}

/// A stream that is registered with the hub; dropping it is the loss of the stream.
struct Open {
    hub: Arc<Hub>,
    stream: StreamId,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.hub.close_stream(self.stream);
    }
}

/// Runs until the stream ends, the registration is rejected or revoked, or it deregisters.
pub(super) async fn run(hub: Arc<Hub>, caller: Caller, mut incoming: Streaming<RegisterRequest>, outgoing: Outgoing) {
    let (stream, mut revoked) = hub.open_stream();
    let open = Open { hub: Arc::clone(&hub), stream };
    let mut flips = Flips::new(hub.clock.now());
    let mut ticks = interval(hub.options.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut draining = hub.draining.subscribe();
    let mut heartbeats = interval(hub.options.heartbeat);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = incoming.message() => {
                let Ok(Some(RegisterRequest { event })) = message else { return };
                match take(&open, &caller, &mut flips, event, &outgoing).await {
                    Next::Listen => {}
                    Next::End => return,
                }
            }
            _ = heartbeats.tick() => {
                // A sidecar that does not read will find the stream silent; nothing is queued for it.
                let heartbeat = ResponseEvent::Heartbeat(Heartbeat {});
                let _ = outgoing.try_send(Ok(RegisterResponse { event: Some(heartbeat) }));
                if outgoing.is_closed() {
                    return;
                }
            }
            _ = ticks.tick(), if flips.is_waiting() => {
                if let Some(health) = flips.due(hub.clock.now()) {
                    // What was said with it is gone: of a workload that flaps this often, the last words tell nothing.
                    hub.change(|catalogue, now| catalogue.report_health(stream, health, "", now));
                }
            }
            Ok(why) = &mut revoked => {
                say(&outgoing, ResponseEvent::Rejected(why)).await;
                return;
            }
            () = raised(&mut draining) => return,
        }
    }
}

async fn take(
    open: &Open,
    caller: &Caller,
    flips: &mut Flips,
    event: Option<RequestEvent>,
    outgoing: &Outgoing,
) -> Next {
    let Open { hub, stream } = open;
    if matches!(event, Some(RequestEvent::Registration(_))) {
        // It states the health, too: whoever says it over and over waits like one whose health flaps.
        sleep(flips.register(hub.clock.now())).await;
    }
    match event {
        Some(RequestEvent::Registration(registration)) => match register(hub, *stream, caller, registration) {
            Ok(service) => {
                // It serves already; what is acknowledged shall outlive this process as well.
                let durable = hub.slices.clear_of(|(written, _)| *written == service);
                if timeout(DURABLE, durable).await.is_err() {
                    tracing::debug!(%service, "acknowledged before it is in the store, which does not answer");
                }
                let accepted = RegisterAccepted { gateway: hub.gateway.to_string(), epoch: hub.epoch };
                say(outgoing, ResponseEvent::Accepted(accepted)).await;
            }
            Err(rejected) => {
                throttled!(
                    warn,
                    namespace = caller.namespace,
                    account = caller.account,
                    why = rejected.message,
                    "a registration is rejected"
                );
                say(outgoing, ResponseEvent::Rejected(rejected)).await;
                return Next::End;
            }
        },
        Some(RequestEvent::Health(report)) => {
            let Ok(health) = convert::health_from_wire(report.health) else { return Next::End };
            match flips.say(health, hub.clock.now()) {
                Some(health) => {
                    hub.change(|catalogue, now| catalogue.report_health(*stream, health, &report.reason, now));
                }
                None => hub.change(|catalogue, now| catalogue.heard(*stream, now)),
            }
        }
        Some(RequestEvent::Load(report)) => {
            let Ok(load) = convert::load_from_wire(report) else { return Next::End };
            hub.change(|catalogue, now| catalogue.report_load(*stream, load, now));
        }
        Some(RequestEvent::Deregister(_)) => {
            hub.change(|catalogue, now| catalogue.deregister(*stream, now));
            return Next::End;
        }
        // Events of newer versions are signs of life like any other.
        Some(RequestEvent::Heartbeat(_)) | None => hub.change(|catalogue, now| catalogue.heard(*stream, now)),
    }
    Next::Listen
}

/// Registers, and answers for which service, if the caller may: its account must be one of the service's, in the service's
/// namespace.
fn register(
    hub: &Hub,
    stream: StreamId,
    caller: &Caller,
    message: Registration,
) -> Result<ServiceName, RegisterRejected> {
    let (registration, health) = convert::registration_from_wire(message, &caller.account)
        .map_err(|error| rejected(Cause::Invalid, &error, 0))?;
    if *registration.service.namespace != *caller.namespace {
        let message = format!("a workload of {} cannot serve {}", caller.namespace, registration.service);
        return Err(RegisterRejected { cause: Cause::Identity.into(), message, highest_incarnation: 0 });
    }
    hub.admission
        .check(registration.address, caller.from, is_local)
        .map_err(|error| rejected(Cause::Invalid, &error, 0))?;
    let (service, endpoint) = (registration.service.clone(), registration.endpoint.clone());
    let (replaced, version) = hub
        .change(|catalogue, now| {
            let incarnation = registration.incarnation;
            catalogue.register(stream, registration, health, now).map(|replaced| (replaced, incarnation))
        })
        .map_err(|error| match error {
            RegisterError::Account { .. } => rejected(Cause::Identity, &error, 0),
            RegisterError::Stale { highest, .. } => rejected(Cause::StaleIncarnation, &error, highest),
            RegisterError::Zone { .. } => rejected(Cause::UnknownZone, &error, 0),
            RegisterError::Quota { .. } | RegisterError::Full(_) => rejected(Cause::Limit, &error, 0),
            RegisterError::Taken { .. } => rejected(Cause::Taken, &error, 0),
            RegisterError::Incarnation { .. } => rejected(Cause::Invalid, &error, 0),
        })?;
    if let Some(replaced) = replaced {
        let message = format!("`{endpoint}` registered again over another stream");
        let cause = Cause::StaleIncarnation.into();
        hub.end_stream(replaced, RegisterRejected { cause, message, highest_incarnation: version });
    }
    Ok(service)
}

/// The message that tells a sidecar why.
pub(crate) fn rejected(cause: Cause, error: &dyn std::error::Error, highest_incarnation: u64) -> RegisterRejected {
    RegisterRejected { cause: cause.into(), message: error.to_string(), highest_incarnation }
}

async fn say(outgoing: &Outgoing, event: ResponseEvent) {
    // Fails if the sidecar is gone, which the next read shows.
    let _ = outgoing.send(Ok(RegisterResponse { event: Some(event) })).await;
}
