//! What is declared against the rest of the set, the cluster that it is declared in, and what there is.

use eastway_core::resource::Resource;
use eastway_documents::{Checks, Problems};

use crate::world::{World, named};
use crate::{Cluster, Declared, Live, mesh, peer, service};

/// Compares what is declared with the cluster, and with what there is `live` if that is known. Warnings are among the problems.
pub fn judge(declared: &[Declared], cluster: &Cluster, live: Option<&Live>) -> Problems {
    let world = World::new(declared, cluster, live);
    let mut problems = Problems::default();
    for Declared { resource, source, .. } in declared {
        let mut checks = Checks::new(source);
        match resource {
            Resource::Peer(document) => peer::among(&mut checks, &document.metadata.name, &document.spec, &world),
            Resource::Service(document) => {
                service::among(&mut checks, &named(&document.metadata), &document.spec, &world);
            }
            Resource::Mesh(document) => mesh::among(&mut checks, &document.spec, &world),
            Resource::Route(_) | Resource::AccessPolicy(_) | Resource::Shift(_) | Resource::Drill(_) => {}
        }
        problems.extend(checks.found());
    }
    problems
}
