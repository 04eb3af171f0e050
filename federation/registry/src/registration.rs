//! One endpoint as one gateway knows it: what its sidecar registered, and whether that sidecar still lives.
//!
//! ```text
//!            speaks                      stream lost, or silent 3 s
//! (new) ──► Attached ────────────────────────► Adrift ──► two probes unanswered, or one refused: down
//!              ▲                                 │ ▲            │ 10 min: removed
//!              └── registers again, speaks again ┘ └─ answered ─┘
//! ```
//!
//! Silence alone proves nothing: an adrift endpoint keeps the health that it last reported until a probe fails.
//! Called by [`crate::Catalogue`] only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use eastway_core::view::EndpointView;
use eastway_core::{EndpointId, Health, LoadReport, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::options::Options;

/// Names one registration stream, for as long as the gateway's process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// A workload's membership in a service, as its sidecar stated it. This is what is stored; health and load are not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The service that it serves.
    pub service: ServiceName,
    /// The instance's name.
    pub endpoint: EndpointId,
    /// The account that it proved to run under.
    pub account: String,
    /// Its zone.
    pub zone: Arc<str>,
    /// Its sidecar's inbound listener.
    pub address: SocketAddr,
    /// Relative to its peers.
    pub weight: f64,
    /// Requests that it can serve at once; 0 if unknown.
    #[serde(default)]
    pub capacity: u32,
    /// Labels, for routing and display.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Which life of the sidecar; the highest wins.
    pub incarnation: u64,
    /// Counts the registrations within one life, over all gateways: the highest of the highest incarnation wins.
    pub session: u64,
}

impl Registration {
    /// What orders the statements on one endpoint.
    pub const fn version(&self) -> (u64, u64) {
        (self.incarnation, self.session)
    }
}

/// One gateway's knowledge of one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) registration: Arc<Registration>,
    /// As the sidecar last said; presumed ready when only the membership is known.
    pub(crate) reported: Health,
    pub(crate) load: Option<LoadReport>,
    /// The catalogue's count of load reports when `load` came.
    pub(crate) load_seq: u64,
    pub(crate) link: Link,
    /// The slice that it is stored in.
    pub(crate) slice: u32,
    /// As callers see it; replaced when something that they see changes.
    pub(crate) view: Arc<EndpointView>,
}

/// The tie between an endpoint and the gateway.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    /// Its stream speaks.
    Attached { stream: StreamId, heard: Timestamp },
    /// Its stream is lost or silent, or the endpoint is known from the store alone.
    Adrift(Adrift),
}

/// The probing of an endpoint without a stream.
#[derive(Clone, Debug)]
pub(crate) struct Adrift {
    /// The stream that is silent but not yet closed.
    pub(crate) stream: Option<StreamId>,
    pub(crate) next_probe: Timestamp,
    pub(crate) in_flight: bool,
    /// At least one probe has ended.
    pub(crate) probed: bool,
    pub(crate) failures: u32,
    pub(crate) down_since: Option<Timestamp>,
}

impl Adrift {
    /// Probed from `now` on.
    pub(crate) const fn since(now: Timestamp, stream: Option<StreamId>) -> Self {
        Self { stream, next_probe: now, in_flight: false, probed: false, failures: 0, down_since: None }
    }

    /// A probe was answered.
    pub(crate) fn answered(&mut self) {
        (self.in_flight, self.probed) = (false, true);
        self.failures = 0;
        self.down_since = None;
    }

    /// A probe failed; `refused`: by the host itself, so that no second opinion is needed.
    pub(crate) fn failed(&mut self, refused: bool, now: Timestamp, options: &Options) {
        (self.in_flight, self.probed) = (false, true);
        self.failures = if refused { options.probe_failures.max(1) } else { self.failures.saturating_add(1) };
        if self.failures >= options.probe_failures && self.down_since.is_none() {
            self.down_since = Some(now);
        }
    }
}

impl Entry {
    /// An entry with a live stream.
    pub(crate) fn attached(
        registration: Registration,
        health: Health,
        stream: StreamId,
        slice: u32,
        now: Timestamp,
    ) -> Self {
        Self::new(registration, health, Link::Attached { stream, heard: now }, slice)
    }

    /// An entry known from a stored slice: probed from `now` on, presumed ready until there is evidence.
    pub(crate) fn stored(registration: Registration, slice: u32, now: Timestamp) -> Self {
        Self::new(registration, Health::Ready, Link::Adrift(Adrift::since(now, None)), slice)
    }

    fn new(registration: Registration, reported: Health, link: Link, slice: u32) -> Self {
        let view = Arc::new(see(&registration, reported));
        Self { registration: Arc::new(registration), reported, load: None, load_seq: 0, link, slice, view }
    }

    pub(crate) const fn is_attached(&self) -> bool {
        matches!(self.link, Link::Attached { .. })
    }

    pub(crate) const fn stream(&self) -> Option<StreamId> {
        match &self.link {
            Link::Attached { stream, .. } => Some(*stream),
            Link::Adrift(adrift) => adrift.stream,
        }
    }

    /// What callers should believe.
    pub(crate) const fn health(&self) -> Health {
        match &self.link {
            Link::Adrift(Adrift { down_since: Some(_), .. }) => Health::Down,
            _ => self.reported,
        }
    }

    pub(crate) const fn down_since(&self) -> Option<Timestamp> {
        match &self.link {
            Link::Adrift(adrift) => adrift.down_since,
            Link::Attached { .. } => None,
        }
    }

    /// Brings the view up to date; true if callers see a difference.
    pub(crate) fn refresh(&mut self) -> bool {
        let view = see(&self.registration, self.health());
        if *self.view == view {
            return false;
        }
        self.view = Arc::new(view);
        true
    }
}

fn see(registration: &Registration, health: Health) -> EndpointView {
    EndpointView {
        id: registration.endpoint.clone(),
        zone: Arc::clone(&registration.zone),
        address: registration.address,
        weight: registration.weight,
        health,
        incarnation: registration.incarnation,
        capacity: registration.capacity,
        labels: registration.labels.clone(),
        load: None,
    }
}
