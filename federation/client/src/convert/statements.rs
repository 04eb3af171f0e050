//! What gateways state to their peers.

use std::collections::BTreeMap;

use eastway_core::{ServiceName, Timestamp, Version};
use eastway_proto::federation::v1 as wire;
use eastway_registry::peers::{Exported, ZoneFacts};
use eastway_registry::reader::Statement;

use super::services::{summary_from_wire, summary_to_wire};
use super::{ConvertError, service_name, spec_from_wire, spec_to_wire};

/// A statement from the wire, received at `now`, with its version.
///
/// # Errors
/// Which field is wrong; a welcome is no statement.
pub fn statement_from_wire(message: wire::SyncResponse, now: Timestamp) -> Result<(Version, Statement), ConvertError> {
    use wire::sync_response::Event;
    let version = Version::new(message.epoch, message.seq);
    let statement = match message.event {
        Some(Event::Service(service)) => {
            let (name, exported) = exported_from_wire(service, now)?;
            Statement::Service(name, exported)
        }
        Some(Event::SnapshotEnd(end)) => Statement::SnapshotEnd(end.services as usize),
        Some(Event::Removed(removed)) => Statement::Removed(service_name(&removed.name)?),
        Some(Event::Heartbeat(_)) => Statement::Heartbeat,
        Some(Event::GoAway(_)) => Statement::GoAway,
        Some(Event::Welcome(_)) => return Err(ConvertError::new("event", "a second welcome")),
        None => return Err(ConvertError::new("event", "missing, or of a newer version")),
    };
    Ok((version, statement))
}

/// A statement for the wire, sent at `now`.
pub fn statement_to_wire(version: Version, statement: &Statement, now: Timestamp) -> wire::SyncResponse {
    use wire::sync_response::Event;
    let event = match statement {
        Statement::Service(name, exported) => Event::Service(exported_to_wire(name, exported, now)),
        Statement::SnapshotEnd(services) => {
            Event::SnapshotEnd(wire::SnapshotEnd { services: u32::try_from(*services).unwrap_or(u32::MAX) })
        }
        Statement::Removed(name) => Event::Removed(wire::ServiceRemoved { name: name.to_string() }),
        Statement::Heartbeat => Event::Heartbeat(eastway_proto::discovery::v1::Heartbeat {}),
        Statement::GoAway => Event::GoAway(wire::GoAway {}),
    };
    wire::SyncResponse { epoch: version.epoch, seq: version.seq, event: Some(event) }
}

fn exported_from_wire(message: wire::ExportedService, now: Timestamp) -> Result<(ServiceName, Exported), ConvertError> {
    let mut zones = BTreeMap::new();
    for zone in message.zones {
        let (zone, mut summary) = summary_from_wire(zone)?;
        let returned = summary.returned_ago.take().map(|ago| now.before(ago));
        zones.insert(zone, ZoneFacts { summary, returned });
    }
    let spec = spec_from_wire(message.spec.unwrap_or_default())?;
    Ok((service_name(&message.name)?, Exported { spec, zones }))
}

fn exported_to_wire(name: &ServiceName, exported: &Exported, now: Timestamp) -> wire::ExportedService {
    let zones = exported.zones.iter();
    let zones = zones.map(|(zone, facts)| summary_to_wire(zone, &facts.summary, facts.returned, now));
    wire::ExportedService { name: name.to_string(), spec: Some(spec_to_wire(&exported.spec)), zones: zones.collect() }
}
