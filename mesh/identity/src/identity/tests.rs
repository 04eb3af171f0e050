//! Loading, reloading and watching the files of an identity.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eastway_core::SpiffeId;

use super::Identity;
use super::watch::WatchOptions;
use crate::fixture::{EU, HOUR, US, ca, identity, issue, loaded, workload};
use crate::{Ca, Expected, IdentityError, IdentityFiles, IssueOptions, Issued, LoadError, Overwrite, calendar};

/// A folder with an identity of `ca`.
fn folder(ca: &Ca) -> (tempfile::TempDir, IdentityFiles) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let files = renew(ca, dir.path());
    (dir, files)
}

fn renew(ca: &Ca, dir: &Path) -> IdentityFiles {
    issue(ca, &workload(US, "payments")).save(dir, "payments", Overwrite::Force).expect("saved")
}

/// Waits until `done`, but not forever; wakes often, because nothing tells when a thread has noticed a file.
fn eventually(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn expired(ca: &Ca) -> Issued {
    let not_before = Some(calendar::now() - 2 * HOUR);
    ca.issue(&workload(US, "payments"), &IssueOptions { validity: HOUR, not_before, ..IssueOptions::default() })
        .expect("issued")
}

fn parse(certificate: &str, key: &str, bundle: &str) -> Result<Arc<Identity>, LoadError> {
    Identity::from_pem(certificate.as_bytes(), key.as_bytes(), bundle.as_bytes())
}

#[test]
fn files_become_an_identity() {
    let ca = ca(US);
    let (_dir, files) = folder(&ca);
    let identity = Identity::load(&files).expect("an identity");
    assert_eq!(*identity.id(), workload(US, "payments"));
    assert_eq!(identity.bundle(), [ca.certificate().clone()]);
    assert!(identity.not_after() > calendar::now());
    assert_eq!(identity.generation(), 0);
}

#[test]
fn each_broken_part_is_told() {
    let ca = ca(US);
    let good = issue(&ca, &workload(US, "payments"));
    let (certificate, key, bundle) = (&good.certificate_pem, &good.key_pem, &good.bundle_pem);
    let other = issue(&ca, &workload(US, "payments"));
    assert!(matches!(parse(certificate, &other.key_pem, bundle), Err(LoadError::Key(_))), "another's key");
    assert!(matches!(parse("", key, bundle), Err(LoadError::Empty { what: "certificate" })));
    assert!(matches!(parse(certificate, "", bundle), Err(LoadError::Empty { what: "private key" })));
    assert!(matches!(parse(certificate, certificate, bundle), Err(LoadError::Empty { what: "private key" })));
    assert!(matches!(parse(certificate, key, "# none"), Err(LoadError::Empty { what: "bundle" })));
    let cut = &certificate[..certificate.len() / 2];
    assert!(matches!(parse(cut, key, bundle), Err(LoadError::Pem { what: "certificate", .. })), "cut in two");
    let foreign = crate::fixture::ca(US);
    let refused = parse(certificate, key, foreign.bundle_pem());
    assert!(matches!(refused, Err(LoadError::Certificate(IdentityError::ForeignCa(_)))), "{refused:?}");
    let refused = parse(certificate, key, certificate);
    assert!(matches!(refused, Err(LoadError::NotCa { index: 1, .. })), "{refused:?}");
    let refused = parse(certificate, key, crate::fixture::ca(EU).bundle_pem());
    assert!(matches!(refused, Err(LoadError::OtherDomain { .. })), "{refused:?}");
}

#[test]
fn unreadable_files_are_named() {
    let (dir, mut files) = folder(&ca(US));
    files.key = dir.path().join("missing.key");
    let refused = Identity::load(&files).expect_err("missing");
    assert!(refused.to_string().contains("missing.key"), "{refused}");
}

#[test]
fn a_ca_that_issues_for_several_uses_the_right_one_of_its_roots() {
    let (old, new) = (ca(US), ca(US));
    let issued = issue(&new, &workload(US, "payments"));
    let both = format!("{}{}", old.bundle_pem(), new.bundle_pem());
    let node = parse(&issued.certificate_pem, &issued.key_pem, &both).expect("roots overlap while they rotate");
    let chain = |ca: &Ca| loaded(&issue(ca, &workload(US, "a"))).certified_key().cert.clone();
    assert!(node.verify(&chain(&old), &Expected::Any).is_ok());
    assert!(node.verify(&chain(&new), &Expected::Any).is_ok());
}

#[test]
fn an_expired_certificate_loads_because_the_clock_may_be_wrong() {
    let node = loaded(&expired(&ca(US)));
    assert!(node.not_after() < calendar::now());
    let own = node.certified_key();
    assert!(matches!(node.verify(&own.cert, &Expected::Any), Err(IdentityError::Expired { .. })));
}

#[test]
fn reload_takes_what_is_new_and_only_that() {
    let ca = ca(US);
    let (dir, files) = folder(&ca);
    let node = Identity::load(&files).expect("an identity");
    assert!(!node.reload().expect("readable"), "nothing changed");
    let before = node.certified_key();
    renew(&ca, dir.path());
    assert!(node.reload().expect("readable"));
    assert_eq!(node.generation(), 1);
    assert_ne!(node.certified_key().cert, before.cert);
    // A further root beside the present one, before it signs anything.
    let next = crate::fixture::ca(US);
    fs::write(&files.bundle, format!("{}{}", ca.bundle_pem(), next.bundle_pem())).expect("written");
    assert!(node.reload().expect("readable"));
    assert_eq!(node.bundle().len(), 2);
    assert!(node.verify(&identity(&next, &workload(US, "a")).certified_key().cert, &Expected::Any).is_ok());
}

#[test]
fn a_reload_that_does_not_pass_leaves_everything_as_it_was() {
    let ca = ca(US);
    let (dir, files) = folder(&ca);
    let node = Identity::load(&files).expect("an identity");
    let before = node.certified_key();
    let good = fs::read(&files.certificate).expect("there");
    // The certificate is there already, its key not yet.
    fs::write(&files.certificate, issue(&ca, &workload(US, "payments")).certificate_pem).expect("written");
    assert!(matches!(node.reload(), Err(LoadError::Key(_))));
    fs::write(&files.certificate, "").expect("written");
    assert!(matches!(node.reload(), Err(LoadError::Empty { .. })));
    fs::remove_file(&files.certificate).expect("removed");
    assert!(matches!(node.reload(), Err(LoadError::Read { .. })));
    issue(&ca, &workload(US, "orders")).save(dir.path(), "payments", Overwrite::Force).expect("saved");
    assert!(matches!(node.reload(), Err(LoadError::OtherIdentity { .. })), "a node does not change who it is");
    expired(&ca).save(dir.path(), "payments", Overwrite::Force).expect("saved");
    assert!(matches!(node.reload(), Err(LoadError::NotCurrent)));
    assert!(Arc::ptr_eq(&node.certified_key(), &before));
    assert_eq!(node.generation(), 0);
    fs::write(&files.certificate, good).expect("written");
    assert!(matches!(node.reload(), Err(LoadError::Key(_))));
}

#[test]
fn a_changed_file_is_noticed() {
    let ca = ca(US);
    let (dir, files) = folder(&ca);
    let node = Identity::load(&files).expect("an identity");
    // Only the notification can be it: the interval is far away.
    let watch = node.watch_with(WatchOptions { poll: HOUR, settle: Duration::from_millis(1) });
    let before = node.certified_key();
    renew(&ca, dir.path());
    eventually("the reload", || node.certified_key().cert != before.cert);
    let second = node.certified_key();
    fs::write(&files.key, "garbage").expect("written");
    renew(&ca, dir.path());
    eventually("the reload after garbage", || node.certified_key().cert != second.cert);
    drop(watch);
}

#[test]
fn a_swapped_link_is_noticed() {
    let ca = ca(US);
    let dir = tempfile::tempdir().expect("temporary folder");
    let versions = ["v1", "v2"].map(|version| renew(&ca, &dir.path().join(version)));
    let link = dir.path().join("data");
    symlink(dir.path().join("v1"), &link).expect("linked");
    // As Kubernetes mounts secrets: files -> link -> folder, and the link is what changes.
    let mount = dir.path();
    for file in ["payments.crt", "payments.key", "bundle.crt"] {
        symlink(Path::new("data").join(file), mount.join(file)).expect("linked");
    }
    let node = Identity::load(&IdentityFiles::named(mount, "payments")).expect("an identity");
    let _watch = node.watch_with(WatchOptions { poll: HOUR, settle: Duration::from_millis(1) });
    symlink(dir.path().join("v2"), dir.path().join("next")).expect("linked");
    fs::rename(dir.path().join("next"), &link).expect("swapped");
    let wanted = Identity::load(&versions[1]).expect("an identity").certified_key();
    eventually("the reload", || node.certified_key().cert == wanted.cert);
}

#[test]
fn the_interval_finds_what_was_not_told() {
    let ca = ca(US);
    let dir = tempfile::tempdir().expect("temporary folder");
    let elsewhere = tempfile::tempdir().expect("temporary folder");
    let real = renew(&ca, elsewhere.path());
    let links = IdentityFiles::named(dir.path(), "payments");
    for (to, from) in [(&real.certificate, &links.certificate), (&real.key, &links.key), (&real.bundle, &links.bundle)]
    {
        symlink(to, from).expect("linked");
    }
    let node = Identity::load(&links).expect("an identity");
    let _watch = node.watch_with(WatchOptions { poll: Duration::from_millis(5), settle: Duration::ZERO });
    // The folder that is watched sees nothing of this.
    renew(&ca, elsewhere.path());
    eventually("the reload", || node.generation() > 0);
}

#[test]
fn watching_ends_with_its_guard() {
    let ca = ca(US);
    let (_dir, files) = folder(&ca);
    let node = Identity::load(&files).expect("an identity");
    let watch = node.watch_with(WatchOptions { poll: HOUR, settle: HOUR });
    drop(watch);
    assert_eq!(Arc::strong_count(&node), 1, "the thread has gone");
    drop(loaded(&issue(&ca, &workload(US, "a"))).watch());
}

#[test]
fn a_bad_peer_bundle_harms_nobody_else() {
    let (us, eu, ap) = (ca(US), ca(EU), ca("ap.mesh.internal"));
    let node = identity(&us, &workload(US, "a"));
    let bundle = |ca: &Ca| (ca.trust_domain().to_owned(), vec![ca.certificate().clone()]);
    node.set_peer_bundles(BTreeMap::from([bundle(&eu)])).expect("readable");
    let broken = (EU.to_owned(), vec![b"garbage".to_vec().into()]);
    let refused = node.set_peer_bundles(BTreeMap::from([broken, bundle(&ap)]));
    assert!(matches!(refused, Err(LoadError::NotCa { trust_domain, .. }) if trust_domain == EU));
    for (ca, domain) in [(&eu, EU), (&ap, "ap.mesh.internal")] {
        let gateway = identity(ca, &SpiffeId::gateway(domain, "gw-1"));
        assert!(node.verify(&gateway.certified_key().cert, &Expected::AnyGateway).is_ok(), "{domain}");
    }
    let refused = node.set_peer_bundles(BTreeMap::from([(EU.to_owned(), Vec::new())]));
    assert!(matches!(refused, Err(LoadError::Empty { .. })), "an empty bundle is a mistake, not a withdrawal");
}

#[test]
fn a_peer_brings_no_ca_for_our_own_domain() {
    let (ours, theirs) = (ca(US), ca(US));
    let node = identity(&ours, &workload(US, "a"));
    let claimed = BTreeMap::from([(US.to_owned(), vec![theirs.certificate().clone()])]);
    assert!(matches!(node.set_peer_bundles(claimed), Err(LoadError::OwnDomain(domain)) if domain == US));
    let posing = identity(&theirs, &SpiffeId::gateway(US, "gw-1"));
    let refused = node.verify(&posing.certified_key().cert, &Expected::Any);
    assert!(matches!(refused, Err(IdentityError::ForeignCa(_))));
}

#[test]
fn an_empty_chain_is_nobody() {
    let node = identity(&ca(US), &workload(US, "a"));
    assert!(matches!(node.verify(&[], &Expected::Any), Err(IdentityError::NoCertificate)));
    assert!(matches!(crate::peer_id(&[]), Err(IdentityError::NoCertificate)));
    let garbage = [b"garbage".to_vec().into()];
    assert!(matches!(crate::peer_id(&garbage), Err(IdentityError::Malformed(_))));
}
