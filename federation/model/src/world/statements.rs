//! What is said on the streams between the actors.

use eastway_core::resource::ClusterMeta;
use eastway_core::{Health, ServiceName, Version};
use eastway_registry::{Delta, EndpointState, Key, Registration, ServiceFacts, Statement};

/// One message.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// A sidecar registers, states its health, deregisters.
    Register(Box<Registration>, Health),
    Health(Health),
    Deregister(Key, u64),
    /// It is taken; or a later incarnation is known.
    Accepted,
    Rejected {
        highest: u64,
    },
    /// A sidecar follows a service, and is told of it.
    Follow(ServiceName),
    Whole(u64, Box<ServiceFacts>),
    Difference(ServiceName, u64, Box<Delta>),
    Unknown(ServiceName),
    /// A gateway asks another for its statements.
    Hello,
    Welcome {
        meta: Box<ClusterMeta>,
        gateway: String,
        version: Version,
    },
    /// Of what is exported, to a peer.
    Peer(Version, Box<Statement>),
    /// Of how endpoints do, to a sibling.
    Sibling(Version, Vec<Statement<Key, EndpointState>>),
    /// A sign of life that says nothing else.
    Alive,
    /// The other end has closed the stream.
    Closed,
}

impl Said {
    /// Whether it states something to another gateway, beyond being alive.
    pub(crate) fn is_news(&self) -> bool {
        match self {
            Self::Peer(_, statement) => !matches!(**statement, Statement::Heartbeat),
            Self::Sibling(_, statements) => !matches!(statements[..], [Statement::Heartbeat]),
            _ => false,
        }
    }
}
