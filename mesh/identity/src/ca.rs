//! The cluster's own certificate authority, kept in two files. Behind `eastway ca`; tests make their certificates with it.
//!
//! One CA is one trust domain: it never issues for another. Certificates are for P-256 keys, for both sides of a connection,
//! and bear exactly one URI name.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use eastway_core::spiffe::is_trust_domain;
use eastway_core::{SpiffeId, spiffe::Principal};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, DnsName};
use time::OffsetDateTime;
use zeroize::{Zeroize, Zeroizing};

use crate::LoadError;
use crate::calendar;
use crate::files::{self, BUNDLE, IdentityFiles, NewFile, Overwrite};
use crate::roots::{named_domain, parse_certificates};

pub use crate::files::WriteError;

/// A trust domain's CA: its certificate and its private key.
pub struct Ca {
    trust_domain: String,
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
    not_after: SystemTime,
}

impl Ca {
    /// Makes a new CA for `trust_domain`, valid from a day ago (clocks differ) until `validity` from now.
    ///
    /// # Errors
    /// If the trust domain is not one, or `validity` is nothing or beyond the calendar.
    pub fn create(trust_domain: &str, validity: Duration) -> Result<Self, CaError> {
        if !is_trust_domain(trust_domain) {
            return Err(CaError::TrustDomain(trust_domain.to_owned()));
        }
        let now = calendar::now();
        let not_after = end(now, validity)?;
        let mut params = CertificateParams::default();
        params.not_before = OffsetDateTime::from(now.checked_sub(CA_BACKDATE).ok_or(CaError::Validity(validity))?);
        params.not_after = not_after;
        params.distinguished_name = organisation();
        params.distinguished_name.push(DnType::CommonName, "Eastway cluster CA");
        // It signs leaves only: no other CA can hide below it.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(CaError::Make)?;
        let certificate = params.self_signed(&key).map_err(CaError::Make)?;
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            key,
            not_after: not_after.into(),
        })
    }

    /// Loads the CA that [`Self::save`] has left in `dir`.
    ///
    /// # Errors
    /// If a file is missing or broken, the key is another's, or the certificate is not that of a mesh's CA.
    pub fn load(dir: &Path) -> Result<Self, CaError> {
        let path = dir.join(CERTIFICATE);
        let not_ca = |reason| CaError::NotCa { path: path.clone(), reason };
        let pem = String::from_utf8(files::read(&path)?).map_err(|_| not_ca("not text"))?;
        // Others may follow while a root is being replaced; the first one signs.
        let certificate = parse_certificates(pem.as_bytes(), "CA certificate")?.swap_remove(0);
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|_| not_ca("not a certificate"))?;
        if !parsed.is_ca() {
            return Err(not_ca("not marked as a CA"));
        }
        let trust_domain = named_domain(&parsed).filter(|domain| is_trust_domain(domain));
        let trust_domain = trust_domain.ok_or_else(|| not_ca("it names no trust domain (spiffe://TRUST-DOMAIN)"))?;
        let key_path = dir.join(KEY);
        let key = Zeroizing::new(files::read(&key_path)?);
        let key = std::str::from_utf8(&key).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
        let key = key.ok_or_else(|| CaError::Key(key_path.clone()))?;
        if key.public_key_raw() != parsed.public_key().subject_public_key.data.as_ref() {
            return Err(CaError::OtherKey(key_path));
        }
        let not_after = calendar::system_time(parsed.validity().not_after.timestamp());
        Ok(Self { trust_domain, certificate: certificate.clone(), pem, key, not_after })
    }

    /// Writes `ca.crt` and `ca.key` (readable by the owner only) into `dir`, and returns their paths.
    ///
    /// # Errors
    /// If one exists and may not be overwritten, or the system refuses.
    pub fn save(&self, dir: &Path, overwrite: Overwrite) -> Result<Vec<PathBuf>, CaError> {
        let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
        let secret = Zeroizing::new(self.key.serialize_pem());
        let files = [
            NewFile { path: &certificate, content: &self.pem, secret: false },
            NewFile { path: &key, content: &secret, secret: true },
        ];
        files::write(&files, overwrite)?;
        Ok(vec![certificate, key])
    }

    /// Issues a certificate for `id` with a new private key. It never outlives the CA.
    ///
    /// # Errors
    /// If `id` is of another trust domain, a name is malformed, or the CA has expired.
    pub fn issue(&self, id: &SpiffeId, options: &IssueOptions) -> Result<Issued, CaError> {
        if id.trust_domain != self.trust_domain {
            return Err(CaError::ForeignDomain { id: id.clone(), own: self.trust_domain.clone() });
        }
        self.sign(id, &self.leaf(id, options)?)
    }

    /// Signs whatever `params` say: tests forge with it what [`Self::issue`] would never make.
    pub(crate) fn sign(&self, id: &SpiffeId, params: &CertificateParams) -> Result<Issued, CaError> {
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key).map_err(CaError::Make)?;
        let mut key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(CaError::Make)?;
        let certificate = params.signed_by(&key, &issuer);
        let key_pem = Zeroizing::new(key.serialize_pem());
        key.zeroize();
        let certificate = certificate.map_err(CaError::Make)?;
        Ok(Issued {
            id: id.clone(),
            certificate_pem: certificate.pem(),
            key_pem,
            bundle_pem: self.pem.clone(),
            not_after: params.not_after.into(),
        })
    }

    pub(crate) fn leaf(&self, id: &SpiffeId, options: &IssueOptions) -> Result<CertificateParams, CaError> {
        let now = calendar::now();
        if self.not_after <= now {
            return Err(CaError::Expired(self.trust_domain.clone()));
        }
        let not_before = match options.not_before {
            Some(not_before) => not_before,
            None => now.checked_sub(BACKDATE).ok_or(CaError::Validity(options.validity))?,
        };
        let mut params = CertificateParams::default();
        params.not_before = not_before.into();
        params.not_after = end(options.not_before.unwrap_or(now), options.validity)?.min(self.not_after.into());
        if params.not_after <= params.not_before {
            return Err(CaError::Validity(options.validity));
        }
        params.distinguished_name = organisation();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names.push(uri(&id.to_string())?);
        for name in &options.dns_names {
            let wrong = |()| CaError::Name(name.clone());
            DnsName::try_from(name.as_str()).map_err(drop).map_err(wrong)?;
            let name = name.as_str().try_into().map_err(drop).map_err(wrong)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(options.addresses.iter().copied().map(SanType::IpAddress));
        Ok(params)
    }

    /// The trust domain that it is the CA of.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Until when it can issue.
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Its certificate.
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The trust bundle, in PEM: what nodes and peers need to verify what it issues.
    pub fn bundle_pem(&self) -> &str {
        &self.pem
    }
}

