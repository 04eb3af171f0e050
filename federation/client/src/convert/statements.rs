//! What gateways state to their peers.

use eastway_core::view::ServiceSpec;
use eastway_core::{ServiceName, Timestamp, Version};
use eastway_proto::federation::v1 as wire;
use eastway_registry::peers::{Beside, Exported, Holders, ZoneFacts};
use eastway_registry::reader::Statement;
use eastway_registry::{EndpointState, Key};
use litemap::LiteMap;

use super::services::{summary_from_wire, summary_to_wire};
use super::{
    ConvertError, endpoint_id, health_from_wire, health_to_wire, load_from_wire, load_to_wire, service_name,
    spec_from_wire, spec_to_wire,
};

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
        Some(Event::Endpoints(_)) => return Err(ConvertError::new("event", "endpoints are for siblings")),
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
    wire::SyncResponse { epoch: version.epoch, seq: version.seq, event: Some(event), ..Default::default() }
}

/// The statements of a sibling in one message from the wire, all of them of one version.
///
/// # Errors
/// Which field is wrong; a welcome is no statement, and siblings state no services.
pub fn sibling_statements_from_wire(
    message: wire::SyncResponse,
) -> Result<(Version, Vec<Statement<Key, EndpointState>>), ConvertError> {
    use wire::sync_response::Event;
    let version = Version::new(message.epoch, message.seq);
    let statements = match message.event {
        Some(Event::Endpoints(endpoints)) => {
            endpoints.states.into_iter().map(state_from_wire).collect::<Result<_, _>>()?
        }
        Some(Event::SnapshotEnd(end)) => vec![Statement::SnapshotEnd(end.services as usize)],
        Some(Event::Heartbeat(_)) => vec![Statement::Heartbeat],
        Some(Event::GoAway(_)) => vec![Statement::GoAway],
        Some(Event::Welcome(_)) => return Err(ConvertError::new("event", "a second welcome")),
        Some(Event::Service(_) | Event::Removed(_)) => {
            return Err(ConvertError::new("event", "services are for peers"));
        }
        None => return Err(ConvertError::new("event", "missing, or of a newer version")),
    };
    Ok((version, statements))
}

/// How endpoints do, for a sibling; `None`: the endpoint is no longer stated.
pub fn states_to_wire<'a>(
    version: Version,
    states: impl Iterator<Item = (&'a Key, Option<&'a EndpointState>)>,
) -> wire::SyncResponse {
    let states = states.map(|(key, state)| state_to_wire(key, state)).collect();
    let event = wire::sync_response::Event::Endpoints(wire::EndpointStates { states });
    wire::SyncResponse { epoch: version.epoch, seq: version.seq, event: Some(event), ..Default::default() }
}

fn state_from_wire(message: wire::EndpointState) -> Result<Statement<Key, EndpointState>, ConvertError> {
    let key = (service_name(&message.service)?, endpoint_id(&message.endpoint)?);
    match (message.removed, message.deregistered) {
        (true, true) => return Ok(Statement::Service(key, EndpointState::deregistered(message.incarnation))),
        (true, false) => return Ok(Statement::Removed(key)),
        (false, _) => {}
    }
    let state = EndpointState {
        incarnation: message.incarnation,
        session: message.session,
        reported: message.health.map(health_from_wire).transpose()?,
        down: message.down,
        load: message.load.map(load_from_wire).transpose()?,
        attached: message.attached,
        deregistered: false,
    };
    Ok(Statement::Service(key, state))
}

fn state_to_wire((service, endpoint): &Key, state: Option<&EndpointState>) -> wire::EndpointState {
    let named = wire::EndpointState {
        service: service.to_string(),
        endpoint: endpoint.to_string(),
        // As every release understands it.
        removed: state.is_none_or(|state| state.deregistered),
        deregistered: state.is_some_and(|state| state.deregistered),
        ..wire::EndpointState::default()
    };
    let Some(state) = state else { return named };
    wire::EndpointState {
        incarnation: state.incarnation,
        session: state.session,
        health: state.reported.map(|health| health_to_wire(health).into()),
        down: state.down,
        load: state.load.map(load_to_wire),
        attached: state.attached,
        ..named
    }
}

fn exported_from_wire(message: wire::ExportedService, now: Timestamp) -> Result<(ServiceName, Exported), ConvertError> {
    let mut zones = LiteMap::new();
    for zone in message.zones {
        let (zone, mut summary) = summary_from_wire(zone)?;
        let returned = summary.returned_ago.take().map(|ago| now.before(ago));
        zones.insert(zone, ZoneFacts { summary, returned });
    }
    // The rest of a spec is for the callers of the peer's own cluster.
    let ServiceSpec { ports, accounts, .. } = spec_from_wire(message.spec.unwrap_or_default())?;
    Ok((
        service_name(&message.name)?,
        Exported { ports: ports.into(), accounts, zones, beside: beside_from_wire(message.beside)? },
    ))
}

fn exported_to_wire(name: &ServiceName, exported: &Exported, now: Timestamp) -> wire::ExportedService {
    let zones = exported.zones.iter();
    let zones = zones.map(|(zone, facts)| summary_to_wire(zone, &facts.summary, facts.returned, now));
    wire::ExportedService {
        name: name.to_string(),
        spec: Some(spec_to_wire(&exported.spec())),
        zones: zones.collect(),
        beside: beside_to_wire(&exported.beside, now),
    }
}

fn beside_from_wire(message: Option<wire::Beside>) -> Result<Beside, ConvertError> {
    let Some(message) = message else { return Ok(Beside::default()) };
    let mut holders = Holders::new();
    for holder in message.holders {
        let zones = holder.zones.into_iter().map(summary_from_wire).collect::<Result<_, _>>()?;
        holders.insert(holder.gateway.into(), zones);
    }
    Ok(Beside::told(holders))
}

fn beside_to_wire(beside: &Beside, now: Timestamp) -> Option<wire::Beside> {
    let holders = beside.holders().map(|(gateway, zones)| wire::beside::Holder {
        gateway: gateway.to_string(),
        zones: zones.iter().map(|(zone, summary)| summary_to_wire(zone, summary, None, now)).collect(),
    });
    beside.is_told().then(|| wire::Beside { holders: holders.collect() })
}
