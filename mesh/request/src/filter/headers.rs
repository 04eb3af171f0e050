//! Header fields that a route sets, adds or removes.

use eastway_core::head::{Edit, Edits, MESH_PREFIX, folds_onto};

use super::FilterVerdict;

/// Changes of the heads of requests and answers.
#[derive(Clone, Debug, Default)]
pub struct HeaderEdits {
    request: Vec<Edit>,
    response: Vec<Edit>,
}

/// Fields that say where a message ends or for whom it is, or that concern one connection only: they are no route's.
const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-status",
];

/// A route may not change this field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedField(
    /// Its name.
    pub String,
);

impl std::fmt::Display for ReservedField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is no field that a route may change: it belongs to the mesh or to the connection", self.0)
    }
}

impl std::error::Error for ReservedField {}

impl HeaderEdits {
    /// These changes.
    ///
    /// # Errors
    /// [`ReservedField`] if one of them is of a field that belongs to the mesh, or to a message's framing.
    pub fn new(request: Vec<Edit>, response: Vec<Edit>) -> Result<Self, ReservedField> {
        for edit in request.iter().chain(&response) {
            let name: &str = match edit {
                Edit::Drop(name) | Edit::Set(name, _) | Edit::Append(name, _) => name,
                Edit::DropPrefix(prefix) => prefix,
            };
            if FRAMING.contains(&name) || folds_onto(name, MESH_PREFIX) || folds_onto(MESH_PREFIX, name) {
                return Err(ReservedField(name.to_owned()));
            }
        }
        Ok(Self { request, response })
    }

    pub(super) fn request(&self, edits: &mut Edits) -> FilterVerdict {
        edits.extend(&self.request);
        FilterVerdict::Pass
    }

    pub(super) fn response(&self, edits: &mut Edits) {
        edits.extend(&self.response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_changes_its_own_fields_and_not_those_of_the_mesh_or_the_connection() {
        let set = |name: &'static str| vec![Edit::Set(name.into(), "1".into())];
        let edits = HeaderEdits::new(set("x-team"), vec![Edit::Drop("server".into())]).expect("its own");
        let (mut request, mut response) = (Edits::new(), Edits::new());
        assert_eq!(edits.request(&mut request), FilterVerdict::Pass);
        edits.response(&mut response);
        assert_eq!(request.iter().collect::<Vec<_>>(), [&Edit::Set("x-team".into(), "1".into())]);
        assert_eq!(response.iter().collect::<Vec<_>>(), [&Edit::Drop("server".into())]);
        for name in ["eastway-source", "eastway_source", "content-length", "host", "te"] {
            assert_eq!(HeaderEdits::new(set(name), Vec::new()).err(), Some(ReservedField(name.to_owned())));
            assert!(HeaderEdits::new(Vec::new(), set(name)).is_err());
        }
        for prefix in ["east", "eastway-", ""] {
            assert!(HeaderEdits::new(vec![Edit::DropPrefix(prefix)], Vec::new()).is_err(), "{prefix:?}");
        }
        assert!(HeaderEdits::new(vec![Edit::DropPrefix("x-")], Vec::new()).is_ok());
    }
}
