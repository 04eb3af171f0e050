//! What is checked of a `Peer`.

use std::io;

use eastway_core::ServiceName;
use eastway_core::name::is_label;
use eastway_core::resource::Peer;
use eastway_documents::check::is_host_and_port;
use eastway_documents::{Checks, Severity};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::common::repeated;
use crate::world::{World, instead, list};

pub(crate) fn alone(checks: &mut Checks<'_>, peer: &mut Peer, beside: &dyn Fn(&str) -> io::Result<String>) {
    if peer.gateways.is_empty() {
        checks.problem("spec.gateways", "a peer needs at least one gateway, HOST:PORT");
    }
    for (index, gateway) in peer.gateways.iter().enumerate() {
        if !is_host_and_port(gateway) {
            checks.problem(&format!("spec.gateways[{index}]"), format!("`{gateway}` is not HOST:PORT"));
        }
    }
    repeated(checks, "spec.gateways", &peer.gateways);
    if let Some(domain) = &peer.trust_domain {
        checks.trust_domain("spec.trustDomain", domain);
    }
    bundle(checks, peer, beside);
    for (index, rule) in peer.imports.iter().enumerate() {
        if !is_import_rule(rule) {
            let message = format!("`{rule}` is not `*`, NAMESPACE/* or NAMESPACE/SERVICE");
            checks.problem(&format!("spec.imports[{index}]"), message);
        }
    }
    repeated(checks, "spec.imports", &peer.imports);
    covered(checks, &peer.imports);
    if peer.endpoint_capacity.is_some() && peer.imports.is_empty() {
        let cause = "it bounds what is imported, and nothing is";
        checks.advise(Severity::Error, "spec.endpointCapacity", cause, "remove it, or give `imports`");
    }
    if let Some(region) = &peer.region {
        checks.label("spec.region", region);
    }
}

/// Whether it is a rule of `imports`: `*`, NAMESPACE/* or NAMESPACE/SERVICE.
pub fn is_import_rule(rule: &str) -> bool {
    match rule.split_once('/') {
        None => rule == "*",
        Some((namespace, service)) => is_label(namespace) && (service == "*" || is_label(service)),
    }
}

/// Rules that let in nothing beyond another one.
fn covered(checks: &mut Checks<'_>, rules: &[String]) {
    for (index, rule) in rules.iter().enumerate() {
        let wider = |other: &&String| {
            *other != rule && (*other == "*" || other.strip_suffix('*').is_some_and(|prefix| rule.starts_with(prefix)))
        };
        if let Some(other) = rules.iter().find(wider) {
            let cause = format!("`{rule}` lets in nothing that `{other}` does not");
            let suggestion = format!("remove it, or `{other}`");
            checks.advise(Severity::Error, &format!("spec.imports[{index}]"), cause, suggestion);
        }
    }
}

/// How a bundle begins that is written where others name a file.
const PEM: &str = "-----BEGIN";

/// The bundle becomes a part of the resource, so that it says the same wherever it is read.
fn bundle(checks: &mut Checks<'_>, peer: &mut Peer, beside: &dyn Fn(&str) -> io::Result<String>) {
    let path = "spec.trustBundle";
    let written = peer.trust_bundle.trim();
    let pem = if written.starts_with(PEM) { Ok(written.to_owned()) } else { beside(written) };
    let pem = match pem {
        Ok(pem) => pem,
        Err(error) => {
            checks.problem(path, format!("`{written}` cannot be read: {error}"));
            return;
        }
    };
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let of = if written.starts_with(PEM) { String::new() } else { format!("`{written}` ") };
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            checks.problem(path, format!("{of}holds no certificate: PEM with the peer's CA certificates expected"));
        }
        Ok(_) => peer.trust_bundle = pem,
        Err(error) => checks.problem(path, format!("{of}is not PEM with certificates: {error}")),
    }
}

