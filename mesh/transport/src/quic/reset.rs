//! The key of stateless resets.
//!
//! A gateway that was restarted knows nothing of its old connections, but packets of them still arrive. With the key of
//! its earlier life it can prove to their senders that they are over, so that those need not wait for a timeout.
//!
//! Whoever knows the key can end connections, and nothing else.

use quinn::crypto::HmacKey;
use quinn_proto::crypto::CryptoError;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::hmac::Tag;
use rustls::crypto::tls13::{Hkdf, OkmBlock};

/// A new secret for [`super::QuicOptions::reset_secret`].
pub fn new_reset_secret() -> [u8; SECRET_LEN] {
    super::cid::random()
}

/// The secret for [`super::QuicOptions::reset_secret`] that belongs to another secret, such as a private key: always the
/// same one, which says nothing about the other.
pub fn derived_reset_secret(from: &[u8]) -> [u8; SECRET_LEN] {
    let expander = hkdf().extract_from_secret(None, from);
    let mut secret = [0; SECRET_LEN];
    expander.expand_slice(&[PURPOSE], &mut secret).expect("HKDF gives far longer keys than this");
    secret
}

fn hkdf() -> &'static dyn Hkdf {
    TLS13_AES_128_GCM_SHA256.tls13().expect("the suite is one of TLS 1.3").hkdf_provider
}

/// Signs with HMAC-SHA-256, of the one crypto provider.
pub(super) struct ResetKey(OkmBlock);

impl ResetKey {
    pub(super) fn new(secret: &[u8; SECRET_LEN]) -> Self {
        Self(OkmBlock::new(secret))
    }

    fn tag(&self, data: &[u8]) -> Tag {
        hkdf().hmac_sign(&self.0, data)
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(self.tag(data).as_ref());
    }

    fn signature_len(&self) -> usize {
        TAG_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let tag = self.tag(data);
        let expected = tag.as_ref();
        // Every byte is compared, so that the time taken says nothing about where they differ.
        let differences = expected.iter().zip(signature).fold(0, |sum, (a, b)| sum | (a ^ b));
        if signature.len() == expected.len() && differences == 0 { Ok(()) } else { Err(CryptoError) }
    }
}

/// Length of a secret, in bytes.
const SECRET_LEN: usize = 32;
/// Sets what is derived here apart from whatever else is derived from the same secret.
const PURPOSE: &[u8] = b"eastway stateless resets, 1";
/// Length of a signature, in bytes.
const TAG_LEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_hmac_sha_256() {
        // RFC 4231, test case 1, whose key is shorter: HMAC fills keys up with zeros.
        let mut secret = [0; 32];
        secret[..20].fill(0x0b);
        let mut signature = [0; TAG_LEN];
        let key = ResetKey::new(&secret);
        key.sign(b"Hi There", &mut signature);
        assert_eq!(signature[..8], [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53]);
        assert!(key.verify(b"Hi There", &signature).is_ok());
    }

    #[test]
    fn derived_secrets_are_the_same_again_and_differ_by_what_they_come_from() {
        let secret = derived_reset_secret(b"a private key");
        assert_eq!(secret, derived_reset_secret(b"a private key"));
        assert_ne!(secret, derived_reset_secret(b"another private key"));
        assert_ne!(new_reset_secret(), new_reset_secret());
    }

    #[test]
    fn other_signatures_are_refused() {
        let key = ResetKey::new(&[7; 32]);
        let mut signature = [0; TAG_LEN];
        key.sign(b"id", &mut signature);
        assert!(key.verify(b"other", &signature).is_err());
        assert!(key.verify(b"id", &signature[..31]).is_err());
        assert!(ResetKey::new(&[8; 32]).verify(b"id", &signature).is_err());
    }
}
