//! Real handshakes between two rustls connections in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use eastway_core::SpiffeId;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;

use super::{client_config, provider, server_config, server_name};
use crate::fixture::{EU, HOUR, US, ca, identity, issue, loaded, workload};
use crate::verifier::{Verifier, Vouched};
use crate::{Ca, Expected, Identity, IdentityError, IssueOptions, Refusal, calendar, peer_id};

/// The two ends after as many flights as either wanted to send.
struct Ends {
    client: Result<ClientConnection, rustls::Error>,
    server: Result<ServerConnection, rustls::Error>,
}

impl Ends {
    fn established(self) -> (ClientConnection, ServerConnection) {
        let (client, server) = (self.client.expect("client"), self.server.expect("server"));
        assert!(!client.is_handshaking() && !server.is_handshaking());
        (client, server)
    }

    /// How the client refused the server.
    fn client_refusal(&self) -> Option<Refusal> {
        Refusal::of(self.client.as_ref().err()?)
    }

    /// How the server refused the client.
    fn server_refusal(&self) -> Option<Refusal> {
        Refusal::of(self.server.as_ref().err()?)
    }
}

fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Ends {
    let mut client = ClientConnection::new(Arc::clone(client), server_name()).expect("a client");
    let mut server = ServerConnection::new(Arc::clone(server)).expect("a server");
    let (mut client_error, mut server_error) = (None, None);
    loop {
        let sent =
            pass(&mut client, &mut server, &mut server_error) + pass(&mut server, &mut client, &mut client_error);
        if sent == 0 {
            break;
        }
    }
    Ends { client: client_error.map_or(Ok(client), Err), server: server_error.map_or(Ok(server), Err) }
}

/// Carries what `from` has to say; the first error of `to` is kept, what comes after it is not read.
fn pass<A, B>(
    from: &mut rustls::ConnectionCommon<A>,
    to: &mut rustls::ConnectionCommon<B>,
    error: &mut Option<rustls::Error>,
) -> usize {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).expect("memory");
    }
    let mut unread = wire.as_slice();
    while error.is_none() && !unread.is_empty() {
        to.read_tls(&mut unread).expect("memory");
        *error = to.process_new_packets().err();
    }
    wire.len()
}

const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// A call by `client` to `server`, each expecting the other to be anybody unless said otherwise.
fn call(client: &Arc<Identity>, wants: Expected, server: &Arc<Identity>, admits: Expected) -> Ends {
    handshake(&client_config(client, wants, ALPN), &server_config(server, admits, ALPN))
}

fn trust(node: &Identity, ca: &Ca) {
    let bundle = BTreeMap::from([(ca.trust_domain().to_owned(), vec![ca.certificate().clone()])]);
    node.set_peer_bundles(bundle).expect("bundles");
}

/// A certificate of `ca` for `id` that `tweak` has spoilt, with the identity's usual bundle.
fn forged(ca: &Ca, id: &SpiffeId, tweak: impl FnOnce(&mut CertificateParams)) -> Arc<rustls::sign::CertifiedKey> {
    let mut params = ca.leaf(id, &IssueOptions::default()).expect("parameters");
    tweak(&mut params);
    let issued = ca.sign(id, &params).expect("signed");
    certified(&issued.certificate_pem, &issued.key_pem)
}

fn certified(certificate: &str, key: &str) -> Arc<rustls::sign::CertifiedKey> {
    use rustls_pki_types::pem::PemObject;
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().expect("PEM");
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    Arc::new(rustls::sign::CertifiedKey::from_der(chain, key, &provider()).expect("a pair"))
}

/// How a node that trusts `ca` refuses a server, and a client, that shows `shown`.
fn refusals(ca: &Ca, shown: &Arc<rustls::sign::CertifiedKey>) -> (Option<Refusal>, Option<Refusal>) {
    let node = identity(ca, &workload(ca.trust_domain(), "checker"));
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(shown)));
    let mut server = (**server_config(&node, Expected::Any, ALPN)).clone();
    server.cert_resolver = Arc::clone(&resolver) as _;
    let mut client = (**client_config(&node, Expected::Any, ALPN)).clone();
    client.client_auth_cert_resolver = resolver;
    let as_server = handshake(&client_config(&node, Expected::Any, ALPN), &Arc::new(server)).client_refusal();
    let as_client = handshake(&Arc::new(client), &server_config(&node, Expected::Any, ALPN)).server_refusal();
    (as_server, as_client)
}

