//! What can be wrong with a certificate, with the files of an identity, and how a failed handshake is told in metrics.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use eastway_core::{SpiffeError, SpiffeId};
use rustls::{AlertDescription, CertificateError, OtherError};
use rustls_pki_types::UnixTime;

/// Why the certificate of another node is not accepted.
#[derive(Clone, thiserror::Error)]
pub enum IdentityError {
    /// The other side has shown none.
    #[error("no certificate was presented")]
    NoCertificate,
    /// It is no X.509 certificate, or one with contradicting extensions.
    #[error("the certificate is malformed: {0}")]
    Malformed(String),
    /// It has no URI name, so it says nothing about who this is.
    #[error("the certificate has no URI name (SPIFFE id)")]
    NoUri,
    /// It has several URI names; SPIFFE allows exactly one, and choosing among them would let the peer choose.
    #[error("the certificate has {0} URI names where exactly one is allowed")]
    SeveralUris(usize),
    /// Its URI name is not an identity of the mesh.
    #[error("the certificate's URI name is not an identity of the mesh")]
    NotSpiffe(#[source] SpiffeError),
    /// No bundle is known for its trust domain.
    #[error("{0} is of a trust domain for which no CA is known")]
    UnknownTrustDomain(Box<SpiffeId>),
    /// No CA of its trust domain has signed it.
    #[error("{0} is not signed by a CA of its trust domain")]
    ForeignCa(Box<SpiffeId>),
    /// Its validity has ended.
    #[error("the certificate of {id} has expired {}", ago(*.now, *.not_after))]
    Expired {
        /// Whom it names.
        id: Box<SpiffeId>,
        /// When it was checked.
        now: UnixTime,
        /// The last second of its validity.
        not_after: UnixTime,
    },
    /// Its validity has not begun; often a clock that is wrong, here or where it was issued.
    #[error("the certificate of {id} becomes valid only in {} s", .not_before.as_secs().saturating_sub(.now.as_secs()))]
    NotYetValid {
        /// Whom it names.
        id: Box<SpiffeId>,
        /// When it was checked.
        now: UnixTime,
        /// The first second of its validity.
        not_before: UnixTime,
    },
    /// It is genuine, but of somebody else than expected.
    #[error("{found} answered where {expected} was expected")]
    WrongIdentity {
        /// Whom the certificate names.
        found: Box<SpiffeId>,
        /// Who would have been accepted.
        expected: String,
    },
    /// It may not be used so: a CA's certificate, a wrong key usage, an unsupported algorithm.
    #[error("the certificate of {id} cannot be used: {reason:?}")]
    Unusable {
        /// Whom it names.
        id: Box<SpiffeId>,
        /// What the check said.
        reason: webpki::Error,
    },
}

impl IdentityError {
    /// The short form for metrics.
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::UnknownTrustDomain(_) | Self::ForeignCa(_) => Refusal::ForeignCa,
            Self::Expired { .. } => Refusal::Expired,
            Self::NotYetValid { .. } => Refusal::NotYetValid,
            Self::WrongIdentity { .. } => Refusal::WrongIdentity,
            Self::NoCertificate
            | Self::Malformed(_)
            | Self::NoUri
            | Self::SeveralUris(_)
            | Self::NotSpiffe(_)
            | Self::Unusable { .. } => Refusal::BadCertificate,
        }
    }

    /// As rustls carries it. Where rustls has a variant of its own, the other side gets the fitting alert and its
    /// operator learns the cause too; a wrong identity keeps our text, because whom we expected is what matters there.
    pub(crate) fn into_rustls(self) -> rustls::Error {
        let error = match self {
            Self::NoCertificate => return rustls::Error::NoCertificatesPresented,
            Self::UnknownTrustDomain(_) | Self::ForeignCa(_) => CertificateError::UnknownIssuer,
            Self::Expired { now, not_after, .. } => CertificateError::ExpiredContext { time: now, not_after },
            Self::NotYetValid { now, not_before, .. } => CertificateError::NotValidYetContext { time: now, not_before },
            other => CertificateError::Other(OtherError(Arc::new(other))),
        };
        rustls::Error::InvalidCertificate(error)
    }
}

/// The same text as `Display`, with the cause: rustls and QUIC put the `Debug` form of an error into what operators read.
impl fmt::Debug for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source() {
            Some(cause) => write!(f, "{self}: {cause}"),
            None => write!(f, "{self}"),
        }
    }
}

fn ago(now: UnixTime, then: UnixTime) -> String {
    format!("{} s ago", now.as_secs().saturating_sub(then.as_secs()))
}

