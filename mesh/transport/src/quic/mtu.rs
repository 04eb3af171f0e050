//! How large a UDP payload the interface behind an address carries.

use std::net::{IpAddr, SocketAddr};

/// The largest payload towards the network of `local`; with an unspecified address, the largest of all interfaces. Path
/// discovery finds out what each path really carries, so this only has to be high enough.
pub(super) fn payload(local: SocketAddr, ceiling: u16) -> u16 {
    let overhead = if local.is_ipv4() { 28 } else { 48 };
    let interface = interface_mtu(local.ip()).unwrap_or(ETHERNET);
    let payload = interface.saturating_sub(overhead).min(u32::from(MAX_PAYLOAD)) as u16;
    payload.min(ceiling).max(MIN_PAYLOAD)
}

fn interface_mtu(local: IpAddr) -> Option<u32> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    interfaces
        .filter(|interface| {
            let address = interface.address.as_ref();
            let ip = address.and_then(|a| match (a.as_sockaddr_in(), a.as_sockaddr_in6()) {
                (Some(v4), _) => Some(IpAddr::from(v4.ip())),
                (_, Some(v6)) => Some(IpAddr::from(v6.ip())),
                _ => None,
            });
            // The whole of 127.0.0.0/8 is on the loopback interface, which shows only its first address.
            let loopback = local.is_loopback() && interface.flags.contains(nix::net::if_::InterfaceFlags::IFF_LOOPBACK);
            local.is_unspecified() || ip == Some(local) || loopback
        })
        .filter_map(|interface| {
            let file = format!("/sys/class/net/{}/mtu", interface.interface_name);
            std::fs::read_to_string(file).ok()?.trim().parse().ok()
        })
        .max()
}

/// What is assumed of an interface that cannot be asked.
const ETHERNET: u32 = 1500;
/// The least payload that QUIC works with.
const MIN_PAYLOAD: u16 = 1200;
/// The largest payload of a UDP packet over IPv4.
const MAX_PAYLOAD: u16 = 65_507;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_carries_large_payloads_up_to_the_ceiling() {
        let local = SocketAddr::from(([127, 3, 0, 9], 0));
        assert_eq!(payload(local, 8952), 8952);
        assert!(payload(local, u16::MAX) > 8952);
    }

    #[test]
    fn an_address_of_no_interface_is_taken_for_ethernet() {
        let local = SocketAddr::from(([192, 0, 2, 1], 0));
        assert_eq!(payload(local, 8952), 1472);
        let local = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 0));
        assert_eq!(payload(local, 8952), 1452);
    }

    #[test]
    fn the_ceiling_never_goes_below_what_quic_needs() {
        assert_eq!(payload(SocketAddr::from(([127, 0, 0, 1], 0)), 600), 1200);
    }
}
