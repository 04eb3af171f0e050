//! Who says what of an endpoint, for operators: which gateway has it from the source, and why it is taken for what it is.

use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::EndpointView;
use eastway_core::{Health, LoadReport, ServiceName, Timestamp};

use super::{Candidates, Catalogue};
use crate::registration::{KnownEndpoint, Source};

/// An endpoint of this cluster, and where what is known of it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointReport {
    /// As callers see it.
    pub view: Arc<EndpointView>,
    /// The account that it runs under.
    pub account: String,
    /// Counts its registrations within the incarnation.
    pub session: u64,
    /// The gateway that has it from the source.
    pub gateway: Arc<str>,
    /// That is this gateway.
    pub own: bool,
    /// Who says how it does.
    pub speaker: Speaker,
    /// As its sidecar last said; `None` if only its membership is known.
    pub reported: Option<Health>,
    /// Why, in the words of its sidecar to this gateway; empty if it does not say.
    pub words: Arc<str>,
    /// As its sidecar last said.
    pub load: Option<LoadReport>,
}

/// Who says how an endpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Its sidecar, to this gateway, so long ago.
    Sidecar {
        /// Since it last spoke.
        age: Duration,
    },
    /// The gateway that has it from the source.
    Gateway {
        /// That gateway hears the endpoint's sidecar.
        attached: bool,
        /// That gateway's probes found it down.
        down: bool,
    },
    /// Nobody: it is probed from here.
    Probes {
        /// At least one probe has ended.
        probed: bool,
        /// Probes that failed one after the other.
        failures: u32,
        /// For how long it has been down, if it is.
        down_for: Option<Duration>,
    },
}

impl Catalogue {
    /// The endpoints of the service in this cluster, ordered by id.
    pub fn endpoints(&self, name: &ServiceName, now: Timestamp) -> Vec<EndpointReport> {
        let Some(known) = self.services.get(name) else { return Vec::new() };
        known.endpoints.values().filter_map(|candidates| self.report(candidates, now)).collect()
    }

    fn report(&self, candidates: &Candidates, now: Timestamp) -> Option<EndpointReport> {
        let best = candidates.best()?;
        let gateway = candidates.gateway_of(best);
        Some(EndpointReport {
            view: Arc::clone(&best.view),
            account: best.registration.account.clone(),
            session: best.registration.session,
            own: gateway.is_none(),
            gateway: Arc::clone(gateway.unwrap_or(&self.gateway)),
            speaker: best.speaker(now),
            reported: best.reported,
            words: Arc::clone(&best.words),
            load: best.load,
        })
    }
}

impl Candidates {
    /// The sibling that `entry` is known from; `None` if it is the own statement.
    pub(super) fn gateway_of(&self, entry: &KnownEndpoint) -> Option<&Arc<str>> {
        let listed = self.siblings.iter().find(|(_, known)| std::ptr::eq(*known, entry)).map(|(gateway, _)| gateway);
        let leaving = self.leaving.as_ref().filter(|leaving| std::ptr::eq(&leaving.entry, entry));
        listed.or_else(|| leaving.map(|leaving| &leaving.gateway))
    }
}

impl KnownEndpoint {
    fn speaker(&self, now: Timestamp) -> Speaker {
        match &self.source {
            Source::Stream { heard, .. } => Speaker::Sidecar { age: now.since(*heard) },
            Source::Gateway { down, attached, .. } => Speaker::Gateway { attached: *attached, down: *down },
            Source::Silent(silent) => Speaker::Probes {
                probed: silent.probed,
                failures: silent.failures,
                down_for: silent.down_since.map(|since| now.since(since)),
            },
        }
    }
}
