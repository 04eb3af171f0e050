//! Phase 1: which service does the request name?

use eastway_core::head::RequestHead;
use eastway_core::{Authority, AuthorityError, Reason};

/// The name that the request is for.
///
/// # Errors
/// [`Reason::ForeignHost`] or [`Reason::BadHost`].
pub(super) fn target(head: &RequestHead<'_>, suffix: &str) -> Result<Authority, Reason> {
    Authority::parse(head.authority, suffix).map_err(|error| match error {
        AuthorityError::Foreign(_) => Reason::ForeignHost,
        AuthorityError::Malformed(_) => Reason::BadHost,
    })
}
