//! Which addresses are this host's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Whether `ip` is an address of this host: the kernel would send to it from itself. Nothing is sent to find out.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || source_towards(ip).is_ok_and(|source| source == ip)
}

fn source_towards(ip: IpAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((ip, DISCARD))?;
    Ok(socket.local_addr()?.ip())
}

/// The port by which the kernel is asked for a route. Any would do.
const DISCARD: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_local_and_addresses_for_documentation_are_not() {
        assert!(is_local([127, 0, 0, 1].into()) && is_local([127, 8, 8, 8].into()));
        assert!(!is_local([192, 0, 2, 1].into()) && !is_local([203, 0, 113, 9].into()));
    }
}
