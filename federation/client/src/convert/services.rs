//! Views of services, whole and as differences.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::{RemoteZone, ZoneSummary};
use eastway_core::{EndpointId, LoadReport, ServiceName, Timestamp, ZoneId};
use eastway_proto::discovery::v1 as wire;
use eastway_registry::facts::{Delta, RemoteFacts, ServiceFacts};

use super::{
    ConvertError, endpoint_from_wire, endpoint_id, endpoint_to_wire, label, load_from_wire, load_to_wire,
    spec_from_wire, spec_to_wire,
};

/// A whole service from the wire, received at `now`.
///
/// # Errors
/// Which field is wrong.
pub fn facts_from_wire(
    name: ServiceName,
    message: wire::ServiceView,
    now: Timestamp,
) -> Result<ServiceFacts, ConvertError> {
    let mut endpoints = message.endpoints.into_iter().map(endpoint_from_wire).collect::<Result<Vec<_>, _>>()?;
    endpoints.sort_by(|a, b| a.id.cmp(&b.id));
    endpoints.dedup_by(|a, b| a.id == b.id);
    Ok(ServiceFacts {
        name,
        spec: spec_from_wire(message.spec.unwrap_or_default())?,
        endpoints,
        remote: remote_from_wire(message.remote, now)?,
        returned: returned_from_wire(message.returned_ago_ms, now)?,
    })
}

/// A whole service for the wire, sent at `now`.
pub fn facts_to_wire(facts: &ServiceFacts, now: Timestamp) -> wire::ServiceView {
    wire::ServiceView {
        spec: Some(spec_to_wire(&facts.spec)),
        endpoints: facts.endpoints.iter().map(|endpoint| endpoint_to_wire(endpoint)).collect(),
        remote: remote_to_wire(&facts.remote, now),
        returned_ago_ms: returned_to_wire(&facts.returned, now),
    }
}

/// A difference from the wire, received at `now`.
///
/// # Errors
/// Which field is wrong.
pub fn delta_from_wire(message: wire::ServiceDelta, now: Timestamp) -> Result<Delta, ConvertError> {
    let remote = message.remote_changed.then(|| remote_from_wire(message.remote, now)).transpose()?;
    let returned = message.returned_changed.then(|| returned_from_wire(message.returned_ago_ms, now)).transpose()?;
    Ok(Delta {
        spec: message.spec.map(spec_from_wire).transpose()?,
        upsert: message.upsert.into_iter().map(endpoint_from_wire).collect::<Result<_, _>>()?,
        remove: message.remove.iter().map(|id| endpoint_id(id)).collect::<Result<_, _>>()?,
        remote,
        returned,
    })
}

/// A difference for the wire, sent at `now`.
pub fn delta_to_wire(delta: &Delta, now: Timestamp) -> wire::ServiceDelta {
    wire::ServiceDelta {
        spec: delta.spec.as_ref().map(spec_to_wire),
        upsert: delta.upsert.iter().map(|endpoint| endpoint_to_wire(endpoint)).collect(),
        remove: delta.remove.iter().map(ToString::to_string).collect(),
        remote_changed: delta.remote.is_some(),
        remote: delta.remote.as_deref().map(|remote| remote_to_wire(remote, now)).unwrap_or_default(),
        returned_changed: delta.returned.is_some(),
        returned_ago_ms: delta.returned.as_ref().map(|map| returned_to_wire(map, now)).unwrap_or_default(),
    }
}

/// A batch of loads from the wire.
///
/// # Errors
/// Which field is wrong.
pub fn loads_from_wire(message: wire::LoadBatch) -> Result<Vec<(EndpointId, LoadReport)>, ConvertError> {
    let entry = |entry: wire::load_batch::Entry| {
        let load = entry.load.ok_or_else(|| ConvertError::new("entries", "without a load"))?;
        Ok((endpoint_id(&entry.endpoint)?, load_from_wire(load)?))
    };
    message.entries.into_iter().map(entry).collect()
}

