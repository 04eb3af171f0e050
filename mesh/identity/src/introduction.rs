//! Handshakes between gateways of clusters that do not know one another yet.
//!
//! Each side shows a certificate and proves that it holds its key; nobody vouches for it so far. Who does, is found out afterwards
//! by [`vouched_gateway`], before anything is said that matters. For the one exchange by which two clusters become peers: no
//! other connection may ever be made with these configurations.

use std::sync::Arc;

use eastway_core::SpiffeId;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::digest::sha256;
use crate::held::{ClientTls, ServerTls, Tls};
use crate::roots::Roots;
use crate::tls::{client_with, server_with};
use crate::verifier::{Judge, Presented, Usage, Verifier, peer_id};
use crate::{Identity, IdentityError, LoadError};

/// The configuration for calling a gateway of a cluster that is not known yet.
pub fn introducing_client(identity: &Arc<Identity>, alpn: &[&[u8]]) -> ClientTls {
    Tls::unverified(Arc::new(client_with(identity, Arc::new(Verifier(AnyGateway)), alpn)), Arc::clone(identity))
}

/// The configuration for answering one.
pub fn introducing_server(identity: &Arc<Identity>, alpn: &[&[u8]]) -> ServerTls {
    Tls::unverified(Arc::new(server_with(identity, Arc::new(Verifier(AnyGateway)), alpn)), Arc::clone(identity))
}

/// Whom `chain` names, if it is a gateway of `trust_domain` that `bundle` vouches for now, on both sides of a connection.
///
/// # Errors
/// The bundle is none of that trust domain, or does not vouch for it.
pub fn vouched_gateway(
    trust_domain: &str,
    bundle: Vec<CertificateDer<'static>>,
    chain: &[CertificateDer<'_>],
) -> Result<SpiffeId, IntroductionError> {
    let (leaf, intermediates) = chain.split_first().ok_or(IdentityError::NoCertificate)?;
    let roots = Roots::new(trust_domain, bundle)?;
    let id = peer_id(chain)?;
    if !id.is_gateway() || id.trust_domain != trust_domain {
        let expected = format!("a gateway of {trust_domain}");
        return Err(IdentityError::WrongIdentity { found: Box::new(id), expected }.into());
    }
    for usage in [Usage::Server, Usage::Client] {
        Presented { leaf, intermediates, usage, now: UnixTime::now() }.verify(&id, &roots)?;
    }
    Ok(id)
}

/// What tells a trust bundle from any other, whatever the order of its certificates.
pub fn bundle_hash(bundle: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut each: Vec<[u8; 32]> = bundle.iter().map(|certificate| sha256(certificate)).collect();
    each.sort_unstable();
    each.dedup();
    sha256(&each.concat())
}

/// Why a gateway that introduced itself is not believed.
#[derive(Debug, thiserror::Error)]
pub enum IntroductionError {
    /// Its bundle is none of its trust domain.
    #[error("its trust bundle cannot be used")]
    Bundle(#[from] LoadError),
    /// The bundle does not vouch for what it has shown.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Takes every certificate that names a gateway, whoever has issued it.
#[derive(Debug)]
struct AnyGateway;

impl Judge for AnyGateway {
    fn judge(&self, presented: &Presented<'_>) -> Result<(), IdentityError> {
        let id = peer_id(std::slice::from_ref(presented.leaf))?;
        if id.is_gateway() {
            return Ok(());
        }
        Err(IdentityError::WrongIdentity { found: Box::new(id), expected: "a gateway".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{EU, US, ca, identity, issue, workload};
    use crate::{Expected, certificates_from_pem, client_config, server_config};

    fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
        certificates_from_pem(pem.as_bytes()).expect("certificates")
    }

    #[test]
    fn a_stranger_is_believed_only_as_a_gateway_that_its_own_bundle_vouches_for() {
        let (us, eu) = (ca(US), ca(EU));
        let gateway = SpiffeId::gateway(EU, "gw-1");
        let shown = chain(&issue(&eu, &gateway).certificate_pem);
        let bundle = || chain(eu.bundle_pem());
        assert_eq!(vouched_gateway(EU, bundle(), &shown).expect("vouched for"), gateway);
        let error = vouched_gateway(EU, chain(ca(EU).bundle_pem()), &shown).expect_err("another CA").to_string();
        assert!(error.contains("not signed by a CA"), "{error}");
        assert!(vouched_gateway(US, chain(us.bundle_pem()), &shown).is_err(), "another trust domain");
        assert!(vouched_gateway(US, bundle(), &shown).is_err(), "a bundle that names another trust domain");
        assert!(vouched_gateway(EU, Vec::new(), &shown).is_err() && vouched_gateway(EU, bundle(), &[]).is_err());
        let workload = chain(&issue(&eu, &workload(EU, "pay")).certificate_pem);
        assert!(vouched_gateway(EU, bundle(), &workload).is_err(), "a workload is no gateway");
    }

    #[test]
    fn a_bundle_is_the_same_in_any_order_and_no_other() {
        let (one, two) = (chain(ca(US).bundle_pem()).remove(0), chain(ca(US).bundle_pem()).remove(0));
        assert_eq!(bundle_hash(&[one.clone(), two.clone()]), bundle_hash(&[two.clone(), one.clone()]));
        assert_ne!(bundle_hash(std::slice::from_ref(&one)), bundle_hash(&[one.clone(), two.clone()]));
        assert_ne!(bundle_hash(&[one]), bundle_hash(&[two]));
    }

    /// Whether the two come to a session.
    fn shake(client: &ClientTls, server: &ServerTls) -> bool {
        let mut client =
            rustls::ClientConnection::new(Arc::clone(client.config()), crate::server_name()).expect("a client");
        let mut server = rustls::ServerConnection::new(Arc::clone(server.config())).expect("a server");
        for _ in 0..10 {
            for (from, to) in [(true, false), (false, true)] {
                let mut bytes = Vec::new();
                let read = if from { client.write_tls(&mut bytes) } else { server.write_tls(&mut bytes) };
                read.expect("written");
                let mut bytes = &bytes[..];
                while !bytes.is_empty() {
                    let outcome = if to {
                        client.read_tls(&mut bytes).expect("read");
                        client.process_new_packets()
                    } else {
                        server.read_tls(&mut bytes).expect("read");
                        server.process_new_packets()
                    };
                    if outcome.is_err() {
                        return false;
                    }
                }
            }
        }
        !client.is_handshaking() && !server.is_handshaking()
    }

    #[test]
    fn only_gateways_introduce_themselves_and_only_to_who_wants_it() {
        let (us, eu) = (ca(US), ca(EU));
        let us_gateway = identity(&us, &SpiffeId::gateway(US, "gw-1"));
        let eu_gateway = identity(&eu, &SpiffeId::gateway(EU, "gw-1"));
        let eu_workload = identity(&eu, &workload(EU, "pay"));
        let alpn: &[&[u8]] = &[b"x"];
        let server = introducing_server(&us_gateway, alpn);
        assert!(shake(&introducing_client(&eu_gateway, alpn), &server));
        assert!(!shake(&introducing_client(&eu_workload, alpn), &server));
        assert!(!shake(&introducing_client(&eu_gateway, alpn), &introducing_server(&eu_workload, alpn)));
        let strict = server_config(&us_gateway, Expected::AnyGateway, alpn);
        assert!(!shake(&introducing_client(&eu_gateway, alpn), &strict));
        assert!(!shake(&client_config(&eu_gateway, Expected::AnyGateway, alpn), &server));
    }
}
