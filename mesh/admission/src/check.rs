//! What is checked of each document, and of those of one kind together.

use std::collections::BTreeMap;
use std::io;

use eastway_core::resource::{API_VERSION, Kind, Resource};
use eastway_documents::{Checks, Problem, Problems};

use crate::{Declared, mesh, peer, service};

/// Checks one resource, and makes what it names as a file a part of it.
pub(crate) fn alone(checks: &mut Checks<'_>, resource: &mut Resource, beside: &dyn Fn(&str) -> io::Result<String>) {
    around(checks, resource);
    match resource {
        Resource::Peer(document) => peer::alone(checks, &mut document.spec, beside),
        Resource::Service(document) => service::alone(checks, &document.spec),
        Resource::Mesh(document) => mesh::alone(checks, &document.metadata.name, &document.spec),
        Resource::Route(_) | Resource::AccessPolicy(_) | Resource::Shift(_) | Resource::Drill(_) => {}
    }
}

/// What every resource has around its `spec`.
fn around(checks: &mut Checks<'_>, resource: &Resource) {
    let (kind, metadata) = (resource.kind(), resource.metadata());
    if resource.api_version() != API_VERSION {
        let message = format!("unknown version `{}`; this program knows `{API_VERSION}`", resource.api_version());
        checks.problem("apiVersion", message);
    }
    checks.label("metadata.name", &metadata.name);
    checks.label("metadata.namespace", &metadata.namespace);
    if !kind.is_namespaced() && metadata.namespace != "default" {
        checks.problem("metadata.namespace", format!("a {kind} is in no namespace: remove it"));
    }
    if !kind.has_effect() {
        let acting: Vec<_> = Kind::ALL.iter().filter(|kind| kind.has_effect()).map(|kind| kind.as_str()).collect();
        let message = format!(
            "this version knows {kind} and does nothing with it: remove it, or upgrade; what has an effect is {}",
            acting.join(", ")
        );
        checks.problem("kind", message);
    }
}

/// Checks what concerns several resources.
pub(crate) fn together(declared: &[Declared], problems: &mut Problems) {
    let mut domains: BTreeMap<String, &str> = BTreeMap::new();
    for Declared { resource, source, .. } in declared {
        let Resource::Peer(document) = resource else { continue };
        let name = &document.metadata.name;
        let domain = document.spec.trust_domain.clone().unwrap_or_else(|| format!("{name}.mesh.internal"));
        match domains.get(&domain) {
            // Declared twice: said already.
            Some(first) if first == name => {}
            Some(first) => {
                let message = format!("`{domain}` is the trust domain of the peer `{first}` already");
                problems.push(Problem::new(
                    source.file(),
                    source.line("spec.trustDomain"),
                    "spec.trustDomain",
                    message,
                ));
            }
            None => {
                domains.insert(domain, name);
            }
        }
    }
}
