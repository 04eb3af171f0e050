//! What the node holds callers of the service to that its workload serves.

use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::InboundRules;
use eastway_core::{Reason, ServiceName, Timestamp};
use prost::Message;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use super::kind::{Common, Kind, Unreadable};
use crate::convert;

/// Of one service, or of none.
pub(super) struct Served {
    common: Arc<Common>,
    service: Option<ServiceName>,
    rules: watch::Sender<Option<Arc<InboundRules>>>,
}

impl Served {
    pub(super) fn new(common: Arc<Common>, service: Option<ServiceName>) -> Arc<Self> {
        Arc::new(Self { common, service, rules: watch::Sender::new(None) })
    }

    /// The rules; before a gateway has said so for the first time, waits for as long as `patience`.
    pub(super) async fn rules(&self, patience: Duration) -> Result<Arc<InboundRules>, Reason> {
        if let Some(rules) = &*self.rules.borrow() {
            return Ok(Arc::clone(rules));
        }
        let mut rules = self.rules.subscribe();
        let said = timeout(patience, rules.wait_for(Option::is_some)).await;
        said.ok().and_then(|said| said.ok()?.clone()).ok_or(Reason::DiscoveryTimeout)
    }
}

impl Kind for Served {
    fn word(&self) -> &'static str {
        convert::SERVED
    }

    fn followed(&self) -> Vec<String> {
        self.service.iter().map(ToString::to_string).collect()
    }

    fn follows(&self, name: &str) -> bool {
        self.service.as_ref().is_some_and(|service| service.to_string() == name)
    }

    fn snapshot(&self, _name: &str, body: &[u8], _now: Timestamp) -> Result<(), Unreadable> {
        self.rules.send_replace(Some(Arc::new(convert::inbound_from_wire(Message::decode(body)?)?)));
        self.common.touch();
        Ok(())
    }

    // What a gateway that knows nothing yet says takes nothing away.
    fn removed(&self, _name: &str, _now: Timestamp) {}

    fn kept(&self, _now: Timestamp) -> Vec<(String, Value)> {
        let kept = self.rules.borrow().as_ref().and_then(|rules| serde_json::to_value(&**rules).ok());
        self.followed().into_iter().zip(kept).collect()
    }

    fn restore(&self, name: &str, kept: Value, _now: Timestamp) -> Result<(), Unreadable> {
        if self.follows(name) {
            self.rules.send_replace(Some(Arc::new(serde_json::from_value(kept)?)));
        }
        Ok(())
    }
}
