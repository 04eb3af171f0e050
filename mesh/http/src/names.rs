//! Names of fields that mean something to a hop.

use eastway_core::head::{MESH_PREFIX, folds_onto};
use http::HeaderMap;
use http::header::HeaderName;

/// The fields that concern one connection only, whether or not `Connection` names them. `te` is treated apart.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "transfer-encoding",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "http2-settings",
    "proxy-authorization",
    "proxy-authenticate",
];

/// Whether `name` (any case) is stripped at every hop.
pub fn is_hop_by_hop(name: impl AsRef<[u8]>) -> bool {
    let name = name.as_ref();
    // Looked at for each field of each head: most are ruled out by their length.
    matches!(name.len(), 7 | 10 | 14 | 16..=19) && is_any(name, &HOP_BY_HOP)
}

/// Removes from trailers what would change how the message is framed or routed, and what only nodes of the mesh say:
/// they say it in heads, so that in trailers it is always somebody else's.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    let gone: Vec<HeaderName> = trailers.keys().filter(|name| is_dropped_trailer(name)).cloned().collect();
    for name in gone {
        trailers.remove(name);
    }
}

/// Whether a trailer of this name (any case) would change how the message is framed or whom it is for: a reader that
/// believes it sees another message, so the message is refused where that is still possible.
pub fn is_forbidden_trailer(name: impl AsRef<[u8]>) -> bool {
    is_any(name.as_ref(), &["content-length", "transfer-encoding", "host"])
}

/// Whether a trailer of this name (any case) goes no further: what concerns one hop only, and what only nodes of the mesh
/// say in heads.
pub fn is_dropped_trailer(name: impl AsRef<[u8]>) -> bool {
    let name = name.as_ref();
    let hop = is_hop_by_hop(name) || is_any(name, &["te", "trailer"]);
    hop || is_forbidden_trailer(name) || folds_onto(name, MESH_PREFIX)
}

/// Whether it is one of those, in any case.
pub(crate) fn is_any(name: &[u8], known: &[&str]) -> bool {
    known.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}
