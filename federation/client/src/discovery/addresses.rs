//! The virtual addresses of names: followed from their first use on, until the node says that nobody uses them any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::{MeshHost, Reason, Timestamp};
use eastway_proto::discovery::v1::VirtualAddress;
use parking_lot::Mutex;
use prost::Message;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use super::kind::{Common, Kind, Unreadable};
use crate::convert;

/// A name whose number does not come is asked for again after so long: the gateway may not have known its service yet.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Addresses {
    common: Arc<Common>,
    most: usize,
    followed: Mutex<HashMap<MeshHost, Followed>>,
}

struct Followed {
    number: watch::Sender<Option<u32>>,
    asked: Timestamp,
}

impl Addresses {
    /// None yet, and never more than `most`.
    pub(super) fn new(common: Arc<Common>, most: usize) -> Arc<Self> {
        Arc::new(Self { common, most, followed: Mutex::default() })
    }

    /// The number of the name; at its first use, waits for a gateway to say for as long as `patience`.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] if too many names are followed, [`Reason::DiscoveryTimeout`].
    pub(super) async fn number(&self, host: &MeshHost, patience: Duration) -> Result<u32, Reason> {
        let mut number = self.follow(host)?;
        let told = timeout(patience, number.wait_for(Option::is_some)).await;
        told.ok().and_then(|told| *told.ok()?).ok_or(Reason::DiscoveryTimeout)
    }

    fn follow(&self, host: &MeshHost) -> Result<watch::Receiver<Option<u32>>, Reason> {
        let now = self.common.clock.now();
        let mut all = self.followed.lock();
        if let Some(followed) = all.get_mut(host) {
            if followed.number.borrow().is_none() && now.since(followed.asked) >= ASKED_AGAIN {
                followed.asked = now;
                self.common.stop(convert::ADDRESS, &host.to_string());
                self.common.start(convert::ADDRESS, &host.to_string());
            }
            return Ok(followed.number.subscribe());
        }
        if all.len() >= self.most {
            return Err(Reason::Overloaded);
        }
        let (number, told) = watch::channel(None);
        all.insert(host.clone(), Followed { number, asked: now });
        drop(all);
        self.common.start(convert::ADDRESS, &host.to_string());
        Ok(told)
    }

    /// Nobody uses the name here any more.
    pub(super) fn release(&self, host: &MeshHost) {
        if self.followed.lock().remove(host).is_some() {
            self.common.touch();
            self.common.stop(convert::ADDRESS, &host.to_string());
        }
    }

    /// The names that have a number.
    pub(super) fn known(&self) -> Vec<(MeshHost, u32)> {
        let known = |(host, followed): (&MeshHost, &Followed)| Some((host.clone(), (*followed.number.borrow())?));
        self.followed.lock().iter().filter_map(known).collect()
    }

    /// Takes over a number. True if that is news.
    fn learn(&self, host: &MeshHost, number: u32) -> bool {
        let all = self.followed.lock();
        let Some(followed) = all.get(host) else { return false };
        followed.number.send_if_modified(|known| known.replace(number) != Some(number))
    }
}

impl Kind for Addresses {
    fn word(&self) -> &'static str {
        convert::ADDRESS
    }

    fn followed(&self) -> Vec<String> {
        self.followed.lock().keys().map(ToString::to_string).collect()
    }

    fn follows(&self, name: &str) -> bool {
        name.parse().is_ok_and(|host: MeshHost| self.followed.lock().contains_key(&host))
    }

    fn snapshot(&self, name: &str, body: &[u8], _now: Timestamp) -> Result<(), Unreadable> {
        let VirtualAddress { number } = Message::decode(body)?;
        if let Ok(host) = name.parse()
            && self.learn(&host, number)
        {
            self.common.touch();
        }
        Ok(())
    }

    // Clients may have looked it up once and for all: what is known stays.
    fn removed(&self, _name: &str, _now: Timestamp) {}

    fn kept(&self, _now: Timestamp) -> Vec<(String, Value)> {
        self.known().into_iter().map(|(host, number)| (host.to_string(), number.into())).collect()
    }

    fn restore(&self, name: &str, kept: Value, now: Timestamp) -> Result<(), Unreadable> {
        let number = serde_json::from_value(kept)?;
        let Ok(host) = name.parse::<MeshHost>() else { return Ok(()) };
        let mut all = self.followed.lock();
        if all.len() < self.most {
            all.insert(host, Followed { number: watch::Sender::new(Some(number)), asked: now });
        }
        Ok(())
    }
}
