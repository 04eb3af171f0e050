//! What the endpoints of the services that are followed say of their load. It is too young to be kept.

use std::sync::Arc;

use eastway_core::Timestamp;
use prost::Message;
use serde_json::Value;

use super::kind::{Common, Kind, Unreadable};
use super::services::Services;
use crate::convert;

pub(super) struct Loads {
    common: Arc<Common>,
    services: Arc<Services>,
}

impl Loads {
    pub(super) fn new(common: Arc<Common>, services: Arc<Services>) -> Arc<Self> {
        Arc::new(Self { common, services })
    }
}

impl Kind for Loads {
    fn word(&self) -> &'static str {
        convert::LOAD
    }

    fn followed(&self) -> Vec<String> {
        self.services.followed()
    }

    fn follows(&self, name: &str) -> bool {
        self.services.follows(name)
    }

    fn snapshot(&self, name: &str, body: &[u8], now: Timestamp) -> Result<(), Unreadable> {
        self.delta(name, body, now)
    }

    fn delta(&self, name: &str, body: &[u8], _now: Timestamp) -> Result<(), Unreadable> {
        let loads = convert::loads_from_wire(Message::decode(body)?)?;
        self.common.sink.loads(&convert::service_name(name)?, &loads);
        Ok(())
    }

    // Without a new word, a load is forgotten by its age.
    fn removed(&self, _name: &str, _now: Timestamp) {}

    fn kept(&self, _now: Timestamp) -> Vec<(String, Value)> {
        Vec::new()
    }

    fn restore(&self, _name: &str, _kept: Value, _now: Timestamp) -> Result<(), Unreadable> {
        Ok(())
    }
}
