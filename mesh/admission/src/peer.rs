//! What is checked of a `Peer`.

use std::io;

use eastway_core::name::is_label;
use eastway_core::resource::Peer;
use eastway_documents::Checks;
use eastway_documents::check::is_host_and_port;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::common::repeated;

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
        let valid = match rule.split_once('/') {
            None => rule == "*",
            Some((namespace, service)) => is_label(namespace) && (service == "*" || is_label(service)),
        };
        if !valid {
            let message = format!("`{rule}` is not `*`, NAMESPACE/* or NAMESPACE/SERVICE");
            checks.problem(&format!("spec.imports[{index}]"), message);
        }
    }
    repeated(checks, "spec.imports", &peer.imports);
    if let Some(region) = &peer.region {
        checks.label("spec.region", region);
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
