//! The recent changes of the embedded store, in memory: what watches are fed from.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::{Event, Revision};

/// The most changes that are kept.
const MAX_EVENTS: usize = 16_384;

/// The most bytes of values that are kept.
const MAX_BYTES: usize = 16 << 20;

/// The most events that one look yields.
const BATCH: usize = 256;

/// A bounded history. Its end is announced to the watches that wait for more.
#[derive(Debug)]
pub(super) struct History {
    recent: Mutex<Recent>,
    last: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Recent {
    /// Everything after this revision is here.
    floor: Revision,
    last: Revision,
    events: VecDeque<Event>,
    bytes: usize,
}

/// What was found after a position.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The position after it.
    pub(super) revision: Revision,
    /// The events under the prefix, in order.
    pub(super) events: Vec<Event>,
    /// Whether to look again at once.
    pub(super) more: bool,
}

impl History {
    /// A history that begins after `revision`.
    pub(super) fn new(revision: Revision) -> Self {
        let recent = Recent { floor: revision, last: revision, events: VecDeque::new(), bytes: 0 };
        Self { recent: Mutex::new(recent), last: watch::channel(revision).0 }
    }

    /// Wakes when there is more.
    pub(super) fn subscribe(&self) -> watch::Receiver<Revision> {
        self.last.subscribe()
    }

    /// Appends the events of one revision.
    pub(super) fn publish(&self, events: Vec<Event>) {
        let Some(revision) = events.first().map(Event::revision) else { return };
        let mut recent = self.recent.lock();
        recent.last = revision;
        for event in events {
            recent.bytes += size(&event);
            recent.events.push_back(event);
        }
        recent.trim();
        drop(recent);
        self.last.send_replace(revision);
    }

    /// The file was opened anew and is at `revision`: what lies in between is not known here, so that watches begin anew.
    /// False if it is behind what was published, and so acknowledged.
    pub(super) fn resume(&self, revision: Revision) -> bool {
        let mut recent = self.recent.lock();
        if revision > recent.last {
            *recent = Recent { floor: revision, last: revision, events: VecDeque::new(), bytes: 0 };
            self.last.send_replace(revision);
        }
        revision >= recent.last
    }

    /// What happened under `prefix` after `position`; `None` if that is no longer known.
    pub(super) fn after(&self, position: Revision, prefix: &str) -> Option<Batch> {
        let recent = self.recent.lock();
        if position < recent.floor || position > recent.last {
            return None;
        }
        let start = recent.events.partition_point(|event| event.revision() <= position);
        let mut events = Vec::new();
        for event in recent.events.range(start..) {
            // Only whole revisions: the position cannot point into one.
            if events.len() >= BATCH && events.last().map(Event::revision) != Some(event.revision()) {
                let revision = events.last().map_or(position, Event::revision);
                return Some(Batch { revision, events, more: true });
            }
            if key(event).starts_with(prefix) {
                events.push(event.clone());
            }
        }
        Some(Batch { revision: recent.last, events, more: false })
    }
}

impl Recent {
    /// Drops the oldest revisions, each as a whole, until the bounds hold.
    fn trim(&mut self) {
        while self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.events.front().map(Event::revision) else { return };
            if oldest == self.last {
                return;
            }
            while self.events.front().is_some_and(|event| event.revision() == oldest) {
                if let Some(event) = self.events.pop_front() {
                    self.bytes -= size(&event);
                }
            }
            self.floor = oldest;
        }
    }
}

fn key(event: &Event) -> &str {
    match event {
        Event::Put(entry) => &entry.key,
        Event::Delete { key, .. } => key,
        Event::Reset(_) => "",
    }
}

fn size(event: &Event) -> usize {
    match event {
        Event::Put(entry) => entry.key.len() + entry.value.len(),
        Event::Delete { key, .. } => key.len(),
        Event::Reset(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreEntry;

    fn put(key: &str, revision: Revision, bytes: usize) -> Event {
        Event::Put(StoreEntry { key: key.to_owned(), value: vec![0; bytes].into(), revision, lease: None })
    }

    #[test]
    fn positions_before_the_beginning_and_after_the_end_are_unknown() {
        let history = History::new(7);
        assert_eq!(history.after(6, ""), None);
        assert_eq!(history.after(8, ""), None);
        assert_eq!(history.after(7, ""), Some(Batch { revision: 7, events: vec![], more: false }));
        history.publish(vec![put("a", 8, 1), put("b", 8, 1)]);
        history.publish(vec![put("a", 9, 1)]);
        let batch = history.after(7, "a").expect("known");
        assert_eq!(batch, Batch { revision: 9, events: vec![put("a", 8, 1), put("a", 9, 1)], more: false });
    }

    #[test]
    fn a_history_resumes_at_what_it_does_not_know_and_never_before_what_was_published() {
        let history = History::new(7);
        history.publish(vec![put("a", 8, 1)]);
        assert!(history.resume(8));
        assert!(history.after(7, "").is_some(), "nothing was missed");
        assert!(history.resume(9));
        assert_eq!(history.after(8, ""), None);
        assert_eq!(history.after(9, ""), Some(Batch { revision: 9, events: vec![], more: false }));
        assert!(!history.resume(8));
    }

    #[test]
    fn batches_end_between_revisions() {
        let history = History::new(0);
        for revision in 1..=3 {
            history.publish((0..200).map(|i| put(&format!("k{i}"), revision, 1)).collect());
        }
        let first = history.after(0, "k").expect("known");
        assert_eq!((first.revision, first.events.len(), first.more), (2, 400, true));
        let second = history.after(first.revision, "k").expect("known");
        assert_eq!((second.revision, second.events.len(), second.more), (3, 200, false));
    }

    #[test]
    fn the_history_is_bounded_by_count_and_by_bytes() {
        let history = History::new(0);
        for revision in 1..=(MAX_EVENTS as u64 + 10) {
            history.publish(vec![put("a", revision, 1)]);
        }
        assert_eq!(history.after(9, "a"), None);
        assert!(history.after(10, "a").is_some());
        let history = History::new(0);
        for revision in 1..=20 {
            history.publish(vec![put("a", revision, 1 << 20)]);
        }
        assert_eq!(history.after(3, "a"), None);
        assert!(history.recent.lock().bytes <= MAX_BYTES);
    }
}
