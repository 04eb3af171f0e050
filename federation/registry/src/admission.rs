//! Which addresses a workload may register, because gateways and callers connect to them.
//!
//! Whoever may choose an address freely reaches by way of the gateway what it cannot reach itself: the gateway's own
//! administration port, a store on its loopback, the metadata service of its cloud. Pure: what only the host knows is
//! handed in. Called by `federation/server`.

use std::net::{IpAddr, SocketAddr};

use eastway_core::network::{Network, canonical, canonical_socket};

/// What an operator allows and what a gateway itself uses.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Where workloads may be reached, besides at the address that their registration comes from.
    pub networks: Vec<Network>,
    /// Every address and port that the gateway itself listens on.
    pub listeners: Vec<SocketAddr>,
    /// The gateway takes registrations on a loopback address only, so that all workloads of the cluster are on its host.
    pub loopback: bool,
}

/// Why an address is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No workload can be reached there.
    #[error(
        "`{0}` cannot be the address of a workload: it is unspecified, broadcast, multicast or link-local, or has port 0"
    )]
    Unusable(SocketAddr),
    /// The gateway itself listens there.
    #[error("`{0}` is a listener of the gateway itself")]
    Listener(SocketAddr),
    /// It is another place than that which the registration comes from.
    #[error(
        "the registration comes from {from}, but names `{address}`: if the workload is reached there, list its network in \
         `registration.networks` of the cluster's gateways"
    )]
    Elsewhere {
        /// The address that was to be registered.
        address: SocketAddr,
        /// Where the registration came from.
        from: IpAddr,
    },
    /// It is the loopback of whoever connects to it.
    #[error("`{0}` is a loopback address, which means another host to everyone")]
    Loopback(SocketAddr),
}

impl Admission {
    /// Whether a workload whose registration comes from `from` may be reached at `address`. `is_local` says whether an
    /// address is one of the gateway's host.
    ///
    /// A registration from a loopback address, or from another address of this host, comes from a workload beside the
    /// gateway: all addresses of the host are as much its own, but for the gateway's listeners.
    ///
    /// # Errors
    /// Why not.
    pub fn check(
        &self,
        address: SocketAddr,
        from: IpAddr,
        is_local: impl Fn(IpAddr) -> bool,
    ) -> Result<(), AddressError> {
        let (address, from) = (canonical_socket(address), canonical(from));
        self.check_usable(address, &is_local)?;
        let ip = address.ip();
        let is_beside = is_local(from);
        if ip.is_loopback() && !is_beside {
            return Err(AddressError::Loopback(address));
        }
        let listed = || self.networks.iter().any(|network| network.contains(ip));
        if ip == from || listed() || (is_beside && is_local(ip)) {
            Ok(())
        } else {
            Err(AddressError::Elsewhere { address, from })
        }
    }

    /// Whether an address that stands in the store may be connected to. Where its registration came from is not known any
    /// more; whoever wrote it has judged that. `own`: this gateway did.
    ///
    /// # Errors
    /// Why not.
    pub fn check_stored(
        &self,
        address: SocketAddr,
        own: bool,
        is_local: impl Fn(IpAddr) -> bool,
    ) -> Result<(), AddressError> {
        let address = canonical_socket(address);
        self.check_usable(address, &is_local)?;
        // The loopback of a sibling's host is not that of this one.
        if address.ip().is_loopback() && !own && !self.loopback {
            return Err(AddressError::Loopback(address));
        }
        Ok(())
    }

    fn check_usable(&self, address: SocketAddr, is_local: &impl Fn(IpAddr) -> bool) -> Result<(), AddressError> {
        if address.port() == 0 || is_unusable(address.ip()) {
            return Err(AddressError::Unusable(address));
        }
        let is_own = |listener: &SocketAddr| {
            let ip = canonical(listener.ip());
            let all = ip.is_unspecified() && is_local(address.ip());
            listener.port() == address.port() && (all || ip == address.ip())
        };
        if self.listeners.iter().any(is_own) { Err(AddressError::Listener(address)) } else { Ok(()) }
    }
}

