//! What one stream has yet to hear: a set, not a queue, so that it is bounded by what the stream follows.

use std::collections::{BTreeSet, HashSet};

use eastway_core::{MeshHost, ServiceName};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::topic::Topic;

/// News for one follower.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    /// Of a sidecar, which calls what it follows.
    calls: bool,
    news: Mutex<News>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct News {
    wanted: HashSet<Topic>,
    waiting: BTreeSet<Topic>,
}

impl Feed {
    /// That of a sidecar; by default, it is the gateway's own, which follows what others call here.
    pub(crate) fn of_sidecar() -> Self {
        Self { calls: true, ..Self::default() }
    }

    /// Follows a topic, starting with all of it. False if it was followed already.
    pub(crate) fn want(&self, topic: Topic) -> bool {
        let fresh = self.expect(topic.clone());
        if fresh {
            self.publish([&topic]);
        }
        fresh
    }

    /// The same, but starting with the next news of it. Whoever calls this publishes it in time.
    pub(crate) fn expect(&self, topic: Topic) -> bool {
        self.news.lock().wanted.insert(topic)
    }

    /// No longer follows a topic.
    pub(crate) fn unwant(&self, topic: &Topic) {
        let mut news = self.news.lock();
        news.wanted.remove(topic);
        news.waiting.remove(topic);
    }

    /// How much is followed by name.
    pub(crate) fn wanted(&self) -> usize {
        self.news.lock().wanted.len()
    }

    /// The services that are followed to be called.
    pub(crate) fn called(&self) -> Vec<ServiceName> {
        if !self.calls {
            return Vec::new();
        }
        self.followed(|topic| match topic {
            Topic::Service(name) => Some(name.clone()),
            _ => None,
        })
    }

    /// The names whose virtual addresses are followed.
    pub(crate) fn addressed(&self) -> Vec<MeshHost> {
        self.followed(|topic| match topic {
            Topic::Address(host) => Some(host.clone()),
            _ => None,
        })
    }

    fn followed<T>(&self, of: impl Fn(&Topic) -> Option<T>) -> Vec<T> {
        self.news.lock().wanted.iter().filter_map(of).collect()
    }

    /// There is news of `topics`; those that are not followed are passed over.
    pub(crate) fn publish<'a>(&self, topics: impl IntoIterator<Item = &'a Topic>) {
        let mut news = self.news.lock();
        let News { wanted, waiting } = &mut *news;
        waiting.extend(topics.into_iter().filter(|topic| wanted.contains(*topic)).cloned());
        if !waiting.is_empty() {
            self.arrived.notify_one();
        }
    }

    /// There may be news of all declared resources that are followed.
    pub(crate) fn publish_declared(&self) {
        let declared = |topic: &&Topic| matches!(topic, Topic::Declared { .. });
        let topics: Vec<_> = self.news.lock().wanted.iter().filter(declared).cloned().collect();
        self.publish(&topics);
    }

    /// The next thing to hear about.
    pub(crate) fn next(&self) -> Option<Topic> {
        self.news.lock().waiting.pop_first()
    }

    /// Waits for news.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(name: &str) -> [Topic; 3] {
        Topic::of_service(&ServiceName::new("shop", name))
    }

    fn heard(feed: &Feed) -> Vec<Topic> {
        std::iter::from_fn(|| feed.next()).collect()
    }

    #[test]
    fn however_often_something_changes_it_is_heard_once() {
        let feed = Feed::default();
        let [_, service, loads] = topics("a");
        assert!(feed.want(service.clone()) && feed.want(loads.clone()) && feed.want(Topic::Mesh));
        assert!(!feed.want(service.clone()));
        for _ in 0..1000 {
            feed.publish(topics("a").iter().chain(&topics("b")).chain([&Topic::Mesh]));
        }
        assert_eq!(heard(&feed), [Topic::Mesh, service, loads]);
    }

    #[test]
    fn what_is_no_longer_wanted_is_not_heard() {
        let feed = Feed::default();
        let [_, service, _] = topics("a");
        feed.want(service.clone());
        feed.unwant(&service);
        feed.publish(&topics("a"));
        assert_eq!(heard(&feed), []);
    }

    #[test]
    fn declared_resources_are_heard_of_by_those_alone_that_follow_them() {
        let feed = Feed::default();
        let declared = Topic::Declared { kind: "Widget".to_owned(), name: Topic::ALL.to_owned() };
        feed.want(declared.clone());
        feed.want(Topic::Mesh);
        heard(&feed);
        feed.publish_declared();
        assert_eq!(heard(&feed), [declared]);
    }
}
