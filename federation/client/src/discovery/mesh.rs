//! The mesh around the services: this cluster and its peers.

use std::sync::Arc;

use eastway_core::Timestamp;
use eastway_core::view::MeshView;
use parking_lot::Mutex;
use prost::Message;
use serde_json::Value;

use super::kind::{Common, Kind, Unreadable};
use crate::convert;

/// There is one, without a name.
pub(super) struct Mesh {
    common: Arc<Common>,
    view: Mutex<Option<Arc<MeshView>>>,
}

impl Mesh {
    pub(super) fn new(common: Arc<Common>) -> Arc<Self> {
        Arc::new(Self { common, view: Mutex::default() })
    }

    pub(super) fn view(&self) -> Option<Arc<MeshView>> {
        self.view.lock().clone()
    }

    fn take(&self, mesh: MeshView) {
        let mesh = Arc::new(mesh);
        *self.view.lock() = Some(Arc::clone(&mesh));
        self.common.sink.mesh(&mesh);
    }
}

impl Kind for Mesh {
    fn word(&self) -> &'static str {
        convert::MESH
    }

    fn followed(&self) -> Vec<String> {
        vec![String::new()]
    }

    fn follows(&self, name: &str) -> bool {
        name.is_empty()
    }

    fn snapshot(&self, _name: &str, body: &[u8], _now: Timestamp) -> Result<(), Unreadable> {
        self.take(convert::mesh_from_wire(Message::decode(body)?)?);
        Ok(())
    }

    // A gateway is always somewhere.
    fn removed(&self, _name: &str, _now: Timestamp) {}

    fn kept(&self, _now: Timestamp) -> Vec<(String, Value)> {
        let kept = self.view().and_then(|view| serde_json::to_value(&*view).ok());
        kept.map(|kept| (String::new(), kept)).into_iter().collect()
    }

    fn restore(&self, _name: &str, kept: Value, _now: Timestamp) -> Result<(), Unreadable> {
        self.take(serde_json::from_value(kept)?);
        Ok(())
    }
}
