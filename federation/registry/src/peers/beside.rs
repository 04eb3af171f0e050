//! What gateways say of their siblings: for whoever does not hear those.

use std::sync::{Arc, LazyLock};

use eastway_core::view::ZoneSummary;
use litemap::LiteMap;

/// Zones of a service in sum.
pub type Zones = LiteMap<Arc<str>, ZoneSummary>;
/// The same by the gateway that has the endpoints from the source.
pub type Holders = LiteMap<Arc<str>, Zones>;

/// What a gateway says of a service's endpoints that its siblings have, as it knows it; by default, that it does not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beside(Option<Arc<Holders>>);

/// Of most services nobody else has anything, or there is nobody else: that takes no room.
static NOTHING: LazyLock<Arc<Holders>> = LazyLock::new(Arc::default);

impl Beside {
    /// What all siblings have.
    pub fn told(holders: Holders) -> Self {
        Self(Some(if holders.is_empty() { Arc::clone(&NOTHING) } else { Arc::new(holders) }))
    }

    /// Whether it says.
    pub const fn is_told(&self) -> bool {
        self.0.is_some()
    }

    /// All that it says.
    pub fn holders(&self) -> impl Iterator<Item = (&Arc<str>, &Zones)> {
        self.0.iter().flat_map(|holders| holders.iter())
    }

    /// In the entries of the bounds on what a peer may say.
    pub(super) fn entries(&self) -> usize {
        self.holders().map(|(_, zones)| 1 + zones.len()).sum()
    }

    /// The same of so many gateways and zones of each at most, and whether that is all; each sum as `bounded`.
    pub(super) fn bounded(
        self,
        (gateways, most): (usize, usize),
        mut bounded: impl FnMut(&mut ZoneSummary),
    ) -> (Self, bool) {
        let Some(holders) = self.0.as_deref().filter(|holders| !holders.is_empty()) else { return (self, true) };
        let whole = holders.len() <= gateways && holders.values().all(|zones| zones.len() <= most);
        let few = |(gateway, zones): (&Arc<str>, &Zones)| {
            let zones = zones.iter().take(most).map(|(zone, summary)| {
                let mut summary = summary.clone();
                bounded(&mut summary);
                (Arc::clone(zone), summary)
            });
            (Arc::clone(gateway), zones.collect())
        };
        (Self::told(holders.iter().take(gateways).map(few).collect()), whole)
    }
}
