//! What the CA makes, keeps and refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use eastway_core::SpiffeId;
use x509_parser::extensions::GeneralName;

use super::{Ca, CaError, IssueOptions, WriteError};
use crate::fixture::{EU, HOUR, US, ca, issue, workload};
use crate::roots::parse_certificates;
use crate::{Expected, Identity, IdentityFiles, Overwrite, calendar};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("written").permissions().mode() & 0o777
}

#[test]
fn a_certificate_is_a_spiffe_identity_for_both_sides() {
    let ca = ca(US);
    let id = workload(US, "payments");
    let options = IssueOptions {
        dns_names: vec!["payments.shop.mesh.internal".into()],
        addresses: vec!["127.0.0.1".parse().expect("an address")],
        ..IssueOptions::default()
    };
    let issued = ca.issue(&id, &options).expect("issued");
    let der = parse_certificates(issued.certificate_pem.as_bytes(), "certificate").expect("PEM");
    let (_, leaf) = x509_parser::parse_x509_certificate(&der[0]).expect("a certificate");
    let names = &leaf.subject_alternative_name().expect("unique").expect("there").value.general_names;
    assert!(names.contains(&GeneralName::URI("spiffe://us-east.mesh.internal/ns/shop/sa/payments")));
    assert_eq!(names.len(), 3);
    let usage = leaf.extended_key_usage().expect("unique").expect("there").value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
    assert!(!leaf.is_ca());
    let key_usage = leaf.key_usage().expect("unique").expect("there").value;
    assert!(key_usage.digital_signature() && !key_usage.key_cert_sign());
    let (_, root) = x509_parser::parse_x509_certificate(ca.certificate()).expect("a certificate");
    assert_eq!(root.basic_constraints().expect("unique").expect("there").value.path_len_constraint, Some(0));
    assert_eq!(leaf.public_key().parsed().expect("a key").key_size(), 256, "P-256");
    assert!(leaf.verify_signature(Some(root.public_key())).is_ok());
}

#[test]
fn a_saved_ca_goes_on_issuing_for_the_same_bundle() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let made = ca(US);
    let written = made.save(dir.path(), Overwrite::Never).expect("saved");
    assert_eq!(written, [dir.path().join("ca.crt"), dir.path().join("ca.key")]);
    assert_eq!((mode(&written[0]), mode(&written[1])), (0o644, 0o600));
    let loaded = Ca::load(dir.path()).expect("loaded");
    assert_eq!((loaded.trust_domain(), loaded.bundle_pem()), (US, made.bundle_pem()));
    let node = crate::fixture::identity(&made, &workload(US, "a"));
    let issued = issue(&loaded, &SpiffeId::gateway(US, "gw-1"));
    let chain = parse_certificates(issued.certificate_pem.as_bytes(), "certificate").expect("PEM");
    assert_eq!(node.verify(&chain, &Expected::AnyGateway).expect("genuine"), issued.id);
}

#[test]
fn nothing_is_overwritten_unless_forced() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (first, second) = (ca(US), ca(US));
    first.save(dir.path(), Overwrite::Never).expect("saved");
    let refused = second.save(dir.path(), Overwrite::Never).expect_err("there");
    assert!(matches!(&refused, CaError::Write(WriteError::Exists(path)) if path.ends_with("ca.crt")), "{refused}");
    assert_eq!(Ca::load(dir.path()).expect("intact").bundle_pem(), first.bundle_pem());
    second.save(dir.path(), Overwrite::Force).expect("forced");
    assert_eq!(Ca::load(dir.path()).expect("replaced").bundle_pem(), second.bundle_pem());
    assert_eq!(mode(&dir.path().join("ca.key")), 0o600);
}

