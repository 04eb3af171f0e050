//! The services that the node calls: followed from their first use on, dropped when long unused.

use std::collections::HashMap;
use std::sync::Arc;

use eastway_core::view::ServiceView;
use eastway_core::{Reason, ServiceName, Timestamp};
use eastway_registry::facts::ServiceFacts;
use parking_lot::Mutex;
use prost::Message;
use serde_json::Value;
use tokio::sync::watch;

use super::DiscoveryOptions;
use super::kind::{Common, Kind, Unreadable};
use super::subscription::Subscription;
use crate::convert;

pub(super) struct Services {
    common: Arc<Common>,
    options: DiscoveryOptions,
    followed: Mutex<HashMap<ServiceName, Followed>>,
}

struct Followed {
    subscription: Subscription,
    answer: watch::Sender<Answer>,
}

/// What the gateways have said of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Pending,
    Known,
    Unknown,
}

impl Services {
    pub(super) fn new(common: Arc<Common>, options: DiscoveryOptions) -> Arc<Self> {
        Arc::new(Self { common, options, followed: Mutex::default() })
    }

    /// What is known at once; `None` if a gateway has to be asked. Counts as use.
    pub(super) fn look_up(&self, name: &ServiceName) -> Option<Result<Arc<ServiceView>, Reason>> {
        let now = self.common.clock.now();
        let mut followed = self.followed.lock();
        let subscription = &mut followed.get_mut(name)?.subscription;
        subscription.used(now);
        if let Some(view) = subscription.view(now) {
            return Some(Ok(Arc::new(view)));
        }
        subscription.is_unknown().then_some(Err(Reason::UnknownService))
    }

    /// Follows the service, if it is not followed already; what is returned tells what the gateways say of it.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] if too many are followed.
    pub(super) fn want(&self, name: &ServiceName) -> Result<watch::Receiver<Answer>, Reason> {
        let mut all = self.followed.lock();
        if let Some(followed) = all.get(name) {
            return Ok(followed.answer.subscribe());
        }
        if all.len() >= self.options.max_subscriptions {
            return Err(Reason::Overloaded);
        }
        let subscription = Subscription::new(self.common.clock.now());
        let (answer, answered) = watch::channel(Answer::Pending);
        all.insert(name.clone(), Followed { subscription, answer });
        drop(all);
        let name = name.to_string();
        self.common.start(convert::SERVICE, &name);
        self.common.start(convert::LOAD, &name);
        Ok(answered)
    }

    /// The service is in use.
    pub(super) fn touch(&self, name: &ServiceName) {
        if let Some(followed) = self.followed.lock().get_mut(name) {
            followed.subscription.used(self.common.clock.now());
        }
    }

    /// How many are followed, and how many of them are known.
    pub(super) fn count(&self) -> (usize, usize) {
        let all = self.followed.lock();
        (all.len(), all.values().filter(|followed| followed.subscription.is_known()).count())
    }

    /// Changes what is known of a service, tells the sink, then whoever waits.
    fn change(&self, name: &ServiceName, now: Timestamp, change: impl FnOnce(&mut Subscription)) {
        if let Some(view) = self.take(name, now, change) {
            self.publish(name, view);
        }
    }

    /// Changes what is known of a service, and answers how callers see it then; `None` if it is not followed.
    fn take(
        &self,
        name: &ServiceName,
        now: Timestamp,
        change: impl FnOnce(&mut Subscription),
    ) -> Option<Option<ServiceView>> {
        let mut all = self.followed.lock();
        let followed = all.get_mut(name)?;
        change(&mut followed.subscription);
        Some(followed.subscription.view(now))
    }

    fn publish(&self, name: &ServiceName, view: Option<ServiceView>) {
        self.common.touch();
        let answer = match view {
            Some(view) => {
                self.common.sink.service(&Arc::new(view));
                Answer::Known
            }
            None => {
                self.common.sink.unknown(name);
                Answer::Unknown
            }
        };
        if let Some(followed) = self.followed.lock().get(name) {
            followed.answer.send_replace(answer);
        }
    }
}

