//! Declared resources: in the form that the server works with, from files and as applied by operators.

use eastway_core::ServiceName;
use eastway_core::resource::{Peer, Resource};
use eastway_registry::{PeerPolicy, Resources};

mod apply;
mod set;
mod stored;

pub use crate::document::DocumentId;
pub use apply::{APPLIED, Change, Difference, NamedText, NotApplied, Outcome, OwnedDocument, TOKEN};
pub use set::{Contested, Files};
pub use stored::{Became, ChangedDocument, Generation};

pub(crate) use set::ResourceSet;
#[cfg(test)]
pub(crate) use stored::Stored;

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

/// Adds a resource. Kinds that this release does nothing with are passed over.
fn take(resources: &mut Resources, resource: &Resource) -> Result<(), BundleError> {
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
    Ok(())
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