/// What concerns the cluster that it is a peer of, and the services that are declared there.
pub(crate) fn among(checks: &mut Checks<'_>, name: &str, peer: &Peer, world: &World<'_>) {
    if *name == world.cluster.name {
        checks.problem("metadata.name", format!("`{name}` is this cluster, not a peer of it"));
        return;
    }
    let domain = peer.trust_domain.clone().unwrap_or_else(|| domain_of(name));
    if domain == world.cluster.trust_domain {
        checks.problem("spec.trustDomain", format!("`{domain}` is the trust domain of this cluster itself"));
    } else if peer.trust_domain.as_deref() == Some(&*domain_of(name)) {
        let cause = format!("`{domain}` is the trust domain of a peer of this name anyway");
        checks.advise(Severity::Warning, "spec.trustDomain", cause, "remove it");
    }
    unused(checks, name, peer, world);
    for (index, rule) in peer.imports.iter().enumerate() {
        fenced(checks, &format!("spec.imports[{index}]"), name, rule, world);
    }
    if world.live.is_some() {
        now(checks, name, peer, world);
    }
}

fn domain_of(name: &str) -> String {
    format!("{name}.mesh.internal")
}

/// A peer that nothing comes from and nothing is offered to.
fn unused(checks: &mut Checks<'_>, name: &str, peer: &Peer, world: &World<'_>) {
    if !peer.imports.is_empty() {
        return;
    }
    if !world.services.values().any(|service| service.exports_to(name)) {
        let cause = format!("nothing is imported from `{name}`, and no Service is exported to it");
        let suggestion = "give `imports`, such as NAMESPACE/*, or export a Service to it";
        checks.advise(Severity::Warning, "metadata.name", cause, suggestion);
    } else if peer.region.is_some() {
        let cause = "it says how near the peer's services are, and none is imported";
        checks.advise(Severity::Warning, "spec.region", cause, "remove it, or give `imports`");
    }
}

/// A service that is imported by its name, although its callers here may not leave regions that the peer is not in.
fn fenced(checks: &mut Checks<'_>, path: &str, name: &str, rule: &str, world: &World<'_>) {
    let Ok(service) = rule.parse::<ServiceName>() else { return };
    let Some(declared) = world.services.get(&service) else { return };
    let fence = world.policy(declared).balancing.residency;
    if let Some(fence) = fence.filter(|fence| !world.may_lie_in(name, fence)) {
        let cause =
            format!("no request for it goes to `{name}`: its residency is {}", list(fence.iter().map(|r| &**r)));
        let suggestion = format!("remove it, or add the peer's region to the residency of the Service {service}");
        checks.advise(Severity::Warning, path, cause, suggestion);
    }
}

/// What there is of it now.
fn now(checks: &mut Checks<'_>, name: &str, peer: &Peer, world: &World<'_>) {
    let Some(live) = world.live_peer(name) else {
        let cause = format!("`{name}` has never spoken");
        let suggestion = format!(
            "see that `gateways` and `trustBundle` are right, and that it declares the Peer `{}`",
            world.cluster.name
        );
        checks.advise(Severity::Warning, "spec.gateways", cause, suggestion);
        return;
    };
    for (index, rule) in peer.imports.iter().enumerate() {
        let one = Peer { imports: vec![rule.clone()], ..Peer::default() };
        if live.exports.iter().any(|offered| one.imports_service(offered)) {
            continue;
        }
        let offered: Vec<String> = live.exports.iter().map(ToString::to_string).collect();
        let names = || offered.iter().map(String::as_str);
        let otherwise = match offered.is_empty() {
            true => format!("export it there to `{}`: so far nothing is", world.cluster.name),
            false => format!("export it there to `{}`; it offers {}", world.cluster.name, list(names())),
        };
        let cause = format!("`{name}` offers nothing that `{rule}` lets in");
        let suggestion = match rule.strip_suffix("/*") {
            Some(namespace) => instead(namespace, live.exports.iter().map(|offered| &*offered.namespace), &otherwise),
            None => instead(rule, names(), &otherwise),
        };
        checks.advise(Severity::Warning, &format!("spec.imports[{index}]"), cause, suggestion);
    }
}
