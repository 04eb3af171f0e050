//! Hashes and secrets, by the one provider of cryptography.

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

use crate::provider::provider_ref;

/// SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    suite.common.hash_provider.hash(data).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A secret that nobody can guess; `None` if the operating system has no randomness to give.
pub fn secret() -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    provider_ref().secure_random.fill(&mut secret).ok().map(|()| secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sha_256() {
        let hash: String = sha256(b"abc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn no_secret_comes_twice() {
        assert_ne!(secret().expect("randomness"), secret().expect("randomness"));
    }
}