/// A batch of loads for the wire.
pub fn loads_to_wire(loads: &[(EndpointId, LoadReport)]) -> wire::LoadBatch {
    let entry = |(id, load): &(EndpointId, LoadReport)| wire::load_batch::Entry {
        endpoint: id.to_string(),
        load: Some(load_to_wire(*load)),
    };
    wire::LoadBatch { entries: loads.iter().map(entry).collect() }
}

fn remote_from_wire(zones: Vec<wire::RemoteZone>, now: Timestamp) -> Result<Vec<RemoteFacts>, ConvertError> {
    let zone = |zone: wire::RemoteZone| {
        let summary = zone.summary.ok_or_else(|| ConvertError::new("remote", "without a summary"))?;
        let (name, summary) = summary_from_wire(summary)?;
        let id = ZoneId::new(label("cluster", &zone.cluster)?, name);
        Ok(RemoteFacts::from_zone(RemoteZone { zone: id, accounts: zone.accounts.into(), summary }, now))
    };
    let mut zones = zones.into_iter().map(zone).collect::<Result<Vec<_>, _>>()?;
    zones.sort_by(|a, b| a.zone.zone.cmp(&b.zone.zone));
    zones.dedup_by(|a, b| a.zone.zone == b.zone.zone);
    Ok(zones)
}

fn remote_to_wire(zones: &[RemoteFacts], now: Timestamp) -> Vec<wire::RemoteZone> {
    let zone = |facts: &RemoteFacts| wire::RemoteZone {
        cluster: facts.zone.zone.cluster.to_string(),
        summary: Some(summary_to_wire(&facts.zone.zone.zone, &facts.zone.summary, facts.returned, now)),
        accounts: facts.zone.accounts.to_vec(),
    };
    zones.iter().map(zone).collect()
}

pub(super) fn summary_from_wire(message: wire::ZoneSummary) -> Result<(Arc<str>, ZoneSummary), ConvertError> {
    let finite = |value: f32| value.is_finite() && value >= 0.0;
    let sound = message.capacity.is_finite()
        && message.capacity >= 0.0
        && message.utilisation.is_none_or(finite)
        && finite(message.error_rate)
        && message.ready.checked_add(message.degraded).is_some_and(|serving| serving <= message.total);
    if !sound {
        return Err(ConvertError::new("summary", "numbers that contradict one another, or are negative or not finite"));
    }
    let summary = ZoneSummary {
        total: message.total,
        ready: message.ready,
        degraded: message.degraded,
        draining: message.draining,
        capacity: message.capacity,
        utilisation: message.utilisation,
        error_rate: message.error_rate.min(1.0),
        returned_ago: message.returned_ago_ms.map(Duration::from_millis),
    };
    Ok((label("zone", &message.zone)?.into(), summary))
}

pub(super) fn summary_to_wire(
    zone: &str,
    summary: &ZoneSummary,
    returned: Option<Timestamp>,
    now: Timestamp,
) -> wire::ZoneSummary {
    wire::ZoneSummary {
        zone: zone.to_owned(),
        total: summary.total,
        ready: summary.ready,
        degraded: summary.degraded,
        draining: summary.draining,
        capacity: summary.capacity,
        utilisation: summary.utilisation,
        error_rate: summary.error_rate,
        returned_ago_ms: returned.map(|at| millis(now.since(at))),
    }
}

fn returned_from_wire(
    returned: impl IntoIterator<Item = (String, u64)>,
    now: Timestamp,
) -> Result<BTreeMap<Arc<str>, Timestamp>, ConvertError> {
    let entry = |(zone, ago): (String, u64)| {
        let zone: Arc<str> = label("returned_ago_ms", &zone)?.into();
        Ok((zone, now.before(Duration::from_millis(ago))))
    };
    returned.into_iter().map(entry).collect()
}

fn returned_to_wire<C: FromIterator<(String, u64)>>(returned: &BTreeMap<Arc<str>, Timestamp>, now: Timestamp) -> C {
    returned.iter().map(|(zone, at)| (zone.to_string(), millis(now.since(*at)))).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
