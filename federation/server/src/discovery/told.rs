//! What a stream was told of one topic, and what it is to be told next: the difference between the state that it knows and the
//! state now, whatever happened in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use eastway_client::convert;
use eastway_core::view::{InboundRules, MeshView};
use eastway_core::{MeshHost, ServiceName};
use eastway_proto::discovery::v1::subscribe_response::Event;
use eastway_proto::discovery::v1::update::Change;
use eastway_proto::discovery::v1::{Update, VirtualAddress};
use eastway_registry::ServiceFacts;
use prost::Message;
use serde_json::Value;

use crate::feed::Feed;
use crate::hub::Hub;
use crate::topic::Topic;
use crate::virtuals;

/// Bytes of endpoints in one message: a small part of what a sidecar reads, whatever a service's size and labels are.
const ENDPOINT_BYTES: usize = 4 << 20;

/// What one stream was told of one topic.
#[derive(Debug)]
pub(super) struct Told {
    topic: Topic,
    known: Known,
    /// The number of the last update, by the name within the kind.
    versions: BTreeMap<String, u64>,
    /// Something was said of it.
    answered: bool,
}

/// What the other side knows, of what.
#[derive(Debug)]
enum Known {
    Mesh(Option<MeshView>),
    Served(ServiceName, Option<InboundRules>),
    Service(ServiceName, Option<Arc<ServiceFacts>>),
    Address(MeshHost, Option<u32>),
    /// The count of load reports up to which it heard; `None` before the first.
    Loads(ServiceName, Option<u64>),
    /// Documents of a kind, those that are meant by a name, by their names.
    Declared(String, String, BTreeMap<String, Value>),
}

impl Told {
    /// Nothing yet.
    pub(super) fn new(topic: Topic) -> Self {
        let known = match topic.clone() {
            Topic::Mesh => Known::Mesh(None),
            Topic::Served(name) => Known::Served(name, None),
            Topic::Service(name) => Known::Service(name, None),
            Topic::Loads(name) => Known::Loads(name, None),
            Topic::Address(host) => Known::Address(host, None),
            Topic::Declared { kind, name } => Known::Declared(kind, name, BTreeMap::new()),
        };
        Self { topic, known, versions: BTreeMap::new(), answered: false }
    }

    /// What to tell now. If that is not all because of its size, the topic is in `feed` again.
    pub(super) fn news(&mut self, hub: &Hub, feed: &Feed) -> Vec<Event> {
        let first = !std::mem::replace(&mut self.answered, true);
        let change = match &mut self.known {
            Known::Mesh(known) => mesh(hub, known),
            Known::Served(name, known) => served(hub, name, known),
            Known::Service(name, known) => service(hub, name, known, first).map(|(change, whole)| {
                if !whole {
                    feed.publish([&self.topic]);
                }
                change
            }),
            Known::Loads(name, known) => loads(hub, name, known),
            Known::Address(host, known) => address(hub, host, known),
            Known::Declared(kind, name, known) => {
                let complete = (first && name == Topic::ALL).then(|| Event::Complete(self.topic.to_wire()));
                let changes = declared(hub, (kind, name), known);
                let updates: Vec<_> = changes.into_iter().map(|(name, change)| self.update(name, change)).collect();
                return updates.into_iter().chain(complete).collect();
            }
        };
        let name = self.topic.to_wire().name;
        change.map(|change| self.update(name, change)).into_iter().collect()
    }

    fn update(&mut self, name: String, change: Change) -> Event {
        let version = match change {
            Change::Removed(_) => self.versions.remove(&name).unwrap_or_default(),
            Change::Snapshot(_) | Change::Delta(_) => {
                let version = self.versions.get(&name).map_or(0, |last| last + 1);
                self.versions.insert(name.clone(), version);
                version
            }
        };
        Event::Update(Update { kind: self.topic.to_wire().kind, name, version, change: Some(change) })
    }
}

fn snapshot(message: &impl Message) -> Change {
    Change::Snapshot(message.encode_to_vec())
}

fn removed() -> Change {
    Change::Removed(Default::default())
}

