//! How many tunnels peers may have here, all together and each trust domain.

use std::sync::Arc;

use eastway_resilience::limits::{KeyedLimit, KeyedPermit, Limit, Permit};

/// The places of accepted tunnels.
#[derive(Debug)]
pub(crate) struct TunnelLimits {
    all: Arc<Limit>,
    by_domain: Arc<KeyedLimit<String>>,
}

/// The place of a tunnel, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct TunnelPlace {
    _any: Permit,
    _of_domain: KeyedPermit<String>,
}

impl TunnelLimits {
    /// Room for `all` tunnels, and for `of_domain` whose peers are of one trust domain.
    pub(crate) fn new(all: u32, of_domain: u32) -> Self {
        Self { all: Limit::new(all), by_domain: KeyedLimit::new(of_domain) }
    }

    /// Whether there is no room for anybody.
    pub(crate) fn are_reached(&self) -> bool {
        self.all.taken() >= self.all.max()
    }

    /// A place for a tunnel of a peer whose identity is of `trust_domain`.
    pub(crate) fn enter(&self, trust_domain: &str) -> Option<TunnelPlace> {
        let of_domain = self.by_domain.try_acquire(&trust_domain.to_owned())?;
        Some(TunnelPlace { _any: self.all.try_acquire()?, _of_domain: of_domain })
    }
}
