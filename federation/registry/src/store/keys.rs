//! The layout of the store: which fact lives under which key.
//!
//! Every key begins with `/eastway/v1/`; a change of layout changes that number. Nothing else in the project spells a
//! key out. Prefixes end in `/`, so that `shop` never matches `shopping`.
//!
//! ```text
//! self/meta                      cluster uid, region, zones, gateways, trust bundle
//! self/gateway/GW                one per gateway: address, epoch; hangs on a lease
//! self/epoch/GW                  which life of gateway GW may write its slices; outlives it
//! self/leader                    the gateway that leads; hangs on a lease
//! self/config/current            which generation of applied resources counts
//! self/config/generation/N       a generation: by whom, when, what changed, the names of its parts
//! self/config/part/NAME          resources of one kind and namespace as applied
//! self/virtual/name/NS/NAME      the number of a name's virtual address; of a name in one cluster NS/NAME/CLUSTER
//! self/virtual/number/N          the name that has the number N, or had it until it was freed
//! self/token/HASH                a token by which another cluster may become a peer, by the hash of its secret
//! self/svc/NS/NAME/slice/GW-K    slice K of the endpoints that gateway GW has of a service
//! peer/CLUSTER/REST              mirror of what a peer exports
//! drill/ID, shift/ID             active drills and evacuations
//! ```

use std::fmt;

use eastway_core::{MeshHost, ServiceName};

/// The root of everything.
pub const ROOT: &str = "/eastway/v1/";

/// Cluster uid, region, zones, gateways, trust bundle.
pub const META: &str = "/eastway/v1/self/meta";

/// The election key: who holds it leads.
pub const LEADER: &str = "/eastway/v1/self/leader";

/// The cluster's gateways.
pub const GATEWAYS: &str = "/eastway/v1/self/gateway/";

/// The lives of the cluster's gateways.
pub const EPOCHS: &str = "/eastway/v1/self/epoch/";

/// All that is kept of applied resources.
pub const CONFIG: &str = "/eastway/v1/self/config/";

/// Below [`CONFIG`]: which generation counts.
pub const CONFIG_CURRENT: &str = "current";

/// Below [`CONFIG`]: the generations.
pub const CONFIG_GENERATIONS: &str = "generation/";

/// Below [`CONFIG`]: the parts of generations.
pub const CONFIG_PARTS: &str = "part/";

/// The tokens by which other clusters may become peers.
pub const TOKENS: &str = "/eastway/v1/self/token/";

/// The virtual addresses of names.
pub const VIRTUALS: &str = "/eastway/v1/self/virtual/";

/// The slices of all services.
pub const SERVICES: &str = "/eastway/v1/self/svc/";

/// The mirrors of all peers.
pub const PEERS: &str = "/eastway/v1/peer/";

/// Active drills.
pub const DRILLS: &str = "/eastway/v1/drill/";

/// Active evacuations.
pub const SHIFTS: &str = "/eastway/v1/shift/";

/// The key of the gateway `id`.
pub fn gateway(id: &str) -> String {
    format!("{GATEWAYS}{id}")
}

/// The key of the life of the gateway `id`, which its writes are conditional on.
pub fn epoch(id: &str) -> String {
    format!("{EPOCHS}{id}")
}

/// The key of a generation of applied resources. Their order is that of the numbers.
pub fn config_generation(number: u64) -> String {
    format!("{CONFIG}{CONFIG_GENERATIONS}{number:010}")
}

/// The key of a part of generations.
pub fn config_part(name: &str) -> String {
    format!("{CONFIG}{CONFIG_PARTS}{name}")
}

/// The key of a token, by the hash of its secret.
pub fn token(hash: &str) -> String {
    format!("{TOKENS}{hash}")
}

/// The key of the number of a name's virtual address.
pub fn virtual_name(host: &MeshHost) -> String {
    format!("{VIRTUALS}name/{host}")
}

/// The key of the name that has a number.
pub fn virtual_number(number: u32) -> String {
    format!("{VIRTUALS}number/{number}")
}

/// All slices of one service.
pub fn slices(service: &ServiceName) -> String {
    format!("{SERVICES}{}/{}/slice/", service.namespace, service.service)
}

/// Slice `index` of the endpoints that `gateway` has of `service`.
pub fn slice(service: &ServiceName, gateway: &str, index: u32) -> String {
    format!("{}{gateway}-{index}", slices(service))
}

/// Everything mirrored from the peer `cluster`.
pub fn peer_prefix(cluster: &str) -> String {
    format!("{PEERS}{cluster}/")
}

/// One fact mirrored from the peer `cluster`.
pub fn peer(cluster: &str, rest: &str) -> String {
    format!("{PEERS}{cluster}/{rest}")
}

/// An active drill.
pub fn drill(id: &str) -> String {
    format!("{DRILLS}{id}")
}

/// An active evacuation.
pub fn shift(id: &str) -> String {
    format!("{SHIFTS}{id}")
}