fn mesh(hub: &Hub, known: &mut Option<MeshView>) -> Option<Change> {
    let mesh = hub.read(|catalogue, _| catalogue.mesh());
    let change = (known.as_ref() != Some(&mesh)).then(|| snapshot(&convert::mesh_to_wire(&mesh)));
    *known = Some(mesh);
    change
}

/// The rules of a service that nobody declares are the usual ones: a sidecar may ask before it has registered.
fn served(hub: &Hub, name: &ServiceName, known: &mut Option<InboundRules>) -> Option<Change> {
    let rules = hub.read(|catalogue, _| catalogue.resources().inbound(name));
    let change = (known.as_ref() != Some(&rules)).then(|| snapshot(&convert::inbound_to_wire(&rules)));
    *known = Some(rules);
    change
}

/// What to tell of a service, and whether that is all.
fn service(
    hub: &Hub,
    name: &ServiceName,
    known: &mut Option<Arc<ServiceFacts>>,
    first: bool,
) -> Option<(Change, bool)> {
    let (facts, now) = hub.read(|catalogue, now| (catalogue.facts(name), now));
    let Some(facts) = facts else {
        let news = known.take().is_some() || first;
        return news.then(|| (removed(), true));
    };
    let Some(before) = known.replace(Arc::clone(&facts)) else {
        // What does not fit follows as differences.
        let part = facts.first_part(ENDPOINT_BYTES).map(Arc::new);
        let whole = part.is_none();
        let told = known.insert(part.unwrap_or(facts));
        return Some((snapshot(&convert::facts_to_wire(told, now)), whole));
    };
    let mut delta = before.delta_to(&facts)?;
    let whole = !delta.cut(ENDPOINT_BYTES);
    if !whole {
        let mut part = (*before).clone();
        part.apply(delta.clone());
        *known = Some(Arc::new(part));
    }
    Some((Change::Delta(convert::delta_to_wire(&delta, now).encode_to_vec()), whole))
}

fn loads(hub: &Hub, name: &ServiceName, known: &mut Option<u64>) -> Option<Change> {
    let since = known.unwrap_or(0);
    let told = hub.read(|catalogue, _| {
        let known = catalogue.facts(name).is_some();
        known.then(|| (catalogue.loads_since(name, since), catalogue.load_seq()))
    });
    let Some((loads, seq)) = told else {
        // When it is offered again, all of its loads are news.
        return known.take().map(|_| removed());
    };
    if loads.is_empty() {
        return None;
    }
    let body = convert::loads_to_wire(&loads).encode_to_vec();
    Some(if known.replace(seq).is_some() { Change::Delta(body) } else { Change::Snapshot(body) })
}

/// A name that has none gets one, which is told then. That it has none at present takes nothing back.
fn address(hub: &Hub, host: &MeshHost, known: &mut Option<u32>) -> Option<Change> {
    let number = virtuals::want(hub, host)?;
    (known.replace(number) != Some(number)).then(|| snapshot(&VirtualAddress { number }))
}

/// Documents are told as they are stored, so that nodes of a later release get what this one does not know.
fn declared(hub: &Hub, (kind, name): (&str, &str), known: &mut BTreeMap<String, Value>) -> Vec<(String, Change)> {
    let documents = hub.documents();
    let of_kind = documents.iter().filter(|(id, _)| id.kind == kind);
    let named = of_kind.map(|(id, document)| (format!("{}/{}", id.namespace, id.name), document));
    let now: BTreeMap<String, Value> = named
        .filter(|(one, _)| name == Topic::ALL || name == one)
        .map(|(one, document)| (one, document.clone()))
        .collect();
    let gone = known.keys().filter(|one| !now.contains_key(*one)).map(|one| (one.clone(), removed()));
    let new = now.iter().filter(|(one, document)| known.get(*one) != Some(document));
    let changes =
        gone.chain(new.map(|(one, document)| (one.clone(), Change::Snapshot(document.to_string().into_bytes()))));
    let changes = changes.collect();
    *known = now;
    changes
}
