//! Declared resources in the form that the server works with.

use eastway_core::ServiceName;
use eastway_core::resource::{Peer, Resource};
use eastway_registry::{PeerPolicy, Resources};

/// A peer's bundle is none. What was admitted has a bundle of certificates.
#[derive(Debug, thiserror::Error)]
#[error("peer `{peer}`: its trust bundle is not PEM with certificates")]
pub struct BundleError {
    /// The peer.
    pub peer: String,
    /// Why not.
    #[source]
    pub error: eastway_identity::LoadError,
}

/// The resources in the form that the server works with. Kinds that this version does nothing with are passed over.
///
/// # Errors
/// A peer's bundle is none.
pub fn resources<'a>(list: impl IntoIterator<Item = &'a Resource>) -> Result<Resources, BundleError> {
    let mut resources = Resources::default();
    for resource in list {
        let name = resource.metadata().name.clone();
        match resource {
            Resource::Service(document) => {
                let name = ServiceName::new(document.metadata.namespace.as_str(), name.as_str());
                resources.services.insert(name, document.spec.clone());
            }
            Resource::Peer(document) => {
                let policy = policy(&name, &document.spec)?;
                resources.peers.insert(name, policy);
            }
            Resource::Mesh(document) => resources.mesh = document.spec.clone(),
            Resource::AccessPolicy(_) | Resource::Drill(_) | Resource::Route(_) | Resource::Shift(_) => {}
        }
    }
    Ok(resources)
}

fn policy(cluster: &str, peer: &Peer) -> Result<PeerPolicy, BundleError> {
    let bundle = eastway_identity::certificates_from_pem(peer.trust_bundle.as_bytes())
        .map_err(|error| BundleError { peer: cluster.to_owned(), error })?;
    Ok(PeerPolicy {
        peer: peer.clone(),
        trust_domain: peer.trust_domain.clone().unwrap_or_else(|| format!("{cluster}.mesh.internal")),
        trust_bundle: bundle.iter().map(|certificate| certificate.to_vec()).collect(),
    })
}
