//! What gateways say of their siblings: for whoever does not hear those.

use std::sync::Arc;

use eastway_core::view::ZoneSummary;
use litemap::LiteMap;

/// Zones of a service in sum.
pub type Zones = LiteMap<Arc<str>, ZoneSummary>;
/// The same by the gateway that has the endpoints from the source.
pub type Holders = LiteMap<Arc<str>, Zones>;

/// What a gateway says of a service's endpoints that its siblings have, as it knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Beside {
    /// It does not say.
    #[default]
    Untold,
    /// They have none.
    Nothing,
    /// These.
    Some(Box<Holders>),
}

impl Beside {
    /// What is said of all siblings.
    pub fn told(holders: Holders) -> Self {
        if holders.is_empty() { Self::Nothing } else { Self::Some(Box::new(holders)) }
    }

    /// All of it; `None` if it is not said.
    pub fn holders(&self) -> Option<impl Iterator<Item = (&Arc<str>, &Zones)>> {
        match self {
            Self::Untold => None,
            Self::Nothing => Some(None),
            Self::Some(holders) => Some(Some(holders)),
        }
        .map(|holders| holders.into_iter().flat_map(|holders| holders.iter()))
    }

    /// In the entries of the bounds on what a peer may say.
    pub(super) fn entries(&self) -> usize {
        self.holders().map_or(0, |holders| holders.map(|(_, zones)| 1 + zones.len()).sum())
    }
}