#[test]
fn issued_files_load_and_share_one_bundle() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let ca = ca(US);
    for account in ["payments", "orders"] {
        let issued = issue(&ca, &workload(US, account));
        assert_eq!(issued.default_name(), account);
        let files = issued.save(dir.path(), account, Overwrite::Never).expect("saved");
        assert_eq!(files, IdentityFiles::named(dir.path(), account));
        assert_eq!(mode(&files.key), 0o600);
        assert_eq!(*Identity::load(&files).expect("an identity").id(), workload(US, account));
    }
    let again = issue(&ca, &workload(US, "orders")).save(dir.path(), "orders", Overwrite::Never);
    assert!(matches!(again, Err(CaError::Write(WriteError::Exists(_)))));
    let other = issue(&crate::fixture::ca(EU), &workload(EU, "x")).save(dir.path(), "x", Overwrite::Never);
    assert!(matches!(other, Err(CaError::Write(WriteError::Exists(path))) if path.ends_with("bundle.crt")));
    assert!(!dir.path().join("x.key").exists(), "all or nothing");
}

#[test]
fn file_names_stay_in_their_folder() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let issued = issue(&ca(US), &workload(US, "payments"));
    for name in ["", ".", "..", "../up", "a/b", ".hidden", "bundle"] {
        assert!(matches!(issued.save(dir.path(), name, Overwrite::Never), Err(CaError::FileName(_))), "{name}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0);
}

#[test]
fn a_certificate_never_outlives_its_ca() {
    let ca = Ca::create(US, HOUR).expect("a CA");
    let issued = ca.issue(&workload(US, "a"), &IssueOptions { validity: 99 * HOUR, ..IssueOptions::default() });
    assert_eq!(issued.expect("issued").not_after, ca.not_after());
    let late = IssueOptions { not_before: Some(calendar::now() + 2 * HOUR), ..IssueOptions::default() };
    assert!(matches!(ca.issue(&workload(US, "a"), &late), Err(CaError::Validity(_))));
}

#[test]
fn only_its_own_trust_domain() {
    assert!(matches!(
        ca(US).issue(&workload(EU, "a"), &IssueOptions::default()),
        Err(CaError::ForeignDomain { own, .. }) if own == US
    ));
    for name in ["", "Us", "a b", "a/b", "spiffe://a"] {
        assert!(matches!(Ca::create(name, HOUR), Err(CaError::TrustDomain(_))), "{name}");
    }
}

#[test]
fn impossible_validities_and_names_are_refused() {
    for validity in [Duration::ZERO, Duration::from_millis(10), Duration::from_secs(u64::MAX), Duration::MAX] {
        assert!(matches!(Ca::create(US, validity), Err(CaError::Validity(_))), "{validity:?}");
        let options = IssueOptions { validity, ..IssueOptions::default() };
        assert!(matches!(ca(US).issue(&workload(US, "a"), &options), Err(CaError::Validity(_))), "{validity:?}");
    }
    for name in ["", "a b", "ä", "-"] {
        let options = IssueOptions { dns_names: vec![name.to_owned()], ..IssueOptions::default() };
        assert!(matches!(ca(US).issue(&workload(US, "a"), &options), Err(CaError::Name(_))), "{name}");
    }
}

#[test]
fn broken_ca_folders_are_explained() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (certificate, key) = (dir.path().join("ca.crt"), dir.path().join("ca.key"));
    assert!(matches!(Ca::load(dir.path()), Err(CaError::Load(_))), "nothing there");
    let made = ca(US);
    made.save(dir.path(), Overwrite::Never).expect("saved");
    fs::write(&key, "garbage").expect("written");
    assert!(matches!(Ca::load(dir.path()), Err(CaError::Key(_))));
    ca(US).save(&dir.path().join("other"), Overwrite::Never).expect("saved");
    fs::copy(dir.path().join("other/ca.key"), &key).expect("copied");
    assert!(matches!(Ca::load(dir.path()), Err(CaError::OtherKey(_))));
    let leaf = issue(&made, &workload(US, "a"));
    fs::write(&certificate, &leaf.certificate_pem).expect("written");
    fs::write(&key, &leaf.key_pem).expect("written");
    assert!(matches!(Ca::load(dir.path()), Err(CaError::NotCa { .. })), "a leaf is no CA");
    fs::write(&certificate, [0xff, 0xfe]).expect("written");
    assert!(matches!(Ca::load(dir.path()), Err(CaError::NotCa { .. })), "not text");
}
