//! Certificates for this crate's tests: made at run time, so that no private key is ever committed.

use std::sync::Arc;
use std::time::Duration;

use eastway_core::SpiffeId;

use crate::{Ca, Identity, IssueOptions, Issued};

pub(crate) const US: &str = "us-east.mesh.internal";
pub(crate) const EU: &str = "eu-west.mesh.internal";
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn ca(trust_domain: &str) -> Ca {
    Ca::create(trust_domain, 24 * HOUR).expect("a CA")
}

pub(crate) fn workload(trust_domain: &str, account: &str) -> SpiffeId {
    SpiffeId::workload(trust_domain, "shop", account)
}

pub(crate) fn issue(ca: &Ca, id: &SpiffeId) -> Issued {
    ca.issue(id, &IssueOptions::default()).expect("issued")
}

/// What `ca` issues for `id`, as a node that trusts `ca`.
pub(crate) fn identity(ca: &Ca, id: &SpiffeId) -> Arc<Identity> {
    loaded(&issue(ca, id))
}

pub(crate) fn loaded(issued: &Issued) -> Arc<Identity> {
    Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes(), issued.bundle_pem.as_bytes())
        .expect("an identity")
}
