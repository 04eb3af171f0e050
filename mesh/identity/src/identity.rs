//! A node's own identity and whom it trusts: loaded from files, replaced while connections run.
//!
//! Everything that a handshake asks for lies in immutable values behind atomic pointers. New material is checked completely
//! before it takes the place of the old one; material that does not pass leaves the old one in use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use eastway_core::SpiffeId;
use parking_lot::Mutex;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use zeroize::{Zeroize, Zeroizing};

use crate::held::Registry;
use crate::roots::{Roots, parse_certificates};
use crate::verifier::{Presented, Usage};
use crate::{Expected, IdentityError, IdentityFiles, Lifetime, LoadError, calendar, certificates_from_pem, files};

pub(crate) mod watch;

/// Who this node is, and the CAs of every trust domain that it knows.
pub struct Identity {
    files: Option<IdentityFiles>,
    own: ArcSwap<Own>,
    peers: ArcSwap<BTreeMap<String, Arc<Roots>>>,
    generation: AtomicU64,
    /// Connections that are verified again.
    pub(crate) held: Registry,
    /// Writers one at a time; readers never wait for it.
    writing: Mutex<()>,
}

impl Identity {
    /// Loads the identity that `files` hold. An expired certificate is loaded with a warning: it may be the clock that is
    /// wrong, and the next renewal repairs it without a restart.
    ///
    /// # Errors
    /// If a file cannot be read or understood, the key does not fit, or the bundle does not vouch for the certificate.
    pub fn load(files: &IdentityFiles) -> Result<Arc<Self>, LoadError> {
        Ok(Self::new(Own::read(files)?, Some(files.clone())))
    }

    /// The same from PEM texts, for identities that come from elsewhere than files.
    ///
    /// # Errors
    /// As [`Self::load`], without those of reading.
    pub fn from_pem(certificate: &[u8], key: &[u8], bundle: &[u8]) -> Result<Arc<Self>, LoadError> {
        Ok(Self::new(Own::parse(certificate, key, bundle)?, None))
    }

    fn new(own: Own, files: Option<IdentityFiles>) -> Arc<Self> {
        if !own.is_current(calendar::now()) {
            tracing::warn!(id = %own.id, "this node's certificate is not valid now: peers will refuse it");
        }
        Arc::new(Self {
            files,
            own: ArcSwap::from_pointee(own),
            peers: ArcSwap::default(),
            generation: AtomicU64::new(0),
            held: Registry::default(),
            writing: Mutex::new(()),
        })
    }

    /// Who this node is. It never changes while the node runs.
    pub fn id(&self) -> Arc<SpiffeId> {
        Arc::clone(&self.own.load().id)
    }

    /// Until when the present certificate is valid.
    pub fn not_after(&self) -> SystemTime {
        self.own.load().not_after
    }

    /// From when to when it is.
    pub fn lifetime(&self) -> Lifetime {
        let own = self.own.load();
        Lifetime { not_before: own.not_before, not_after: own.not_after }
    }

    /// The CAs of the own trust domain: what peers need to know.
    pub fn bundle(&self) -> Vec<CertificateDer<'static>> {
        self.own.load().roots.certificates().to_vec()
    }

    /// A number that grows with every change of the own certificate or of any bundle, so that the owner of open connections
    /// notices when to [`verify`](Self::verify) them again.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reads the files again; `true` if something changed. The old identity stays in use if the new one does not pass.
    ///
    /// # Errors
    /// As [`Self::load`]; also if the new certificate is of another identity, or not valid now while the old one is.
    pub fn reload(&self) -> Result<bool, LoadError> {
        let Some(files) = &self.files else { return Ok(false) };
        let _one = self.writing.lock();
        let new = Own::read(files)?;
        let old = self.own.load();
        if new.is_same(&old) {
            return Ok(false);
        }
        if new.id != old.id {
            return Err(LoadError::OtherIdentity { present: old.id.to_string(), found: new.id.to_string() });
        }
        let now = calendar::now();
        if !new.is_current(now) && old.is_current(now) {
            return Err(LoadError::NotCurrent);
        }
        self.own.store(Arc::new(new));
        self.changed();
        Ok(true)
    }

    /// Replaces the bundles of the other trust domains; domains that are not in `bundles` are trusted no longer. A domain
    /// whose new bundle is unreadable keeps the one that it had, and does not keep the others from taking effect.
    ///
    /// # Errors
    /// The first bundle that was unreadable or claims this node's own trust domain, after all others have taken effect.
    pub fn set_peer_bundles(&self, bundles: BTreeMap<String, Vec<CertificateDer<'static>>>) -> Result<(), LoadError> {
        let _one = self.writing.lock();
        let own = self.id();
        let old = self.peers.load();
        let mut new = BTreeMap::new();
        let mut failed = None;
        for (trust_domain, certificates) in bundles {
            if trust_domain == own.trust_domain {
                failed = failed.or(Some(LoadError::OwnDomain(trust_domain)));
                continue;
            }
            match (Roots::new(&trust_domain, certificates), old.get(&trust_domain)) {
                (Ok(roots), _) => drop(new.insert(trust_domain, Arc::new(roots))),
                (Err(error), kept) => {
                    failed = failed.or(Some(error));
                    new.extend(kept.map(|roots| (trust_domain, Arc::clone(roots))));
                }
            }
        }
        self.peers.store(Arc::new(new));
        self.changed();
        failed.map_or(Ok(()), Err)
    }

    /// Checks `chain` as a handshake would do it now: open connections outlive certificates and bundles.
    ///
    /// # Errors
    /// Why a handshake would fail.
    pub fn verify(&self, chain: &[CertificateDer<'_>], expected: &Expected) -> Result<SpiffeId, IdentityError> {
        let (leaf, intermediates) = chain.split_first().ok_or(IdentityError::NoCertificate)?;
        let presented = Presented { leaf, intermediates, usage: Usage::Verified, now: UnixTime::now() };
        self.check(&presented, expected)
    }

    pub(crate) fn check(&self, presented: &Presented<'_>, expected: &Expected) -> Result<SpiffeId, IdentityError> {
        let id = presented.id()?;
        let own = self.own.load();
        if id.trust_domain == own.id.trust_domain {
            presented.verify(&id, &own.roots)?;
        } else {
            match self.peers.load().get(&id.trust_domain) {
                Some(roots) => presented.verify(&id, roots)?,
                None => return Err(IdentityError::UnknownTrustDomain(Box::new(id))),
            }
        }
        if expected.admits(&id) {
            Ok(id)
        } else {
            Err(IdentityError::WrongIdentity { found: Box::new(id), expected: expected.to_string() })
        }
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.own.load().key)
    }

    pub(crate) const fn files(&self) -> Option<&IdentityFiles> {
        self.files.as_ref()
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id())
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

