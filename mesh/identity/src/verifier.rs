//! The check of the other side's certificate, in every handshake, on both sides.
//!
//! In this order: it names exactly one identity; a CA of *that identity's* trust domain vouches for it, now; the identity is
//! one that was expected. So a wrong identity is only ever reported of a genuine certificate.

use std::fmt;
use std::sync::Arc;

use eastway_core::SpiffeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage};
use x509_parser::extensions::GeneralName;

use crate::provider::provider_ref;
use crate::roots::Roots;
use crate::{Expected, Identity, IdentityError};

/// Whom the first of `certificates` names: for a chain that a handshake has verified, as a connection reports it.
///
/// # Errors
/// If there is no certificate, or it does not name exactly one identity of the mesh.
pub fn peer_id(certificates: &[CertificateDer<'_>]) -> Result<SpiffeId, IdentityError> {
    named_id(certificates.first().ok_or(IdentityError::NoCertificate)?)
}

/// The identity in a certificate's only URI name. Names of other kinds may be there; nobody looks at them.
fn named_id(certificate: &CertificateDer<'_>) -> Result<SpiffeId, IdentityError> {
    let malformed = |reason: String| IdentityError::Malformed(reason);
    let (rest, certificate) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed("bytes follow it".to_owned()));
    }
    let names = certificate.subject_alternative_name().map_err(|error| malformed(error.to_string()))?;
    let names = names.ok_or(IdentityError::NoUri)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next().ok_or(IdentityError::NoUri)?;
    match uris.count() {
        0 => uri.parse().map_err(IdentityError::NotSpiffe),
        more => Err(IdentityError::SeveralUris(more + 1)),
    }
}

/// What a certificate is used for while it is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Usage {
    Server,
    Client,
    /// The handshake has looked at the usage already.
    Verified,
}

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        match self {
            Self::Server => KeyUsage::server_auth().validate(purposes),
            Self::Client => KeyUsage::client_auth().validate(purposes),
            Self::Verified => Ok(()),
        }
    }
}

/// A certificate and what came with it, to be checked at one time for one use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented<'a> {
    pub(crate) leaf: &'a CertificateDer<'a>,
    pub(crate) intermediates: &'a [CertificateDer<'a>],
    pub(crate) usage: Usage,
    pub(crate) now: UnixTime,
}

impl Presented<'_> {
    /// Whom it names; nothing is verified yet.
    pub(crate) fn id(&self) -> Result<SpiffeId, IdentityError> {
        named_id(self.leaf)
    }

    /// Whether `roots` vouch for it as `id`.
    pub(crate) fn verify(&self, id: &SpiffeId, roots: &Roots) -> Result<(), IdentityError> {
        let error = match self.chain(roots, self.now) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Dates are looked at before signatures, but only a genuine certificate deserves to be called expired.
        let valid_at = match &error {
            webpki::Error::CertExpired { not_after, .. } => Some(*not_after),
            webpki::Error::CertNotValidYet { not_before, .. } => Some(*not_before),
            _ => None,
        };
        match valid_at.map(|then| self.chain(roots, then)) {
            Some(Err(other)) if is_foreign(&other) => Err(named(other, id)),
            _ => Err(named(error, id)),
        }
    }

    fn chain(&self, roots: &Roots, time: UnixTime) -> Result<(), webpki::Error> {
        let algorithms = provider_ref().signature_verification_algorithms.all;
        let leaf = EndEntityCert::try_from(self.leaf)?;
        leaf.verify_for_usage(algorithms, roots.anchors(), self.intermediates, time, self.usage, None, None)?;
        Ok(())
    }
}

/// A foreign CA may bear the same name as ours; then it is the signature that does not fit.
const fn is_foreign(error: &webpki::Error) -> bool {
    matches!(error, webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey)
}

fn named(error: webpki::Error, id: &SpiffeId) -> IdentityError {
    let id = Box::new(id.clone());
    match error {
        webpki::Error::CertExpired { time, not_after } => IdentityError::Expired { id, now: time, not_after },
        webpki::Error::CertNotValidYet { time, not_before } => IdentityError::NotYetValid { id, now: time, not_before },
        error if is_foreign(&error) => IdentityError::ForeignCa(id),
        reason => IdentityError::Unusable { id, reason },
    }
}

/// Says who may be on the other side.
pub(crate) trait Judge: fmt::Debug + Send + Sync + 'static {
    /// Whether whoever shows this may be.
    fn judge(&self, presented: &Presented<'_>) -> Result<(), IdentityError>;
}

/// Those whom the identity's bundles vouch for and who are expected. It holds the identity rather than a bundle, so that a reload
/// needs no new configuration.
#[derive(Debug)]
pub(crate) struct Vouched {
    pub(crate) identity: Arc<Identity>,
    pub(crate) expected: Expected,
}

impl Judge for Vouched {
    fn judge(&self, presented: &Presented<'_>) -> Result<(), IdentityError> {
        self.identity.check(presented, &self.expected).map(drop)
    }
}

/// What rustls asks in a handshake: a judgement, and proof that the other side holds its key.
#[derive(Debug)]
pub(crate) struct Verifier<J>(pub(crate) J);

impl<J: Judge> Verifier<J> {
    fn check(&self, presented: &Presented<'_>) -> Result<(), rustls::Error> {
        self.0.judge(presented).map_err(|error| {
            // The connection's owner logs the failure; rustls keeps less of it than we know here.
            tracing::debug!(reason = error.refusal().as_str(), %error, "refused a certificate");
            error.into_rustls()
        })
    }
}

/// Whether the other side holds the key of the certificate that it shows.
fn check_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms())
}

/// Nothing older than TLS 1.3 is spoken.
fn refuse_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
}

impl<J: Judge> ServerCertVerifier for Verifier<J> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(&Presented { leaf: end_entity, intermediates, usage: Usage::Server, now })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

impl<J: Judge> ClientCertVerifier for Verifier<J> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A node has one identity and shows it to everybody: a hint would only tell strangers which CAs are trusted.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(&Presented { leaf: end_entity, intermediates, usage: Usage::Client, now })?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn algorithms() -> &'static WebPkiSupportedAlgorithms {
    &provider_ref().signature_verification_algorithms
}
