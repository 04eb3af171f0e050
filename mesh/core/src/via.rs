//! How the way of a stream to a peer is named to the sidecar that asked for it: `CLUSTER/ADDRESS`, and `;tcp` behind it over TCP.
//!
//! The sidecar takes two streams of one name for two of one fate: where UDP stops, one over TCP proves nothing for one over QUIC.
//! What it says of a name means the gateway, over whatever transport.

use crate::view::Transport;

/// Behind the address of a gateway that is reached over TCP.
const OVER_TCP: &str = ";tcp";

/// The name of the way to a gateway of `cluster` at `address`.
pub fn name(cluster: &str, address: &str, transport: Transport) -> String {
    let over = match transport {
        Transport::Quic => "",
        Transport::Tcp => OVER_TCP,
    };
    format!("{cluster}/{address}{over}")
}

/// The cluster and the address of the gateway that a name means.
pub fn gateway(name: &str) -> Option<(&str, &str)> {
    let (cluster, address) = name.split_once('/')?;
    Some((cluster, address.strip_suffix(OVER_TCP).unwrap_or(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_transport_and_means_the_gateway() {
        let names = [Transport::Quic, Transport::Tcp].map(|transport| name("eu-west", "[::1]:15443", transport));
        assert_ne!(names[0], names[1]);
        for name in &names {
            assert_eq!(gateway(name), Some(("eu-west", "[::1]:15443")));
        }
        assert_eq!(gateway("[::1]:15443"), None);
    }
}
