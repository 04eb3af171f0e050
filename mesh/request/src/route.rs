//! Routes: which requests to a service pass which filters.
//!
//! A service has one route for all of its requests, without filters, unless somebody says otherwise.

use std::sync::Arc;

use eastway_core::head::RequestHead;

use crate::filter::Filter;
use crate::request_match::RequestMatch;

/// The routes of a service, the first that matches counts.
#[derive(Clone, Debug)]
pub struct RouteTable(Vec<Arc<Route>>);

/// What happens to the requests that match.
#[derive(Debug, Default)]
pub struct Route {
    /// What a request must be like, any of these; empty for every request.
    pub matches: Vec<RequestMatch>,
    /// What it passes, in order; its answer passes the same in reverse.
    pub filters: Vec<Filter>,
}

impl RouteTable {
    /// These routes, in order.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        Self(routes.into_iter().map(Arc::new).collect())
    }

    /// The route of a request; `None` if no route is for it.
    pub fn find(&self, head: &RequestHead<'_>) -> Option<&Arc<Route>> {
        self.0.iter().find(|route| route.is_for(head))
    }
}

impl Default for RouteTable {
    fn default() -> Self {
        Self::new([Route::default()])
    }
}

impl Route {
    fn is_for(&self, head: &RequestHead<'_>) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|wanted| wanted.holds(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::head;

    #[test]
    fn the_first_route_that_matches_counts_and_all_that_a_match_gives_must_hold() {
        let cart = RequestMatch {
            path_prefix: Some("/cart".to_owned()),
            method: Some("GET".to_owned()),
            headers: vec![("x-user".to_owned(), "test".to_owned())],
        };
        let table = RouteTable::new([Route { matches: vec![cart], filters: Vec::new() }, Route::default()]);
        let place = |method, target, fields: &[(&str, &[u8])]| {
            let fields = &fields;
            let found = table.find(&head(method, target, fields)).expect("the last one is for all");
            table.0.iter().position(|route| Arc::ptr_eq(route, found))
        };
        let test: &[(&str, &[u8])] = &[("X-User", b"test")];
        assert_eq!(place("GET", "/cart/1?a=b", test), Some(0));
        assert_eq!(place("POST", "/cart/1", test), Some(1));
        assert_eq!(place("GET", "/cart/1", &[]), Some(1));
        assert_eq!(place("GET", "/", test), Some(1));
        let narrow = RouteTable::new([Route { matches: vec![RequestMatch::default()], filters: Vec::new() }]);
        assert!(narrow.find(&head("GET", "/", &())).is_some(), "an empty match holds for all");
        assert!(RouteTable::new([]).find(&head("GET", "/", &())).is_none());
    }
}
