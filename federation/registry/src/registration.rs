//! One endpoint as one gateway knows it: what its sidecar registered, and whether that sidecar still lives.
//!
//! ```text
//!            speaks                      stream lost, or silent 3 s
//! (new) ──►  Stream  ────────────────────────► Silent ──► two probes unanswered, or one refused: down
//!              ▲                                 │ ▲            │ 10 min: removed
//!              └── registers again, speaks again ┘ └─ answered ─┘
//! ```
//!
//! Silence alone proves nothing: a silent endpoint keeps the health that it last reported until a probe fails. For the
//! endpoints of a sibling the sibling speaks (`Source::Gateway`): they are probed here only while it does not.
//! Called by [`crate::Catalogue`] only.

use std::net::SocketAddr;
use std::sync::Arc;

use eastway_core::view::EndpointView;
use eastway_core::{EndpointId, Health, Labels, LoadReport, ServiceName, Timestamp, Version};
use serde::{Deserialize, Serialize};

use crate::options::Options;

/// What an endpoint is taken for while nobody has said how it does: callers would lose more by leaving out all that a
/// restarted gateway remembers than by trying one that is not ready.
const PRESUMED: Health = Health::Ready;

/// Names one registration stream, or one stream of a sibling's statements, for as long as the gateway's process lives.
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
    pub labels: Labels,
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
pub(crate) struct KnownEndpoint {
    pub(crate) registration: Arc<Registration>,
    /// As the sidecar last said; `None` when only the membership is known.
    pub(crate) reported: Option<Health>,
    /// Why, in the words of its sidecar; empty if it does not say. For operators only.
    pub(crate) words: Arc<str>,
    pub(crate) load: Option<LoadReport>,
    /// The catalogue's count of load reports when `load` came.
    pub(crate) load_seq: u64,
    pub(crate) source: Source,
    /// The slice that it is stored in.
    pub(crate) slice: u32,
    /// As callers see it; replaced when something that they see changes.
    pub(crate) view: Arc<EndpointView>,
}

/// Who says how an endpoint does. What orders their statements comes with each.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Its own sidecar, over a registration stream of this gateway.
    Stream { stream: StreamId, heard: Timestamp },
    /// The gateway of this cluster that has it from the source, by the version of its statement.
    Gateway { version: Version, down: bool, attached: bool },
    /// Nobody: its stream or its gateway is lost or silent, or it is known from the store alone. It is probed from here.
    Silent(Disconnected),
}

/// What a gateway states of an endpoint that it has from the source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndpointState {
    /// Of which life of its sidecar.
    pub incarnation: u64,
    /// Of which registration in that life.
    pub session: u64,
    /// As its sidecar last said; `None` if it has not spoken to this gateway.
    pub reported: Option<Health>,
    /// The gateway's probes found it down.
    pub down: bool,
    /// As its sidecar last said.
    pub load: Option<LoadReport>,
    /// Its sidecar's stream to the gateway speaks.
    pub attached: bool,
    /// Its sidecar said goodbye to the gateway: this life of it is over, and nothing else here counts.
    pub deregistered: bool,
}

impl EndpointState {
    /// What is stated of an endpoint whose sidecar said goodbye in the life `incarnation`.
    pub const fn deregistered(incarnation: u64) -> Self {
        Self { incarnation, session: 0, reported: None, down: false, load: None, attached: false, deregistered: true }
    }
}

/// The probing of an endpoint without a stream.
#[derive(Clone, Debug)]
pub(crate) struct Disconnected {
    /// The stream that is silent but not yet closed.
    pub(crate) stream: Option<StreamId>,
    /// Nobody has spoken for it since then.
    pub(crate) since: Timestamp,
    pub(crate) next_probe: Timestamp,
    pub(crate) in_flight: bool,
    /// At least one probe has ended.
    pub(crate) probed: bool,
    pub(crate) failures: u32,
    pub(crate) down_since: Option<Timestamp>,
}