fn both(refusal: Refusal) -> (Option<Refusal>, Option<Refusal>) {
    (Some(refusal), Some(refusal))
}

#[test]
fn both_sides_know_each_other_over_tls_1_3_with_the_hybrid_exchange() {
    let ca = ca(US);
    let (caller, payments) = (workload(US, "storefront"), workload(US, "payments"));
    let expected = Expected::Workloads(vec![payments.clone()]);
    let ends = call(&identity(&ca, &caller), expected, &identity(&ca, &payments), Expected::AnyWorkload);
    let (client, server) = ends.established();
    assert_eq!(peer_id(client.peer_certificates().expect("shown")).expect("an id"), payments);
    assert_eq!(peer_id(server.peer_certificates().expect("shown")).expect("an id"), caller);
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let group = client.negotiated_key_exchange_group().expect("negotiated");
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    let suite = client.negotiated_cipher_suite().expect("negotiated");
    assert_eq!(suite.suite(), rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(client.alpn_protocol(), Some(b"h2".as_slice()));
    assert_eq!(server.server_name(), None, "no name goes over the wire");
}

#[test]
fn nothing_is_resumed() {
    let ca = ca(US);
    let (caller, payments) = (identity(&ca, &workload(US, "storefront")), identity(&ca, &workload(US, "payments")));
    let server = server_config(&payments, Expected::Any, ALPN);
    // A caller that would resume, if it were given a ticket.
    let mut eager = (**client_config(&caller, Expected::Any, ALPN)).clone();
    eager.resumption = rustls::client::Resumption::in_memory_sessions(8);
    eager.enable_early_data = true;
    for client in [Arc::clone(&client_config(&caller, Expected::Any, ALPN)), Arc::new(eager)] {
        for _ in 0..2 {
            let (mut client, server) = handshake(&client, &server).established();
            assert_eq!(client.tls13_tickets_received(), 0);
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
            assert!(client.early_data().is_none());
        }
    }
}

#[test]
fn both_configurations_serve_quic() {
    use rustls::quic::{ClientConnection, ServerConnection, Version};
    let ca = ca(US);
    let node = identity(&ca, &SpiffeId::gateway(US, "gw-1"));
    let client = client_config(&node, Expected::AnyGateway, &[b"eastway/1"]);
    let server = server_config(&node, Expected::AnyGateway, &[b"eastway/1"]);
    let mut client = ClientConnection::new(Arc::clone(&client), Version::V1, server_name(), vec![0]).expect("a client");
    let mut server = ServerConnection::new(Arc::clone(&server), Version::V1, vec![0]).expect("a server");
    while client.is_handshaking() || server.is_handshaking() {
        let mut sent = false;
        // Each call writes the messages under one key; they must be read apart from those under the next.
        for client_speaks in [true, true, true, false, false, false] {
            let mut flight = Vec::new();
            if client_speaks {
                client.write_hs(&mut flight);
                server.read_hs(&flight).expect("the client's messages");
            } else {
                server.write_hs(&mut flight);
                client.read_hs(&flight).expect("the server's messages");
            }
            sent |= !flight.is_empty();
        }
        assert!(sent, "the handshake goes on");
    }
    assert_eq!(server.alpn_protocol(), Some(b"eastway/1".as_slice()));
    assert!(client.zero_rtt_keys().is_none());
}

#[test]
fn tls_1_2_is_not_spoken() {
    let ca = ca(US);
    let node = identity(&ca, &workload(US, "payments"));
    let old = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("supported")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier(Vouched {
            identity: Arc::clone(&node),
            expected: Expected::Any,
        })))
        .with_no_client_auth();
    let ends = handshake(&Arc::new(old), &server_config(&node, Expected::Any, &[]));
    assert!(matches!(ends.server, Err(rustls::Error::PeerIncompatible(_))), "{:?}", ends.server.err());
}

#[test]
fn a_peer_without_the_hybrid_exchange_still_connects() {
    let ca = ca(US);
    let node = identity(&ca, &workload(US, "payments"));
    let mut classical = (*provider()).clone();
    classical.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let client = ClientConfig::builder_with_provider(Arc::new(classical))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("supported")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier(Vouched {
            identity: Arc::clone(&node),
            expected: Expected::Any,
        })))
        .with_client_cert_resolver(client_config(&node, Expected::Any, &[]).client_auth_cert_resolver.clone());
    let (client, _) = handshake(&Arc::new(client), &server_config(&node, Expected::Any, &[])).established();
    assert_eq!(client.negotiated_key_exchange_group().expect("negotiated").name(), NamedGroup::X25519);
}

