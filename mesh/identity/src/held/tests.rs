//! Connections that are reviewed, without connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;
use crate::fixture::{EU, HOUR, US, ca, identity, issue, workload};
use crate::{Ca, IssueOptions, certificates_from_pem, server_config};

/// A node of us-east that trusts `peers`.
fn node(peers: &[&Ca]) -> Arc<Identity> {
    let node = identity(&ca(US), &workload(US, "storefront"));
    trust(&node, peers);
    node
}

fn trust(node: &Identity, peers: &[&Ca]) {
    let bundles = peers.iter().map(|ca| (ca.trust_domain().to_owned(), vec![ca.certificate().clone()]));
    node.set_peer_bundles(bundles.collect::<BTreeMap<_, _>>()).expect("trusted");
}

fn chain(ca: &Ca, options: &IssueOptions) -> Vec<CertificateDer<'static>> {
    let issued = ca.issue(&workload(ca.trust_domain(), "payments"), options).expect("issued");
    certificates_from_pem(issued.certificate_pem.as_bytes()).expect("a certificate")
}

fn hold(node: &Arc<Identity>, chain: &[CertificateDer<'static>]) -> Held {
    let tls = server_config(node, Expected::AnyWorkload, &[]);
    tls.hold(chain, tls.generation())
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_connection_ends_when_its_certificate_has_expired_and_its_task_is_woken() {
    let eu = ca(EU);
    let node = node(&[&eu]);
    node.review();
    let current = hold(&node, &chain(&eu, &IssueOptions::default()));
    let not_before = Some(calendar::now() - 2 * HOUR);
    let expired = chain(&eu, &IssueOptions { validity: HOUR, not_before, ..IssueOptions::default() });
    let expired = hold(&node, &expired);
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    assert!(expired.poll_revoked(&Context::from_waker(&waker)).is_pending());
    assert_eq!(node.review(), 1);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    let why = expired.revoked().expect("revoked");
    assert!(matches!(*why.0, IdentityError::Expired { .. }), "{why:?}");
    assert!(expired.poll_revoked(&Context::from_waker(&waker)).is_ready() && current.revoked().is_none());
    assert_eq!(node.review(), 0, "it is told once");
}

#[test]
fn connections_of_a_peer_whose_bundle_is_withdrawn_or_replaced_end_and_no_others() {
    let (eu, other, replaced) = (ca(EU), ca("ap-south.mesh.internal"), ca(EU));
    let node = node(&[&eu, &other]);
    let [of_eu, of_other] = [&eu, &other].map(|ca| hold(&node, &chain(ca, &IssueOptions::default())));
    assert_eq!(node.review(), 0);
    trust(&node, &[&replaced, &other]);
    assert_eq!(node.review(), 1);
    assert!(of_eu.revoked().is_some() && of_other.revoked().is_none());
    let of_replaced = hold(&node, &chain(&replaced, &IssueOptions::default()));
    trust(&node, &[&other]);
    assert_eq!(node.review(), 1);
    assert!(of_replaced.revoked().is_some() && of_other.revoked().is_none());
    drop((of_eu, of_other, of_replaced));
    assert!(node.held.connections.lock().is_empty());
}

#[test]
fn a_bundle_that_changes_during_a_handshake_is_no_way_in() {
    let eu = ca(EU);
    let node = node(&[&eu]);
    let tls = server_config(&node, Expected::AnyWorkload, &[]);
    let begun = tls.generation();
    trust(&node, &[]);
    node.review();
    let held = tls.hold(&chain(&eu, &IssueOptions::default()), begun);
    assert_eq!(node.review(), 1);
    assert!(held.revoked().is_some());
}

#[test]
fn a_renewal_of_the_own_certificate_ends_nothing() {
    let us = ca(US);
    let dir = tempfile::tempdir().expect("a folder");
    let save =
        || issue(&us, &workload(US, "storefront")).save(dir.path(), "it", crate::Overwrite::Force).expect("saved");
    let node = Identity::load(&save()).expect("an identity");
    let held = hold(&node, &chain(&us, &IssueOptions::default()));
    save();
    assert!(node.reload().expect("reloaded"));
    assert_eq!((node.review(), held.revoked().is_none()), (0, true));
}