fn is_unusable(ip: IpAddr) -> bool {
    let of_family = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    of_family || ip.is_unspecified() || ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gateway at 10.0.0.5 with the customary ports, whose operator knows of the network 10.9.0.0/16.
    fn gateway() -> Admission {
        let listeners = ["0.0.0.0:15443", "0.0.0.0:15010", "127.0.0.1:15000", "10.0.0.5:15020", "[::]:15021"];
        Admission {
            networks: vec!["10.9.0.0/16".parse().expect("a network"), "127.0.0.0/8".parse().expect("a network")],
            listeners: listeners.iter().map(|listener| listener.parse().expect("an address")).collect(),
            loopback: false,
        }
    }

    fn is_local(ip: IpAddr) -> bool {
        ip.is_loopback() || ip == IpAddr::from([10, 0, 0, 5])
    }

    fn check(address: &str, from: &str) -> Result<(), AddressError> {
        gateway().check(address.parse().expect("an address"), from.parse().expect("an address"), is_local)
    }

    #[test]
    fn a_workload_is_reached_where_it_registers_from_or_in_a_network_that_is_listed() {
        assert_eq!(check("10.1.1.1:15008", "10.1.1.1"), Ok(()));
        assert_eq!(check("10.1.1.1:15008", "::ffff:10.1.1.1"), Ok(()));
        assert_eq!(check("10.9.1.1:15008", "10.1.1.1"), Ok(()));
        for elsewhere in ["10.1.1.2:15008", "8.8.8.8:53", "10.0.0.5:2379", "[2001:db8::1]:80"] {
            assert!(matches!(check(elsewhere, "10.1.1.1"), Err(AddressError::Elsewhere { .. })), "{elsewhere}");
        }
    }

    #[test]
    fn who_is_beside_the_gateway_is_reached_at_any_address_of_their_host() {
        for from in ["127.0.0.1", "10.0.0.5"] {
            for address in ["127.0.0.1:15008", "127.1.2.3:15008", "10.0.0.5:15008", "[::1]:15008"] {
                assert_eq!(check(address, from), Ok(()), "{address} from {from}");
            }
            assert!(check("10.1.1.1:15008", from).is_err(), "{from}");
        }
    }

    #[test]
    fn the_gateways_loopback_is_nobody_elses_not_even_in_a_network_that_is_listed() {
        for address in ["127.0.0.1:2379", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            assert!(matches!(check(address, "10.1.1.1"), Err(AddressError::Loopback(_))), "{address}");
        }
    }

    #[test]
    fn the_gateways_own_listeners_are_never_registered() {
        for address in [
            "127.0.0.1:15000",
            "127.0.0.1:15443",
            "127.7.7.7:15010",
            "10.0.0.5:15443",
            "10.0.0.5:15020",
            "[::ffff:127.0.0.1]:15000",
            "10.0.0.5:15021",
        ] {
            assert!(matches!(check(address, "127.0.0.1"), Err(AddressError::Listener(_))), "{address}");
        }
        // Another host may use the same ports.
        assert_eq!(check("10.1.1.1:15443", "10.1.1.1"), Ok(()));
        assert_eq!(check("127.0.0.1:15020", "127.0.0.1"), Ok(()), "only 10.0.0.5 has that port");
    }

    #[test]
    fn what_is_nobodys_address_is_refused_wherever_it_comes_from() {
        for address in [
            "0.0.0.0:80",
            "[::]:80",
            "255.255.255.255:80",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "0.1.2.3:80",
            "10.1.1.1:0",
        ] {
            let from = address.parse::<SocketAddr>().expect("an address").ip();
            for from in [from, IpAddr::from([127, 0, 0, 1])] {
                let refused = gateway().check(address.parse().expect("an address"), from, is_local);
                assert!(matches!(refused, Err(AddressError::Unusable(_))), "{address} from {from}");
            }
        }
    }

    #[test]
    fn a_sibling_may_not_lead_to_this_hosts_loopback() {
        let stored = |admission: &Admission, address: &str, own| {
            admission.check_stored(address.parse().expect("an address"), own, is_local)
        };
        let gateway = gateway();
        assert_eq!(stored(&gateway, "10.1.1.1:15008", false), Ok(()));
        assert!(matches!(stored(&gateway, "127.0.0.1:2379", false), Err(AddressError::Loopback(_))));
        assert_eq!(stored(&gateway, "127.0.0.1:15008", true), Ok(()));
        assert!(matches!(stored(&gateway, "127.0.0.1:15000", true), Err(AddressError::Listener(_))));
        assert!(matches!(stored(&gateway, "169.254.169.254:80", true), Err(AddressError::Unusable(_))));
        let on_one_host = Admission { loopback: true, ..gateway };
        assert_eq!(stored(&on_one_host, "127.0.0.1:15008", false), Ok(()));
    }
}
