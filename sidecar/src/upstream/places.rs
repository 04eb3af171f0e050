//! How many connections of a worker lead to each endpoint, counted by guards that the connections hold.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::Key;

/// The connections of one worker, by endpoint.
#[derive(Clone, Default)]
pub(super) struct Places(Rc<RefCell<HashMap<Key, u32>>>);

/// One connection; it is counted until this is dropped.
pub(crate) struct ConnectionPermit {
    places: Places,
    key: Key,
}

impl Places {
    /// A place for a connection to `key`, if fewer than `most` are taken.
    pub(super) fn take(&self, key: &Key, most: u32) -> Option<ConnectionPermit> {
        let mut all = self.0.borrow_mut();
        let taken = all.entry(key.clone()).or_default();
        if *taken >= most {
            return None;
        }
        *taken += 1;
        Some(ConnectionPermit { places: self.clone(), key: key.clone() })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut all = self.places.0.borrow_mut();
        if let Some(taken) = all.get_mut(&self.key) {
            *taken -= 1;
            if *taken == 0 {
                all.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use eastway_core::{EndpointId, ServiceName};

    use super::*;

    #[test]
    fn places_come_back_and_each_endpoint_has_its_own() {
        let places = Places::default();
        let key = |name: &str| (ServiceName::new("shop", "payments"), EndpointId::new(name), 1);
        let held: Vec<_> = (0..2).filter_map(|_| places.take(&key("a"), 2)).collect();
        assert!(held.len() == 2 && places.take(&key("a"), 2).is_none());
        assert!(places.take(&key("b"), 2).is_some());
        drop(held);
        assert!(places.take(&key("a"), 1).is_some());
        assert!(places.0.borrow().is_empty(), "nothing is kept of what nobody uses");
    }
}