/// One consistent set of certificate, key and bundle.
struct Own {
    id: Arc<SpiffeId>,
    key: Arc<CertifiedKey>,
    roots: Roots,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Own {
    fn read(paths: &IdentityFiles) -> Result<Self, LoadError> {
        let key = Zeroizing::new(files::read(&paths.key)?);
        Self::parse(&files::read(&paths.certificate)?, &key, &files::read(&paths.bundle)?)
    }

    fn parse(certificate: &[u8], key: &[u8], bundle: &[u8]) -> Result<Self, LoadError> {
        let chain = parse_certificates(certificate, "certificate")?;
        let mut key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            rustls_pki_types::pem::Error::NoItemsFound => LoadError::Empty { what: "private key" },
            error => LoadError::Pem { what: "private key", reason: error.to_string() },
        })?;
        let signing = any_supported_type(&key);
        key.zeroize();
        let key = CertifiedKey::new(chain, signing.map_err(LoadError::Key)?);
        key.keys_match().map_err(LoadError::Key)?;
        let (id, roots) = vouched(&key.cert, certificates_from_pem(bundle)?)?;
        let (not_before, not_after) = validity(&key.cert)?;
        Ok(Self { id: Arc::new(id), key: Arc::new(key), roots, not_before, not_after })
    }

    fn is_current(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// The key belongs to the certificate, so it need not be compared.
    fn is_same(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert && self.roots.certificates() == other.roots.certificates()
    }
}

/// Whom `chain` names, if the bundle vouches for it on both sides of a connection, be it valid now or not.
fn vouched(
    chain: &[CertificateDer<'static>],
    bundle: Vec<CertificateDer<'static>>,
) -> Result<(SpiffeId, Roots), LoadError> {
    let (leaf, intermediates) = chain.split_first().ok_or(LoadError::Empty { what: "certificate" })?;
    let now = UnixTime::now();
    let id = Presented { leaf, intermediates, usage: Usage::Server, now }.id().map_err(LoadError::Certificate)?;
    let roots = Roots::new(&id.trust_domain, bundle)?;
    for usage in [Usage::Server, Usage::Client] {
        match (Presented { leaf, intermediates, usage, now }).verify(&id, &roots) {
            Ok(()) | Err(IdentityError::Expired { .. } | IdentityError::NotYetValid { .. }) => {}
            Err(error) => return Err(LoadError::Certificate(error)),
        }
    }
    Ok((id, roots))
}

/// From when to when the first certificate of `chain` is valid.
fn validity(chain: &[CertificateDer<'_>]) -> Result<(SystemTime, SystemTime), LoadError> {
    let malformed = |reason: String| LoadError::Certificate(IdentityError::Malformed(reason));
    let leaf = chain.first().ok_or(LoadError::Empty { what: "certificate" })?;
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|error| malformed(error.to_string()))?;
    let seconds = |time: x509_parser::time::ASN1Time| calendar::system_time(time.timestamp());
    Ok((seconds(leaf.validity().not_before), seconds(leaf.validity().not_after)))
}

#[cfg(test)]
mod tests;