#[test]
fn a_caller_without_a_certificate_is_refused() {
    let ca = ca(US);
    let node = identity(&ca, &workload(US, "payments"));
    let anonymous = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("supported")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier(Vouched {
            identity: Arc::clone(&node),
            expected: Expected::Any,
        })))
        .with_no_client_auth();
    let ends = handshake(&Arc::new(anonymous), &server_config(&node, Expected::Any, &[]));
    assert_eq!(ends.server_refusal(), Some(Refusal::BadCertificate));
    assert_eq!(ends.client_refusal(), Some(Refusal::ByPeer));
}

#[test]
fn a_foreign_ca_of_the_same_domain_is_refused_on_both_sides() {
    let (ours, theirs) = (ca(US), ca(US));
    let (us, them) = (identity(&ours, &workload(US, "a")), identity(&theirs, &workload(US, "a")));
    let ends = call(&us, Expected::Any, &them, Expected::Any);
    assert_eq!(ends.client_refusal(), Some(Refusal::ForeignCa));
    assert_eq!(ends.server_refusal(), Some(Refusal::ByPeer), "the alert tells the other side");
    // A caller of the foreign CA that would accept us: now it is the server that refuses.
    let both_known = identity(&theirs, &workload(US, "a"));
    let mut blind = (**client_config(&both_known, Expected::Any, ALPN)).clone();
    blind
        .dangerous()
        .set_certificate_verifier(Arc::new(Verifier(Vouched { identity: Arc::clone(&us), expected: Expected::Any })));
    let ends = handshake(&Arc::new(blind), &server_config(&us, Expected::Any, ALPN));
    assert_eq!(ends.server_refusal(), Some(Refusal::ForeignCa));
}

#[test]
fn a_wrong_account_is_named_together_with_the_expected_one() {
    let ca = ca(US);
    let (caller, orders) = (identity(&ca, &workload(US, "storefront")), identity(&ca, &workload(US, "orders")));
    let expected = Expected::Workloads(vec![workload(US, "payments")]);
    let ends = call(&caller, expected, &orders, Expected::AnyWorkload);
    assert_eq!(ends.client_refusal(), Some(Refusal::WrongIdentity));
    let text = ends.client.expect_err("refused").to_string();
    assert!(text.contains("sa/orders") && text.contains("sa/payments"), "{text}");
}

#[test]
fn a_workload_cannot_pose_as_a_gateway_nor_a_gateway_as_a_workload() {
    let ca = ca(US);
    // The closest that a workload's name can come to a gateway's.
    let workload = identity(&ca, &SpiffeId::workload(US, "eastway", "gateway"));
    let gateway = identity(&ca, &SpiffeId::gateway(US, "gw-1"));
    let only = Expected::Gateway { trust_domain: US.to_owned() };
    call(&workload, only.clone(), &gateway, Expected::AnyWorkload).established();
    assert_eq!(call(&gateway, only.clone(), &workload, Expected::Any).client_refusal(), Some(Refusal::WrongIdentity));
    assert_eq!(call(&workload, Expected::Any, &gateway, only).server_refusal(), Some(Refusal::WrongIdentity));
    assert_eq!(
        call(&gateway, Expected::Any, &workload, Expected::AnyWorkload).server_refusal(),
        Some(Refusal::WrongIdentity)
    );
    let listed = Expected::Workloads(vec![SpiffeId::gateway(US, "gw-1")]);
    assert_eq!(
        call(&workload, listed, &gateway, Expected::Any).client_refusal(),
        Some(Refusal::WrongIdentity),
        "not even if somebody lists it as an account"
    );
}

#[test]
fn expired_and_future_certificates_are_told_apart() {
    let ca = ca(US);
    let now = calendar::now();
    let shown = |not_before, validity| {
        let options = IssueOptions { validity, not_before: Some(not_before), ..IssueOptions::default() };
        let issued = ca.issue(&workload(US, "payments"), &options).expect("issued");
        certified(&issued.certificate_pem, &issued.key_pem)
    };
    assert_eq!(refusals(&ca, &shown(now - 2 * HOUR, HOUR)), both(Refusal::Expired));
    assert_eq!(refusals(&ca, &shown(now + HOUR, HOUR)), both(Refusal::NotYetValid));
}

