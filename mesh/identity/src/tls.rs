//! The rustls configurations: TLS 1.3 only, mutual, hybrid key exchange first, nothing resumed.
//!
//! A configuration lives as long as its owner likes: certificates and bundles are asked for in each handshake, so that a
//! reload reaches it by itself.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use rustls_pki_types::ServerName;

use crate::held::{ClientTls, ServerTls, Tls};
use crate::provider::provider;
use crate::verifier::{Verifier, Vouched};
use crate::{Expected, Identity};

/// The configuration for calling: shows `identity`, accepts who is `expected`. SNI is not sent; give rustls [`server_name`].
pub fn client_config(identity: &Arc<Identity>, expected: Expected, alpn: &[&[u8]]) -> ClientTls {
    let verifier = Arc::new(Verifier(Vouched { identity: Arc::clone(identity), expected: expected.clone() }));
    Tls::new(Arc::new(client_with(identity, verifier, alpn)), Arc::clone(identity), expected)
}

/// The same, with any check of the other side's certificate.
pub(crate) fn client_with(
    identity: &Arc<Identity>,
    verifier: Arc<dyn ServerCertVerifier>,
    alpn: &[&[u8]],
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .expect("the provider's cipher suites are those of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(OwnCertificate(Arc::clone(identity))));
    config.alpn_protocols = protocols(alpn);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}

/// The configuration for answering: shows `identity`, and accepts only callers that show who is `expected`.
pub fn server_config(identity: &Arc<Identity>, expected: Expected, alpn: &[&[u8]]) -> ServerTls {
    let verifier = Arc::new(Verifier(Vouched { identity: Arc::clone(identity), expected: expected.clone() }));
    Tls::new(Arc::new(server_with(identity, verifier, alpn)), Arc::clone(identity), expected)
}

/// The same, with any check of the other side's certificate.
pub(crate) fn server_with(
    identity: &Arc<Identity>,
    verifier: Arc<dyn ClientCertVerifier>,
    alpn: &[&[u8]],
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .expect("the provider's cipher suites are those of TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(OwnCertificate(Arc::clone(identity))));
    config.alpn_protocols = protocols(alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

/// The name that rustls wants for every connection. It is neither sent nor compared: identities are SPIFFE ids.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("mesh.internal").expect("a valid DNS name")
}

/// Shows the node's present certificate, whichever that is at the time of the handshake.
#[derive(Debug)]
struct OwnCertificate(Arc<Identity>);

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified_key())
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified_key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

#[cfg(test)]
mod tests;