/// How a failed handshake counts: the closed set behind a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Signed by no CA of its trust domain, or of an unknown trust domain.
    ForeignCa,
    /// Its validity has ended.
    Expired,
    /// Its validity has not begun.
    NotYetValid,
    /// Genuine, but somebody else than expected.
    WrongIdentity,
    /// Broken: malformed, no or several URI names, a wrong usage.
    BadCertificate,
    /// The other side refused ours.
    ByPeer,
}

impl Refusal {
    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForeignCa => "foreign_ca",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongIdentity => "wrong_identity",
            Self::BadCertificate => "bad_certificate",
            Self::ByPeer => "refused_by_peer",
        }
    }

    /// Finds in the causes of a failed TLS handshake why a certificate was refused; `None` if it failed for another reason.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        // The chain comes from outside; the bound keeps a cyclic one from holding the thread.
        for _ in 0..MAX_CAUSES {
            let current = next?;
            if let Some(error) = current.downcast_ref::<IdentityError>() {
                return Some(error.refusal());
            }
            if let Some(refusal) = current.downcast_ref::<rustls::Error>().and_then(Self::of_rustls) {
                return Some(refusal);
            }
            // `io::Error::source` leaves out the error that it wraps, and that one is where rustls puts its own.
            next = match current.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(wrapped) => Some(wrapped),
                None => current.source(),
            };
        }
        None
    }

    /// The same from the TLS alert that *this* side sent, which is all that QUIC keeps of a refusal. An expired and a not
    /// yet valid certificate share an alert, as do a wrong identity and a certificate without a SPIFFE id.
    pub fn of_alert(alert: u8) -> Option<Self> {
        match AlertDescription::from(alert) {
            AlertDescription::UnknownCA => Some(Self::ForeignCa),
            AlertDescription::CertificateExpired => Some(Self::Expired),
            AlertDescription::CertificateUnknown => Some(Self::WrongIdentity),
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRequired
            | AlertDescription::DecryptError => Some(Self::BadCertificate),
            _ => None,
        }
    }

    fn of_rustls(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::AlertReceived(alert) => Self::of_alert(u8::from(*alert)).map(|_| Self::ByPeer),
            rustls::Error::NoCertificatesPresented => Some(Self::BadCertificate),
            rustls::Error::InvalidCertificate(error) => Some(match error {
                CertificateError::UnknownIssuer => Self::ForeignCa,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
                CertificateError::Other(OtherError(cause)) => {
                    cause.downcast_ref::<IdentityError>().map_or(Self::BadCertificate, IdentityError::refusal)
                }
                _ => Self::BadCertificate,
            }),
            _ => None,
        }
    }
}

/// Why an identity or a trust bundle could not be taken from where it lies.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than any certificate file should be.
    #[error("{} is larger than {limit} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The PEM text is broken.
    #[error("the {what} is not valid PEM: {reason}")]
    Pem {
        /// Which part of the identity.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// The PEM text holds nothing of what was looked for.
    #[error("the {what} file holds none (looked for a PEM block)")]
    Empty {
        /// Which part of the identity.
        what: &'static str,
    },
    /// rustls cannot use the private key, or it is not the key of the certificate.
    #[error("the private key does not fit the certificate")]
    Key(#[source] rustls::Error),
    /// The certificate is none that a node of the mesh may show, or its own bundle does not vouch for it.
    #[error("the certificate cannot be this node's identity")]
    Certificate(#[source] IdentityError),
    /// The new certificate is not valid at this time while the present one is: the present one stays.
    #[error("the new certificate is not valid now, so the present one stays in use")]
    NotCurrent,
    /// The new certificate is somebody else's: a running node does not change who it is.
    #[error("the new certificate is of {found}, but this node is {present}")]
    OtherIdentity {
        /// Who this node is.
        present: String,
        /// Whom the new certificate names.
        found: String,
    },
    /// A certificate in a bundle is not a CA's.
    #[error("certificate {index} of the bundle of `{trust_domain}` is not a CA's certificate: {reason}")]
    NotCa {
        /// The bundle's trust domain.
        trust_domain: String,
        /// Its place in the bundle, from 1.
        index: usize,
        /// Why not.
        reason: String,
    },
    /// A CA certificate in a bundle names another trust domain than the bundle's.
    #[error("the bundle of `{trust_domain}` holds the CA of `{found}`")]
    OtherDomain {
        /// The bundle's trust domain.
        trust_domain: String,
        /// The one that the CA certificate names.
        found: String,
    },
    /// A peer's bundle claims this node's own trust domain.
    #[error("`{0}` is this cluster's own trust domain: a peer cannot bring CAs for it")]
    OwnDomain(String),
}

const MAX_CAUSES: usize = 16;
