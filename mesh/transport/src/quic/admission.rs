//! Who may take up memory of an endpoint, and how much: pure counting, so that the endpoint's loop stays a loop.
//!
//! A handshake begins with a packet whose source address may be a lie. A few such are taken on trust; beyond, a client must
//! first show that it receives what is sent to its address (a Retry, which costs the endpoint no memory). Those that have
//! shown it are limited in number and per address, and none of them counts against the connections that stand.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use eastway_resilience::limits::{KeyedLimit, KeyedPermit, Limit, Permit};
use eastway_runtime::displacing::source;

use super::QuicOptions;
use crate::tunnel::{TunnelLimits, TunnelPlace};

/// The places of one endpoint.
#[derive(Debug)]
pub(super) struct Admission {
    /// Handshakes whose address is not proven.
    unproven: Arc<Limit>,
    /// Handshakes whose address is proven.
    proven: Arc<Limit>,
    proven_by_source: Arc<KeyedLimit<IpAddr>>,
    /// Accepted connections.
    connections: TunnelLimits,
}

/// What to do with a client's first packet.
#[derive(Debug)]
pub(super) enum HandshakeVerdict {
    /// Shake hands, holding the place until that is done.
    Admit(HandshakePlace),
    /// Let it prove its address first.
    Prove,
    /// There is no room.
    Refuse,
}

/// The place of a handshake.
#[derive(Debug)]
#[expect(dead_code, reason = "what is held is given back by being dropped")]
pub(super) enum HandshakePlace {
    Unproven(Permit),
    Proven(Permit, KeyedPermit<IpAddr>),
}

impl Admission {
    pub(super) fn new(options: &QuicOptions) -> Self {
        Self {
            unproven: Limit::new(options.max_unproven_handshakes),
            proven: Limit::new(options.max_handshakes),
            proven_by_source: KeyedLimit::new(options.max_address_handshakes),
            connections: TunnelLimits::new(options.max_connections, options.max_domain_connections),
        }
    }

    /// What becomes of a first packet from `address`, which is `proven` to be the sender's or not.
    pub(super) fn handshake(&self, address: SocketAddr, proven: bool) -> HandshakeVerdict {
        if self.connections.are_reached() {
            return HandshakeVerdict::Refuse;
        }
        if !proven {
            return match self.unproven.try_acquire() {
                Some(place) => HandshakeVerdict::Admit(HandshakePlace::Unproven(place)),
                None => HandshakeVerdict::Prove,
            };
        }
        let of_source = self.proven_by_source.try_acquire(&source(address.ip()));
        match of_source.zip(self.proven.try_acquire()) {
            Some((of_source, place)) => HandshakeVerdict::Admit(HandshakePlace::Proven(place, of_source)),
            None => HandshakeVerdict::Refuse,
        }
    }

    /// A place for a connection of a peer whose identity is of `trust_domain`.
    pub(super) fn connection(&self, trust_domain: &str) -> Option<TunnelPlace> {
        self.connections.enter(trust_domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Admission {
        Admission::new(&QuicOptions {
            max_unproven_handshakes: 2,
            max_handshakes: 3,
            max_address_handshakes: 2,
            max_connections: 3,
            max_domain_connections: 2,
            ..QuicOptions::default()
        })
    }

    fn from(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 4000).into()
    }

    #[test]
    fn unproven_addresses_never_take_the_places_of_proven_ones() {
        let admission = admission();
        let _flood: Vec<_> = (0..2).map(|_| admission.handshake(from(1), false)).collect();
        for _ in 0..1_000 {
            assert!(matches!(admission.handshake(from(1), false), HandshakeVerdict::Prove));
        }
        let first = admission.handshake(from(1), true);
        let second = admission.handshake(from(1), true);
        assert!(matches!((&first, &second), (HandshakeVerdict::Admit(_), HandshakeVerdict::Admit(_))));
        assert!(matches!(admission.handshake(from(1), true), HandshakeVerdict::Refuse), "one address");
        let third = admission.handshake(from(2), true);
        assert!(matches!(third, HandshakeVerdict::Admit(_)));
        assert!(matches!(admission.handshake(from(3), true), HandshakeVerdict::Refuse), "all addresses");
        drop(first);
        assert!(matches!(admission.handshake(from(3), true), HandshakeVerdict::Admit(_)));
    }

    #[test]
    fn no_peer_takes_all_connections() {
        let admission = admission();
        let first = admission.connection("eu");
        let _second = admission.connection("eu").expect("a place");
        assert!(first.is_some() && admission.connection("eu").is_none());
        let _other = admission.connection("us").expect("a place");
        assert!(admission.connection("ap").is_none());
        assert!(matches!(admission.handshake(from(1), true), HandshakeVerdict::Refuse), "no connection could follow");
        drop(first);
        assert!(admission.connection("ap").is_some());
    }
}