impl Drop for Ca {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// What a certificate is to look like.
#[derive(Clone, Debug)]
pub struct IssueOptions {
    /// How long it is valid: from now, or from `not_before` where that is given. Default 90 days.
    pub validity: Duration,
    /// From when it is valid. Default: an hour ago, because clocks differ.
    pub not_before: Option<SystemTime>,
    /// Further DNS names, for clients that know nothing of SPIFFE. Default none.
    pub dns_names: Vec<String>,
    /// Further addresses, likewise. Default none.
    pub addresses: Vec<IpAddr>,
}

impl Default for IssueOptions {
    fn default() -> Self {
        Self { validity: 90 * DAY, not_before: None, dns_names: Vec::new(), addresses: Vec::new() }
    }
}

/// A certificate with its private key and the bundle to go with them, in PEM.
pub struct Issued {
    /// Whom it names.
    pub id: SpiffeId,
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key; wiped from memory when it is dropped.
    pub key_pem: Zeroizing<String>,
    /// The CAs of its trust domain.
    pub bundle_pem: String,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

impl Issued {
    /// Writes `NAME.crt`, `NAME.key` (readable by the owner only) and `bundle.crt` into `dir`. A bundle that is already
    /// there with the same content is no conflict.
    ///
    /// # Errors
    /// If one exists and may not be overwritten, or the system refuses.
    pub fn save(&self, dir: &Path, name: &str, overwrite: Overwrite) -> Result<IdentityFiles, CaError> {
        let usable = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        let bundle_itself = format!("{name}.crt") == BUNDLE;
        if !usable || bundle_itself {
            return Err(CaError::FileName(name.to_owned()));
        }
        let paths = IdentityFiles::named(dir, name);
        let files = [
            NewFile { path: &paths.key, content: &self.key_pem, secret: true },
            NewFile { path: &paths.certificate, content: &self.certificate_pem, secret: false },
            NewFile { path: &paths.bundle, content: &self.bundle_pem, secret: false },
        ];
        files::write(&files, overwrite)?;
        Ok(paths)
    }

    /// The base of the file names unless another is asked for: the last part of the identity.
    pub fn default_name(&self) -> &str {
        match &self.id.principal {
            Principal::Workload { account, .. } => account,
            Principal::Gateway(id) => id,
            Principal::Operator(name) => name,
        }
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("id", &self.id).field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Why a CA could not be made, loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Not a SPIFFE trust domain.
    #[error("`{0}` is not a trust domain: use lower-case letters, digits, `.`, `-` and `_`")]
    TrustDomain(String),
    /// The identity asked for is of another trust domain.
    #[error("{id} is not of this CA's trust domain `{own}`")]
    ForeignDomain {
        /// The identity asked for.
        id: SpiffeId,
        /// The CA's trust domain.
        own: String,
    },
    /// A DNS name that no certificate can bear.
    #[error("`{0}` is not a DNS name")]
    Name(String),
    /// A base for file names that would lead elsewhere, or onto the bundle.
    #[error("`{0}` cannot be the base of the file names")]
    FileName(String),
    /// A validity of nothing, or beyond the calendar.
    #[error("a validity of {0:?} makes no valid certificate")]
    Validity(Duration),
    /// The CA's own certificate has expired.
    #[error("the CA of `{0}` has expired")]
    Expired(String),
    /// The certificate file is not that of a mesh's CA.
    #[error("{} is not the certificate of a mesh's CA: {reason}", .path.display())]
    NotCa {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// The key file cannot be understood.
    #[error("{} is not a private key", .0.display())]
    Key(PathBuf),
    /// The private key does not belong to the CA's certificate.
    #[error("{} is not the key of the CA certificate beside it", .0.display())]
    OtherKey(PathBuf),
    /// A file cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The certificate could not be made.
    #[error("cannot make the certificate")]
    Make(#[source] rcgen::Error),
}

fn organisation() -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Eastway");
    name
}

fn uri(text: &str) -> Result<SanType, CaError> {
    text.try_into().map(SanType::URI).map_err(|_| CaError::Name(text.to_owned()))
}

fn end(start: SystemTime, validity: Duration) -> Result<OffsetDateTime, CaError> {
    let wrong = CaError::Validity(validity);
    if validity < Duration::from_secs(1) {
        return Err(wrong);
    }
    // The conversion of a `SystemTime` beyond year 9999 would panic; whole seconds of a `Duration` are checked.
    let Ok(validity) = time::Duration::try_from(validity) else { return Err(wrong) };
    OffsetDateTime::from(start).checked_add(validity).ok_or(wrong)
}

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_BACKDATE: Duration = DAY;
const BACKDATE: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests;
