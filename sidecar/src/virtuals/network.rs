//! Which address a number becomes: out of the loopback network, at which this process listens, or out of networks that nobody
//! has, whose connections the host captures.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use eastway_registry::virtuals::NUMBERS;

use crate::config::{Dns, DnsAddresses};

/// 127.64.0.0/10: all of 127.0.0.0/8 is this host.
const LOOPBACK: u32 = u32::from_be_bytes([127, 64, 0, 0]);
/// 240.0.0.0/4, which is nobody's (RFC 1112).
const RESERVED: u32 = u32::from_be_bytes([240, 0, 0, 0]);

/// The networks of the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) addresses: DnsAddresses,
    /// A /96 whose last 32 bits are the number.
    prefix: Option<Ipv6Addr>,
}

/// The addresses of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) number: u32,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Option<Ipv6Addr>,
}

impl Network {
    /// As configured.
    pub(crate) const fn new(dns: &Dns) -> Self {
        Self { addresses: dns.addresses, prefix: dns.prefix }
    }

    /// The addresses of a number; `None` if the cluster has more of them than there are here.
    pub(crate) fn of(&self, number: u32) -> Option<Addresses> {
        let six = |prefix: Ipv6Addr| Ipv6Addr::from_bits(prefix.to_bits() | u128::from(number));
        let four = |_| Addresses { number, v4: Ipv4Addr::from(self.first() + number), v6: self.prefix.map(six) };
        (number < NUMBERS).then_some(()).map(four)
    }

    /// The number of an address; `None` if it is none of these networks.
    pub(crate) fn number(&self, address: IpAddr) -> Option<u32> {
        let number = match address {
            IpAddr::V4(address) => address.to_bits().checked_sub(self.first())?,
            IpAddr::V6(address) => u32::try_from(address.to_bits().checked_sub(self.prefix?.to_bits())?).ok()?,
        };
        (number < NUMBERS).then_some(number)
    }

    const fn first(&self) -> u32 {
        match self.addresses {
            DnsAddresses::Loopback => LOOPBACK,
            DnsAddresses::Captured => RESERVED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_addresses_and_addresses_numbers() {
        let prefix = "fd00:ea57::".parse().ok();
        let loopback = Network { addresses: DnsAddresses::Loopback, prefix: None };
        let captured = Network { addresses: DnsAddresses::Captured, prefix };
        let four = |network: Network, number| network.of(number).map(|addresses| addresses.v4.to_string());
        assert_eq!(four(loopback, 256).as_deref(), Some("127.64.1.0"));
        assert_eq!(four(loopback, NUMBERS - 1).as_deref(), Some("127.127.255.255"));
        assert_eq!(four(captured, 256).as_deref(), Some("240.0.1.0"));
        assert_eq!((four(loopback, NUMBERS), four(captured, NUMBERS)), (None, None));
        for number in [0, 1, 256, NUMBERS - 1] {
            let Addresses { v4, v6, .. } = captured.of(number).expect("an address");
            assert_eq!(captured.number(v4.into()), Some(number));
            assert_eq!(v6.and_then(|v6| captured.number(v6.into())), Some(number));
        }
        for other in ["127.64.0.1", "239.255.255.255", "240.64.0.0", "fd00:ea56:ffff::", "fd00:ea57:0:0:0:1::"] {
            assert_eq!(captured.number(other.parse().expect("an address")), None, "{other}");
        }
    }
}
