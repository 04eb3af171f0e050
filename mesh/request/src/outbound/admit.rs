//! Phases 2 and 3: where the request goes, whether there is room for it, and what its route's filters say.

use std::sync::Arc;

use eastway_balance::Attempts;
use eastway_core::head::RequestHead;
use eastway_core::{Authority, Reason, Refusal, Timestamp};
use eastway_resilience::deadline::Deadline;

use super::{Forward, Next, Outbound};
use crate::filter::{self, FilterVerdict};
use crate::record::Recorder;
use crate::service::ServiceEntry;

/// The port of `https://`.
const HTTPS: u16 = 443;

/// Where a request goes, once its service is known.
pub(super) struct Destination {
    /// Only that cluster, if the name says so.
    cluster: Option<Arc<str>>,
    /// The service port.
    port: u16,
}

/// Finds the port, and the cluster if one was named.
///
/// # Errors
/// [`Reason::UnknownPort`], [`Reason::PlainHttpOnly`] or [`Reason::NotOffered`].
pub(super) fn destination(entry: &ServiceEntry, target: Authority, own: &str) -> Result<Destination, Refusal> {
    // The port is what is wrong: nobody offers it, and whoever asks for it wants TLS.
    let unknown = if target.port == Some(HTTPS) { Reason::PlainHttpOnly } else { Reason::UnknownPort };
    let port = entry.port(target.port).ok_or(unknown)?.port;
    if target.cluster.as_deref().is_some_and(|cluster| !entry.is_offered_by(cluster, own)) {
        return Err(Reason::NotOffered.into());
    }
    Ok(Destination { cluster: target.cluster, port })
}

impl<R: Recorder> Outbound<R> {
    /// Takes a place among the service's requests in flight, or among its streams, and sends the request through its route's
    /// filters.
    pub(super) fn admit(
        &mut self,
        entry: Arc<ServiceEntry>,
        destination: Destination,
        head: &RequestHead<'_>,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> Next {
        let (permit, limit) = match self.context.long_lived {
            true => (entry.stream_permit(), Reason::StreamLimit),
            false => (entry.request_permit(), Reason::RequestLimit),
        };
        let Some(permit) = permit else { return Next::Refuse(limit.into()) };
        let Some(route) = entry.routes().find(head).map(Arc::clone) else {
            return Next::Refuse(Reason::NoRoute.into());
        };
        let verdict = filter::run(&route.filters, head, &mut self.context.edits, now, rng);
        let wait = match verdict {
            FilterVerdict::Refuse(refusal, wait) if wait.is_zero() => return Next::Refuse(refusal),
            FilterVerdict::Refuse(refusal, wait) => return Next::RefuseAfter(refusal, wait),
            FilterVerdict::Delay(wait) => Some(wait),
            FilterVerdict::Pass => None,
        };
        let policy = entry.traffic_policy();
        let began = now + wait.unwrap_or_default();
        self.context.deadlines.begin(now, self.context.stream);
        let deadline = match self.context.stream {
            true => Deadline::NONE,
            false => self.context.deadlines.first(&policy, began),
        };
        self.forward = Some(Box::new(Forward {
            attempts: Attempts::new(self.context.idempotent, deadline),
            cluster: destination.cluster,
            port: destination.port,
            route: Some(route),
            policy,
            permit: Some(permit),
            began,
            attempt: (began, self.context.trace),
            said: None,
            entry,
        }));
        wait.map_or(Next::Pick, Next::Wait)
    }
}