impl Disconnected {
    /// Probed from `now` on.
    pub(crate) const fn since(now: Timestamp, stream: Option<StreamId>) -> Self {
        Self { stream, since: now, next_probe: now, in_flight: false, probed: false, failures: 0, down_since: None }
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

impl KnownEndpoint {
    /// An entry with a live stream.
    pub(crate) fn attached(
        registration: Registration,
        health: Health,
        stream: StreamId,
        slice: u32,
        now: Timestamp,
    ) -> Self {
        Self::new(registration, Some(health), Source::Stream { stream, heard: now }, slice)
    }

    /// An entry known from a stored slice: probed from `now` on, until somebody speaks for it.
    pub(crate) fn stored(registration: Registration, slice: u32, now: Timestamp) -> Self {
        Self::new(registration, None, Source::Silent(Disconnected::since(now, None)), slice)
    }

    fn new(registration: Registration, reported: Option<Health>, source: Source, slice: u32) -> Self {
        let view = Arc::new(see(&registration, reported.unwrap_or(PRESUMED)));
        // Most say nothing: `default` is shared, and takes no room for each endpoint.
        let words = Arc::default();
        Self { registration: Arc::new(registration), reported, words, load: None, load_seq: 0, source, slice, view }
    }

    /// Whether the endpoint's name is not to be had by `other` over `stream`. While the stream that registered it speaks, at
    /// whichever gateway, the
    /// name belongs to the workload behind that stream: another one, under another account or at another address, is a
    /// second workload and not the next life of this one, whatever incarnation it states.
    pub(crate) fn is_bound_against(&self, stream: StreamId, other: &Registration) -> bool {
        let speaks = match &self.source {
            Source::Stream { stream: own, .. } => *own != stream,
            Source::Gateway { attached, .. } => *attached,
            Source::Silent(_) => false,
        };
        speaks && (self.registration.account != other.account || self.registration.address != other.address)
    }

    pub(crate) const fn is_attached(&self) -> bool {
        matches!(self.source, Source::Stream { .. })
    }

    /// Whether the gateway that has it from the source states it.
    pub(crate) const fn is_stated(&self) -> bool {
        matches!(self.source, Source::Gateway { .. })
    }

    /// Whether its sidecar speaks, to this gateway or to the one that states it.
    pub(crate) const fn is_attached_anywhere(&self) -> bool {
        matches!(self.source, Source::Stream { .. } | Source::Gateway { attached: true, .. })
    }

    /// Whether somebody speaks for it: its sidecar, or the gateway that hears its sidecar.
    pub(crate) const fn is_spoken_for(&self) -> bool {
        matches!(self.source, Source::Stream { .. } | Source::Gateway { .. })
    }

    /// What this gateway states of it to its siblings.
    pub(crate) fn state(&self) -> EndpointState {
        let (incarnation, session) = self.registration.version();
        EndpointState {
            incarnation,
            session,
            reported: self.reported,
            down: self.health() == Health::Down,
            load: self.load,
            attached: self.is_attached(),
            deregistered: false,
        }
    }

    /// Its gateway speaks for it, by the statement `version`; an earlier one than is known changes nothing. Returns whether
    /// the load is news.
    pub(crate) fn hear_gateway(&mut self, version: Version, state: &EndpointState) -> bool {
        if let Source::Gateway { version: known, .. } = self.source
            && known > version
        {
            return false;
        }
        self.source = Source::Gateway { version, down: state.down, attached: state.attached };
        self.reported = state.reported.or(self.reported);
        let news = state.load.is_some() && state.load != self.load;
        self.load = state.load.or(self.load);
        news
    }

    /// Takes over what was known of the same life before it registered again.
    pub(crate) fn succeed(&mut self, former: Self) {
        if former.registration.incarnation == self.registration.incarnation {
            (self.reported, self.load, self.load_seq) = (former.reported, former.load, former.load_seq);
            self.refresh();
        }
    }

    /// Its gateway no longer speaks for it: it is probed from `now` on, and stays as it was until a probe has ended.
    pub(crate) fn lose_gateway(&mut self, now: Timestamp) {
        if let Source::Gateway { down, .. } = self.source {
            let mut disconnected = Disconnected::since(now, None);
            disconnected.down_since = down.then_some(now);
            self.source = Source::Silent(disconnected);
        }
    }

    pub(crate) const fn stream(&self) -> Option<StreamId> {
        match &self.source {
            Source::Stream { stream, .. } => Some(*stream),
            Source::Silent(disconnected) => disconnected.stream,
            Source::Gateway { .. } => None,
        }
    }

    /// What callers should believe.
    pub(crate) const fn health(&self) -> Health {
        match (&self.source, self.reported) {
            (Source::Silent(Disconnected { down_since: Some(_), .. }) | Source::Gateway { down: true, .. }, _) => {
                Health::Down
            }
            (_, Some(reported)) => reported,
            (_, None) => PRESUMED,
        }
    }

    pub(crate) const fn down_since(&self) -> Option<Timestamp> {
        match &self.source {
            Source::Silent(disconnected) => disconnected.down_since,
            Source::Stream { .. } | Source::Gateway { .. } => None,
        }
    }

    /// Since when nobody has spoken for it; `None` while somebody does.
    pub(crate) const fn silent_since(&self) -> Option<Timestamp> {
        match &self.source {
            Source::Silent(disconnected) => Some(disconnected.since),
            Source::Stream { .. } | Source::Gateway { .. } => None,
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
        labels: Arc::clone(&registration.labels),
        load: None,
    }
}
