//! Phase 1: which service does the request name?

use std::rc::Rc;

use eastway_core::{Authority, AuthorityError, Reason};
use eastway_http::reserved::MESH_PREFIX;
use eastway_http::{Body, Edits, Head};
use http::Request;

use crate::worker::Worker;

/// Reads the authority, and takes out what outsiders must not say.
///
/// # Errors
/// [`Reason::ForeignHost`] or [`Reason::BadHost`].
pub(super) fn identify(worker: &Rc<Worker>, request: &mut Request<Body>) -> Result<Authority, Reason> {
    let (mut parts, body) = std::mem::take(request).into_parts();
    let target = target(&Head::of(&parts), &worker.node.config.suffix);
    let mut edits = Edits::new();
    // Only nodes of the mesh set these: an application's own are not believed.
    edits.drop_prefix(MESH_PREFIX);
    edits.apply(&mut parts.headers);
    *request = Request::from_parts(parts, body);
    target
}

fn target(head: &Head<'_>, suffix: &str) -> Result<Authority, Reason> {
    Authority::parse(head.authority, suffix).map_err(|error| match error {
        AuthorityError::Foreign(_) => Reason::ForeignHost,
        AuthorityError::Malformed(_) => Reason::BadHost,
    })
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    fn head(authority: &str) -> Head<'_> {
        Head::raw("GET", "/", authority, Version::HTTP_11, &[])
    }

    #[test]
    fn mesh_names_are_told_from_foreign_and_broken_ones() {
        let suffix = "mesh.internal";
        assert!(target(&head("payments.shop.mesh.internal:80"), suffix).is_ok());
        assert_eq!(target(&head("example.com"), suffix), Err(Reason::ForeignHost));
        assert_eq!(target(&head("payments.mesh.internal"), suffix), Err(Reason::BadHost));
    }
}
