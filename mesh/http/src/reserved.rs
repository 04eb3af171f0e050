//! Fields that only nodes of the mesh may set, in every spelling that an application could take for them.

use http::header::{HeaderMap, HeaderName};

/// What the names of these fields begin with.
pub const MESH_PREFIX: &str = "eastway-";

/// Whether some reader of `name` (lower-case) could take it for a name that begins with `prefix`: CGI, WSGI and PHP make
/// one variable of all spellings that differ only in what is neither a letter nor a digit.
pub fn folds_onto(name: &str, prefix: &str) -> bool {
    let folded = |(a, b): (u8, u8)| a == b || !(a.is_ascii_alphanumeric() || b.is_ascii_alphanumeric());
    name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(folded)
}

/// Removes all fields whose name [`folds_onto`] `prefix`.
pub fn remove(headers: &mut HeaderMap, prefix: &str) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| folds_onto(name.as_str(), prefix)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_that_servers_fold_onto_the_prefix_is_found_and_no_other() {
        for name in ["eastway-source", "eastway_source", "eastway.source", "eastway!x", "eastway-"] {
            assert!(folds_onto(name, MESH_PREFIX), "{name}");
        }
        for name in ["eastway", "eastways-source", "eastwaysource", "x-eastway-source", "east-way-source"] {
            assert!(!folds_onto(name, MESH_PREFIX), "{name}");
        }
    }
}