/// Whether `key` may hang on a lease: only gateways and the election may. A storm of leases that end, or a leader that
/// stalls, must not delete a healthy fleet; so the stores refuse all other keys.
pub fn may_hang_on_lease(key: &str) -> bool {
    key == LEADER || key.strip_prefix(GATEWAYS).is_some_and(|id| !id.is_empty())
}

/// A key that was understood: the inverse of the builders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// [`META`].
    Meta,
    /// [`LEADER`].
    Leader,
    /// [`gateway`]: its id.
    Gateway(String),
    /// [`epoch`]: the gateway's id.
    Epoch(String),
    /// [`slice()`].
    Slice {
        /// The service.
        service: ServiceName,
        /// The gateway that has the endpoints from the source.
        gateway: String,
        /// The slice's number.
        index: u32,
    },
    /// [`peer`].
    Peer {
        /// The peer's name.
        cluster: String,
        /// The rest of the key.
        rest: String,
    },
    /// [`virtual_name`].
    VirtualName(MeshHost),
    /// [`virtual_number`].
    VirtualNumber(u32),
    /// [`drill`]: its id.
    Drill(String),
    /// [`shift`]: its id.
    Shift(String),
}

impl Key {
    /// Understands `text`; `None` for keys of another layout, which readers skip.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.strip_prefix(ROOT)?.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return None;
        }
        Some(match parts[..] {
            ["self", "meta"] => Self::Meta,
            ["self", "leader"] => Self::Leader,
            ["self", "gateway", id] => Self::Gateway(id.to_owned()),
            ["self", "epoch", id] => Self::Epoch(id.to_owned()),
            ["self", "svc", namespace, service, "slice", slice] => {
                let (gateway, index) = slice.rsplit_once('-')?;
                let service = ServiceName::new(namespace, service);
                Self::Slice { service, gateway: gateway.to_owned(), index: index.parse().ok()? }
            }
            ["peer", cluster, ..] if parts.len() > 2 => {
                Self::Peer { cluster: cluster.to_owned(), rest: parts[2..].join("/") }
            }
            ["self", "virtual", "name", ..] => Self::VirtualName(parts[3..].join("/").parse().ok()?),
            ["self", "virtual", "number", number] => Self::VirtualNumber(number.parse().ok()?),
            ["drill", id] => Self::Drill(id.to_owned()),
            ["shift", id] => Self::Shift(id.to_owned()),
            _ => return None,
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            Self::Meta => META.to_owned(),
            Self::Leader => LEADER.to_owned(),
            Self::Gateway(id) => gateway(id),
            Self::Epoch(id) => epoch(id),
            Self::Slice { service, gateway, index } => slice(service, gateway, *index),
            Self::Peer { cluster, rest } => peer(cluster, rest),
            Self::VirtualName(host) => virtual_name(host),
            Self::VirtualNumber(number) => virtual_number(*number),
            Self::Drill(id) => drill(id),
            Self::Shift(id) => shift(id),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spelled_as_designed_and_read_back() {
        let payments = ServiceName::new("shop", "payments");
        let in_eu = MeshHost { service: payments.clone(), cluster: Some("eu-west".into()) };
        let cases = [
            ("/eastway/v1/self/meta", META.to_owned()),
            ("/eastway/v1/self/leader", LEADER.to_owned()),
            ("/eastway/v1/self/gateway/gw-1", gateway("gw-1")),
            ("/eastway/v1/self/epoch/gw-1", epoch("gw-1")),
            ("/eastway/v1/self/svc/shop/payments/slice/gw-1-0", slice(&payments, "gw-1", 0)),
            ("/eastway/v1/peer/eu-west/gw-1/svc/shop/payments", peer("eu-west", "gw-1/svc/shop/payments")),
            ("/eastway/v1/self/virtual/name/shop/payments/eu-west", virtual_name(&in_eu)),
            ("/eastway/v1/self/virtual/number/4711", virtual_number(4711)),
            ("/eastway/v1/drill/d1", drill("d1")),
            ("/eastway/v1/shift/s1", shift("s1")),
        ];
        for (expected, built) in cases {
            assert_eq!(built, expected);
            assert_eq!(Key::parse(expected).expect(expected).to_string(), expected);
        }
        assert_eq!(config_generation(12), "/eastway/v1/self/config/generation/0000000012");
        assert_eq!(config_part("12-gw-1-0"), "/eastway/v1/self/config/part/12-gw-1-0");
        let slice = Key::parse("/eastway/v1/self/svc/shop/payments/slice/gw-1-12");
        assert_eq!(slice, Some(Key::Slice { service: payments, gateway: "gw-1".to_owned(), index: 12 }));
    }

    #[test]
    fn foreign_keys_are_not_understood() {
        for text in ["", "/eastway/v2/self/meta", "/eastway/v1/self/gateway/", "/eastway/v1/self/svc/a/b/slice/gw-x"] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_gateways_and_the_election_may_hang_on_leases() {
        assert!(may_hang_on_lease(&gateway("gw-1")) && may_hang_on_lease(LEADER));
        assert!(!may_hang_on_lease(GATEWAYS) && !may_hang_on_lease(META));
        assert!(!may_hang_on_lease(&slice(&ServiceName::new("shop", "payments"), "gw-1", 0)));
    }
}
