//! What one stream has yet to hear: a set, not a queue, so that it is bounded by what the stream follows.

use std::collections::{BTreeSet, HashSet};

use eastway_core::ServiceName;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// News for one follower.
#[derive(Debug)]
pub(crate) struct Feed {
    all: bool,
    news: Mutex<News>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct News {
    wanted: HashSet<ServiceName>,
    mesh: bool,
    services: BTreeSet<ServiceName>,
    loads: BTreeSet<ServiceName>,
}

/// One thing to hear about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Mesh,
    Service(ServiceName),
    Loads(ServiceName),
}

impl Feed {
    /// A feed that starts with the mesh.
    pub(crate) fn new(all: bool) -> Self {
        let news = News { mesh: true, ..News::default() };
        Self { all, news: Mutex::new(news), arrived: Notify::new() }
    }

    /// Follows a service, starting with all of it. False if it was followed already.
    pub(crate) fn want(&self, name: &ServiceName) -> bool {
        let mut news = self.news.lock();
        let fresh = news.wanted.insert(name.clone());
        if fresh {
            news.services.insert(name.clone());
            self.arrived.notify_one();
        }
        fresh
    }

    /// No longer follows a service.
    pub(crate) fn unwant(&self, name: &ServiceName) {
        let mut news = self.news.lock();
        news.wanted.remove(name);
        news.services.remove(name);
        news.loads.remove(name);
    }

    /// How many services are followed by name.
    pub(crate) fn wanted(&self) -> usize {
        self.news.lock().wanted.len()
    }

    pub(crate) fn publish(&self, mesh: bool, services: &BTreeSet<ServiceName>) {
        let mut news = self.news.lock();
        news.mesh |= mesh;
        let News { wanted, services: pending, .. } = &mut *news;
        pending.extend(services.iter().filter(|name| self.all || wanted.contains(name)).cloned());
        if mesh || !pending.is_empty() {
            self.arrived.notify_one();
        }
    }

    pub(crate) fn publish_loads(&self, services: &BTreeSet<ServiceName>) {
        let mut news = self.news.lock();
        let News { wanted, loads, .. } = &mut *news;
        loads.extend(services.iter().filter(|name| self.all || wanted.contains(name)).cloned());
        if !loads.is_empty() {
            self.arrived.notify_one();
        }
    }

    /// There is more to hear of a service that is followed.
    pub(crate) fn add(&self, name: &ServiceName) {
        let mut news = self.news.lock();
        if self.all || news.wanted.contains(name) {
            news.services.insert(name.clone());
            self.arrived.notify_one();
        }
    }

    /// There are loads to hear of a service that was just introduced.
    pub(crate) fn add_loads(&self, name: &ServiceName) {
        self.news.lock().loads.insert(name.clone());
        self.arrived.notify_one();
    }

    /// The next thing to hear about: the mesh first, loads last.
    pub(crate) fn next(&self) -> Option<Item> {
        let mut news = self.news.lock();
        if std::mem::take(&mut news.mesh) {
            return Some(Item::Mesh);
        }
        let service = news.services.pop_first().map(Item::Service);
        service.or_else(|| news.loads.pop_first().map(Item::Loads))
    }

    /// Waits for news.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> ServiceName {
        ServiceName::new("shop", name)
    }

    #[test]
    fn however_often_something_changes_it_is_heard_once() {
        let feed = Feed::new(false);
        assert!(feed.want(&service("a")));
        assert!(!feed.want(&service("a")));
        for _ in 0..1000 {
            feed.publish(true, &BTreeSet::from([service("a"), service("b")]));
            feed.publish_loads(&BTreeSet::from([service("a"), service("b")]));
        }
        let heard: Vec<_> = std::iter::from_fn(|| feed.next()).collect();
        assert_eq!(heard, [Item::Mesh, Item::Service(service("a")), Item::Loads(service("a"))]);
    }

    #[test]
    fn what_is_no_longer_wanted_is_not_heard() {
        let feed = Feed::new(false);
        feed.want(&service("a"));
        feed.unwant(&service("a"));
        feed.publish(false, &BTreeSet::from([service("a")]));
        assert_eq!(std::iter::from_fn(|| feed.next()).collect::<Vec<_>>(), [Item::Mesh]);
    }
}