#[test]
fn what_a_foreign_ca_signed_is_foreign_whatever_its_dates() {
    let (ours, theirs) = (ca(US), ca(US));
    for not_before in [calendar::now() - 2 * HOUR, calendar::now() + HOUR] {
        let options = IssueOptions { validity: HOUR, not_before: Some(not_before), ..IssueOptions::default() };
        let issued = theirs.issue(&workload(US, "payments"), &options).expect("issued");
        let shown = certified(&issued.certificate_pem, &issued.key_pem);
        assert_eq!(refusals(&ours, &shown), both(Refusal::ForeignCa));
    }
}

#[test]
fn a_certificate_must_name_exactly_one_identity() {
    let ca = ca(US);
    let id = workload(US, "payments");
    let uri = |text: &str| SanType::URI(text.try_into().expect("ASCII"));
    let cases: [(&str, Vec<SanType>); 5] = [
        ("two identities", vec![uri(&id.to_string()), uri(&SpiffeId::gateway(US, "gw-1").to_string())]),
        ("an identity and a web page", vec![uri(&id.to_string()), uri("https://example.com/")]),
        ("a DNS name only", vec![SanType::DnsName("payments.shop".try_into().expect("ASCII"))]),
        ("no name", vec![]),
        ("no identity of a mesh", vec![uri("spiffe://us-east.mesh.internal/somebody")]),
    ];
    for (what, names) in cases {
        let shown = forged(&ca, &id, |params| params.subject_alt_names = names);
        assert_eq!(refusals(&ca, &shown), both(Refusal::BadCertificate), "{what}");
    }
    let named = forged(&ca, &id, |params| {
        params.subject_alt_names.push(SanType::DnsName("payments.shop".try_into().expect("ASCII")));
    });
    assert_eq!(refusals(&ca, &named), (None, None), "names of other kinds do no harm");
}

