//! What a stream can follow: a view that this gateway forms, or declared resources as they are stored.

use eastway_client::convert;
use eastway_core::{MeshHost, ServiceName};
use eastway_proto::discovery::v1 as wire;

/// Something to follow, in the order in which it is told: what the rest needs comes first, and loads last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Topic {
    /// The mesh around the services.
    Mesh,
    /// What callers of a service are held to.
    Served(ServiceName),
    /// A service, for its callers.
    Service(ServiceName),
    /// The virtual address of a name.
    Address(MeshHost),
    /// Declared resources of a kind: one, or all.
    Declared {
        /// Perhaps a kind that this release does not know.
        kind: String,
        /// NAMESPACE/NAME, or [`Topic::ALL`].
        name: String,
    },
    /// What the endpoints of a service say of their load.
    Loads(ServiceName),
}

/// The longest word for a kind, in bytes.
const MAX_KIND: usize = 64;
/// The longest name within a kind, in bytes.
const MAX_NAME: usize = 256;

impl Topic {
    /// The name of all resources of a kind.
    pub(crate) const ALL: &str = "*";

    /// What a node asks for; `None` if it can be nothing.
    pub(crate) fn from_wire(topic: &wire::Topic) -> Option<Self> {
        let wire::Topic { kind, name } = topic;
        let service = || convert::service_name(name).ok();
        match kind.as_str() {
            convert::MESH => Some(Self::Mesh),
            convert::SERVED => Some(Self::Served(service()?)),
            convert::SERVICE => Some(Self::Service(service()?)),
            convert::LOAD => Some(Self::Loads(service()?)),
            convert::ADDRESS => Some(Self::Address(name.parse().ok()?)),
            // Words in small letters are for views, perhaps a later release's.
            _ if !kind.starts_with(|first: char| first.is_ascii_uppercase()) => None,
            _ if kind.len() > MAX_KIND || name.len() > MAX_NAME => None,
            _ => Some(Self::Declared { kind: kind.clone(), name: name.clone() }),
        }
    }

    /// The same for the wire.
    pub(crate) fn to_wire(&self) -> wire::Topic {
        let (kind, name) = match self {
            Self::Mesh => (convert::MESH, String::new()),
            Self::Served(service) => (convert::SERVED, service.to_string()),
            Self::Service(service) => (convert::SERVICE, service.to_string()),
            Self::Loads(service) => (convert::LOAD, service.to_string()),
            Self::Address(host) => (convert::ADDRESS, host.to_string()),
            Self::Declared { kind, name } => (kind.as_str(), name.clone()),
        };
        wire::Topic { kind: kind.to_owned(), name }
    }

    /// Everything that is told of `service`.
    pub(crate) fn of_service(service: &ServiceName) -> [Self; 3] {
        [Self::Served, Self::Service, Self::Loads].map(|topic| topic(service.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, name: &str) -> Option<Topic> {
        Topic::from_wire(&wire::Topic { kind: kind.to_owned(), name: name.to_owned() })
    }

    #[test]
    fn topics_are_read_as_they_are_written_and_what_is_none_is_passed_over() {
        let payments = ServiceName::new("shop", "payments");
        let declared = |name: &str| Topic::Declared { kind: "Widget".to_owned(), name: name.to_owned() };
        let hosts = [None, Some("eu-west".into())].map(|cluster| MeshHost { service: payments.clone(), cluster });
        let all = Topic::of_service(&payments).into_iter().chain([Topic::Mesh, declared("*"), declared("shop/w")]);
        let all = all.chain(hosts.map(Topic::Address));
        for topic in all {
            assert_eq!(Topic::from_wire(&topic.to_wire()), Some(topic));
        }
        let long = "x".repeat(300);
        for (kind, name) in [
            ("service", "payments"),
            ("served", ""),
            ("address", "payments"),
            ("views", "shop/payments"),
            ("Widget", &long),
            ("", ""),
        ] {
            assert_eq!(read(kind, name), None, "{kind} {name}");
        }
    }

    #[test]
    fn loads_are_told_last_and_the_mesh_first() {
        let payments = ServiceName::new("shop", "payments");
        let mut topics = Vec::from(Topic::of_service(&payments));
        topics.extend([Topic::Declared { kind: "Widget".to_owned(), name: "*".to_owned() }, Topic::Mesh]);
        topics.sort();
        assert_eq!((topics.first(), topics.last()), (Some(&Topic::Mesh), Some(&Topic::Loads(payments))));
    }
}
