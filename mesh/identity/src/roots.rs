//! Trust bundles: the CA certificates of one trust domain, checked once and ready for verification.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::LoadError;

/// The CAs of one trust domain.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Roots {
    /// Takes `certificates` as the CAs of `trust_domain`. All must be CA certificates, and none may name another domain.
    pub(crate) fn new(trust_domain: &str, certificates: Vec<CertificateDer<'static>>) -> Result<Self, LoadError> {
        if certificates.is_empty() {
            return Err(LoadError::Empty { what: BUNDLE });
        }
        let mut anchors = Vec::with_capacity(certificates.len());
        for (index, der) in certificates.iter().enumerate() {
            let not_ca =
                |reason: String| LoadError::NotCa { trust_domain: trust_domain.to_owned(), index: index + 1, reason };
            let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|e| not_ca(e.to_string()))?;
            if !certificate.is_ca() {
                return Err(not_ca("it is not marked as one".to_owned()));
            }
            if let Some(found) = named_domain(&certificate).filter(|found| found != trust_domain) {
                return Err(LoadError::OtherDomain { trust_domain: trust_domain.to_owned(), found });
            }
            anchors.push(webpki::anchor_from_trusted_cert(der).map_err(|e| not_ca(e.to_string()))?.to_owned());
        }
        Ok(Self { certificates, anchors })
    }

    /// The certificates as they were given.
    pub(crate) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The same for the verification of a chain.
    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

/// The trust domain that a CA certificate states as `spiffe://TRUST-DOMAIN`. CAs made elsewhere need not state any.
pub(crate) fn named_domain(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok().flatten()?;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(uri.strip_prefix("spiffe://")?.trim_end_matches('/').to_owned()),
        _ => None,
    })
}

/// The certificates in a bundle file's content.
///
/// # Errors
/// If it is no PEM, or holds no certificate.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    parse_certificates(pem, BUNDLE)
}

/// The same for the file that errors call `what`.
pub(crate) fn parse_certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| LoadError::Pem { what, reason: error.to_string() })?;
    if certificates.is_empty() { Err(LoadError::Empty { what }) } else { Ok(certificates) }
}

const BUNDLE: &str = "bundle";
