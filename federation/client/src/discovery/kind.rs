//! What a node follows, by kind: each kind is a file beside this one that says what its updates mean, and a line in
//! [`super::Kinds`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eastway_core::Timestamp;
use eastway_proto::discovery::v1::{SubscribeRequest, Topic};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::convert::ConvertError;
use crate::sink::Sink;

/// A kind of what is followed. Everything that comes of a name comes in order; before the first update of a stream nothing
/// is known of what changed since the last one.
pub(super) trait Kind: Send + Sync {
    /// Its word on the wire and on disk.
    fn word(&self) -> &'static str;

    /// The names that are followed.
    fn followed(&self) -> Vec<String>;

    /// Whether `name` is followed: what comes of others is passed over, because the gateway has not heard of it yet.
    fn follows(&self, name: &str) -> bool;

    /// The gateway stated all of it.
    fn snapshot(&self, name: &str, body: &[u8], now: Timestamp) -> Result<(), Unreadable>;

    /// The gateway stated a difference to what it stated before on this stream. Most kinds are told as a whole only.
    fn delta(&self, _name: &str, _body: &[u8], _now: Timestamp) -> Result<(), Unreadable> {
        Err(Unreadable::Whole)
    }

    /// The gateway stated that there is none.
    fn removed(&self, name: &str, now: Timestamp);

    /// The stream ended; the next one, perhaps to another gateway, starts from snapshots.
    fn disconnected(&self) {}

    /// Time passes.
    fn tick(&self, _now: Timestamp) {}

    /// What is kept on disk of it, by name.
    fn kept(&self, now: Timestamp) -> Vec<(String, Value)>;

    /// Takes over what was kept. Called before anything else.
    fn restore(&self, name: &str, kept: Value, now: Timestamp) -> Result<(), Unreadable>;
}

/// An update whose bytes are not what its kind says.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it is no message of this kind")]
    Message(#[from] prost::DecodeError),
    #[error("a field is wrong")]
    Field(#[from] ConvertError),
    #[error("what was kept is not readable")]
    Kept(#[from] serde_json::Error),
    #[error("this kind is told as a whole only")]
    Whole,
}

/// What the kinds share.
pub(super) struct Common {
    pub(super) clock: Clock,
    pub(super) sink: Arc<dyn Sink>,
    asks: Mutex<SubscribeRequest>,
    /// There is something to ask the gateway for.
    pub(super) wake: Notify,
    /// What is kept on disk is out of date.
    dirty: AtomicBool,
}

impl Common {
    pub(super) fn new(sink: Arc<dyn Sink>) -> Arc<Self> {
        let asks = Mutex::default();
        Arc::new(Self { clock: Clock::start(), sink, asks, wake: Notify::new(), dirty: AtomicBool::new(false) })
    }

    /// The gateway is to be asked for `name`.
    pub(super) fn start(&self, kind: &str, name: &str) {
        self.asks.lock().start.push(topic(kind, name));
        self.wake.notify_one();
    }

    /// The gateway need not say any more of `name`.
    pub(super) fn stop(&self, kind: &str, name: &str) {
        let mut asks = self.asks.lock();
        asks.start.retain(|topic| topic.kind != kind || topic.name != name);
        asks.stop.push(topic(kind, name));
        self.wake.notify_one();
    }

    /// What to ask the gateway for. It counts as asked then.
    pub(super) fn take_asks(&self) -> SubscribeRequest {
        std::mem::take(&mut *self.asks.lock())
    }

    /// What is kept on disk changed.
    pub(super) fn touch(&self) {
        self.dirty.store(true, Ordering::Relaxed);
    }

    /// Whether what is kept changed since this was asked last.
    pub(super) fn take_touched(&self) -> bool {
        self.dirty.swap(false, Ordering::Relaxed)
    }
}

pub(super) fn topic(kind: &str, name: &str) -> Topic {
    Topic { kind: kind.to_owned(), name: name.to_owned() }
}
