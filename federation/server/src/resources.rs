//! Declared resources, with the peers' pinned bundles read.

use std::io;
use std::path::{Path, PathBuf};

use eastway_core::ServiceName;
use eastway_core::resource::{Document, Peer, Resource};
use eastway_registry::{PeerPolicy, Resources};

/// What is wrong with the resources.
#[derive(Debug, thiserror::Error)]
pub enum ResourcesError {
    /// A peer's bundle cannot be read.
    #[error("peer `{peer}`: its trust bundle {} cannot be read", path.display())]
    Unreadable {
        /// The peer.
        peer: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// A peer's bundle holds no certificates.
    #[error("peer `{peer}`: its trust bundle {} is not PEM with certificates", path.display())]
    Malformed {
        /// The peer.
        peer: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: eastway_identity::LoadError,
    },
    /// Two resources of one kind have one name.
    #[error("{0} is declared twice")]
    Twice(String),
}

/// The resources in the form that the server works with. The paths of bundles are taken as they are.
///
/// # Errors
/// Every problem, not just the first.
pub fn resources(list: &[Resource]) -> Result<Resources, Vec<ResourcesError>> {
    let mut resources = Resources::default();
    let mut errors = Vec::new();
    for resource in list {
        match resource {
            Resource::Service(document) => {
                let Document { metadata, spec, .. } = &**document;
                let name = ServiceName::new(metadata.namespace.as_str(), metadata.name.as_str());
                if resources.services.insert(name.clone(), spec.clone()).is_some() {
                    errors.push(ResourcesError::Twice(format!("the service {name}")));
                }
            }
            Resource::Peer(Document { metadata, spec, .. }) => match policy(&metadata.name, spec) {
                Ok(policy) => {
                    if resources.peers.insert(metadata.name.clone(), policy).is_some() {
                        errors.push(ResourcesError::Twice(format!("the peer {}", metadata.name)));
                    }
                }
                Err(error) => errors.push(error),
            },
        }
    }
    if errors.is_empty() { Ok(resources) } else { Err(errors) }
}

fn policy(cluster: &str, peer: &Peer) -> Result<PeerPolicy, ResourcesError> {
    let path = Path::new(&peer.trust_bundle).to_owned();
    let pem = std::fs::read(&path).map_err(|error| ResourcesError::Unreadable {
        peer: cluster.to_owned(),
        path: path.clone(),
        error,
    })?;
    let bundle = eastway_identity::certificates_from_pem(&pem).map_err(|error| ResourcesError::Malformed {
        peer: cluster.to_owned(),
        path,
        error,
    })?;
    Ok(PeerPolicy {
        peer: peer.clone(),
        trust_domain: peer.trust_domain.clone().unwrap_or_else(|| format!("{cluster}.mesh.internal")),
        trust_bundle: bundle.iter().map(|certificate| certificate.to_vec()).collect(),
    })
}