#[test]
fn a_certificate_must_be_meant_for_its_side() {
    let ca = ca(US);
    let id = workload(US, "payments");
    let client_only = forged(&ca, &id, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert_eq!(refusals(&ca, &client_only), (Some(Refusal::BadCertificate), None));
    let posing = forged(&ca, &id, |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    assert_eq!(refusals(&ca, &posing), both(Refusal::BadCertificate), "a CA's certificate is nobody's identity");
}

#[test]
fn a_workload_cannot_issue() {
    let ca = ca(US);
    let workload = issue(&ca, &workload(US, "payments"));
    let gateway = SpiffeId::gateway(US, "gw-1");
    let issuer =
        Issuer::from_ca_cert_pem(&workload.certificate_pem, KeyPair::from_pem(&workload.key_pem).expect("a key"));
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = ca.leaf(&gateway, &IssueOptions::default()).expect("parameters");
    params.use_authority_key_identifier_extension = false;
    let mut issuer = issuer.expect("an issuer");
    let forged = params.signed_by(&key, &issuer).or_else(|_| {
        // rcgen minds the key usage; an attacker's tool does not.
        let mut careless = CertificateParams::default();
        careless.distinguished_name = rcgen::DistinguishedName::new();
        careless.distinguished_name.push(rcgen::DnType::OrganizationName, "Eastway");
        issuer = Issuer::new(careless, KeyPair::from_pem(&workload.key_pem).expect("a key"));
        params.signed_by(&key, &issuer)
    });
    let chain = format!("{}{}", forged.expect("signed").pem(), workload.certificate_pem);
    let shown = certified(&chain, &key.serialize_pem());
    let (as_server, as_client) = refusals(&ca, &shown);
    assert!(as_server.is_some() && as_client.is_some(), "{as_server:?} {as_client:?}");
}

#[test]
fn each_trust_domain_is_verified_by_its_own_bundle() {
    let (us, eu) = (ca(US), ca(EU));
    let caller = identity(&us, &workload(US, "storefront"));
    let payments = identity(&eu, &workload(EU, "payments"));
    let expected = Expected::Workloads(vec![workload(EU, "payments")]);
    let ends = call(&caller, expected.clone(), &payments, Expected::Any);
    assert_eq!(ends.client_refusal(), Some(Refusal::ForeignCa), "an unknown trust domain");
    trust(&caller, &eu);
    let ends = call(&caller, expected.clone(), &payments, Expected::Any);
    assert_eq!(ends.server_refusal(), Some(Refusal::ForeignCa), "trust is not mutual by itself");
    trust(&payments, &us);
    call(&caller, expected, &payments, Expected::Any).established();
}

#[test]
fn no_cluster_speaks_for_another() {
    const AP: &str = "ap-south.mesh.internal";
    let (us, eu, ap) = (ca(US), ca(EU), ca(AP));
    let node = identity(&us, &workload(US, "storefront"));
    let certificates = [(EU, &eu), (AP, &ap)].map(|(domain, ca)| (domain.to_owned(), vec![ca.certificate().clone()]));
    node.set_peer_bundles(BTreeMap::from(certificates)).expect("bundles");
    // The CA of ap-south is trusted, but it signs identities of eu-west, and of our own domain.
    for claimed in [workload(EU, "payments"), workload(US, "payments"), SpiffeId::gateway(US, "gw-1")] {
        let own = SpiffeId { trust_domain: AP.to_owned(), ..claimed.clone() };
        let shown = forged(&ap, &own, |params| {
            params.subject_alt_names = vec![SanType::URI(claimed.to_string().try_into().expect("ASCII"))];
        });
        let refused = node.verify(&shown.cert, &Expected::Any);
        assert!(matches!(refused, Err(IdentityError::ForeignCa(id)) if *id == claimed));
    }
    let genuine = issue(&ap, &workload(AP, "payments"));
    let genuine = certified(&genuine.certificate_pem, &genuine.key_pem);
    assert!(node.verify(&genuine.cert, &Expected::Any).is_ok());
}

#[test]
fn a_withdrawn_bundle_refuses_new_handshakes_and_open_connections() {
    let (us, eu) = (ca(US), ca(EU));
    let (gateway, peer) =
        (identity(&us, &SpiffeId::gateway(US, "gw-1")), identity(&eu, &SpiffeId::gateway(EU, "gw-1")));
    trust(&gateway, &eu);
    trust(&peer, &us);
    let client = client_config(&gateway, Expected::Gateway { trust_domain: EU.to_owned() }, ALPN);
    let server = server_config(&peer, Expected::AnyGateway, ALPN);
    let (open, _) = handshake(&client, &server).established();
    let shown = open.peer_certificates().expect("shown");
    let before = gateway.generation();
    assert!(gateway.verify(shown, &Expected::AnyGateway).is_ok());
    gateway.set_peer_bundles(BTreeMap::new()).expect("none");
    assert!(gateway.generation() > before);
    assert!(matches!(gateway.verify(shown, &Expected::AnyGateway), Err(IdentityError::UnknownTrustDomain(_))));
    assert_eq!(handshake(&client, &server).client_refusal(), Some(Refusal::ForeignCa), "the same configuration");
}

#[test]
fn a_refusal_is_found_behind_an_io_error() {
    let (ours, theirs) = (ca(US), ca(US));
    let ends = call(
        &identity(&ours, &workload(US, "a")),
        Expected::Any,
        &identity(&theirs, &workload(US, "a")),
        Expected::Any,
    );
    let error = io::Error::new(io::ErrorKind::InvalidData, ends.client.expect_err("refused"));
    assert_eq!(Refusal::of(&error), Some(Refusal::ForeignCa));
    assert_eq!(Refusal::of(&io::Error::other("connection reset")), None);
    assert_eq!(Refusal::of(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
    assert_eq!(Refusal::of(&IdentityError::NoUri), Some(Refusal::BadCertificate));
}

#[test]
fn alerts_tell_what_quic_keeps_of_a_refusal() {
    let ca = ca(US);
    let ca_eu = crate::fixture::ca(EU);
    let node = identity(&ca, &workload(US, "storefront"));
    let other = identity(&ca, &workload(US, "orders"));
    let unknown = identity(&ca_eu, &workload(EU, "orders"));
    for (server, expected, refusal) in
        [(&other, Expected::AnyGateway, Refusal::WrongIdentity), (&unknown, Expected::Any, Refusal::ForeignCa)]
    {
        let ends = call(&node, expected, server, Expected::Any);
        let Err(rustls::Error::AlertReceived(alert)) = ends.server else { panic!("{:?}", ends.server.err()) };
        assert_eq!(Refusal::of_alert(u8::from(alert)), Some(refusal));
    }
    assert_eq!(Refusal::of_alert(0), None, "close_notify refuses nobody");
}

#[test]
fn loaded_identities_hide_their_keys() {
    let ca = ca(US);
    let issued = issue(&ca, &workload(US, "payments"));
    let node = loaded(&issued);
    let shown = format!("{ca:?} {issued:?} {node:?} {:?}", client_config(&node, Expected::Any, &[]));
    let secret = issued.key_pem.lines().nth(1).expect("a line of the key");
    assert!(!shown.contains("PRIVATE") && !shown.contains(secret) && shown.contains("payments"), "{shown}");
}