impl Kind for Services {
    fn word(&self) -> &'static str {
        convert::SERVICE
    }

    fn followed(&self) -> Vec<String> {
        self.followed.lock().keys().map(ToString::to_string).collect()
    }

    fn follows(&self, name: &str) -> bool {
        convert::service_name(name).is_ok_and(|name| self.followed.lock().contains_key(&name))
    }

    fn snapshot(&self, name: &str, body: &[u8], now: Timestamp) -> Result<(), Unreadable> {
        let name = convert::service_name(name)?;
        let facts = convert::facts_from_wire(name.clone(), Message::decode(body)?, now)?;
        self.change(&name, now, |subscription| subscription.snapshot(facts, now, self.options.hold));
        Ok(())
    }

    fn delta(&self, name: &str, body: &[u8], now: Timestamp) -> Result<(), Unreadable> {
        let delta = convert::delta_from_wire(Message::decode(body)?, now)?;
        let name = convert::service_name(name)?;
        let alone = delta.endpoints_alone().map(<[_]>::to_vec);
        let view = self.take(&name, now, |subscription| subscription.delta(delta));
        match (view.flatten(), alone) {
            (Some(view), Some(endpoints)) => {
                self.common.touch();
                self.common.sink.endpoints(&Arc::new(view), &endpoints);
            }
            (view, _) => self.publish(&name, view),
        }
        Ok(())
    }

    fn removed(&self, name: &str, now: Timestamp) {
        if let Ok(name) = convert::service_name(name) {
            self.change(&name, now, |subscription| subscription.unknown(now, self.options.hold));
        }
    }

    fn disconnected(&self) {
        self.followed.lock().values_mut().for_each(|followed| followed.subscription.disconnected());
    }

    /// Ends holds, and drops what is unused.
    fn tick(&self, now: Timestamp) {
        let (mut changed, mut dropped) = (Vec::new(), Vec::new());
        self.followed.lock().retain(|name, Followed { subscription, .. }| {
            if subscription.tick(now) {
                changed.push((name.clone(), subscription.view(now)));
            }
            let over = subscription.is_over(now, self.options.unused_after, self.options.negative_ttl);
            if over {
                dropped.push(name.clone());
            }
            !over
        });
        for (name, view) in changed {
            self.publish(&name, view);
        }
        for name in dropped {
            self.common.touch();
            let text = name.to_string();
            self.common.stop(convert::SERVICE, &text);
            self.common.stop(convert::LOAD, &text);
            self.common.sink.unused(&name);
        }
    }

    fn kept(&self, now: Timestamp) -> Vec<(String, Value)> {
        let all = self.followed.lock();
        let kept = |(name, followed): (&ServiceName, &Followed)| {
            let view = followed.subscription.view(now)?;
            Some((name.to_string(), serde_json::to_value(view).ok()?))
        };
        all.iter().filter_map(kept).collect()
    }

    fn restore(&self, _name: &str, kept: Value, now: Timestamp) -> Result<(), Unreadable> {
        let mut view: ServiceView = serde_json::from_value(kept)?;
        // Nobody knows how long ago the view was current: what returned then is no news now.
        view.returned.clear();
        view.remote.iter_mut().for_each(|zone| zone.summary.returned_ago = None);
        let name = view.name.clone();
        let subscription = Subscription::restored(ServiceFacts::from_view(view, now), now);
        let view = subscription.view(now);
        {
            let mut all = self.followed.lock();
            if all.len() >= self.options.max_subscriptions {
                return Ok(());
            }
            all.insert(name.clone(), Followed { subscription, answer: watch::Sender::new(Answer::Known) });
        }
        self.publish(&name, view);
        Ok(())
    }
}
