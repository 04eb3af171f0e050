//! What the HTTP/2 library says below an error of hyper.

use std::error::Error;

/// The error of the HTTP/2 library that caused `error`, if one did.
pub(crate) fn find_h2(error: &hyper::Error) -> Option<&h2::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref() {
            return Some(h2);
        }
        cause = error.source();
    }
    None
}
