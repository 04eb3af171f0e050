//! What requests look like that a route or a filter is for.

use eastway_core::head::RequestHead;

/// What a request must be like; all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMatch {
    /// How its path begins, by whole segments: `/cart` matches `/cart` and `/cart/1`, and not `/cartoon`.
    pub path_prefix: Option<String>,
    /// Its method.
    pub method: Option<String>,
    /// Fields that it must have, with these values. Names are lower-case.
    pub headers: Vec<(String, String)>,
}

impl RequestMatch {
    /// Whether the request is like this.
    pub fn holds(&self, head: &RequestHead<'_>) -> bool {
        self.method.as_deref().is_none_or(|method| method == head.method)
            && self.path_prefix.as_deref().is_none_or(|prefix| is_below(head.path(), prefix))
            && self.headers.iter().all(|(name, value)| head.fields.first(name) == Some(value.as_bytes()))
    }
}

/// Whether `path` is `prefix` or lies below it.
fn is_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_with_a_segment() {
        for (path, prefix, below) in [
            ("/cart", "/cart", true),
            ("/cart/1", "/cart", true),
            ("/cart/", "/cart/", true),
            ("/cart", "/cart/", true),
            ("/cartoon", "/cart", false),
            ("/", "/", true),
            ("/a", "/", true),
            ("/b", "/a", false),
        ] {
            assert_eq!(is_below(path, prefix), below, "{path} {prefix}");
        }
    }
}
