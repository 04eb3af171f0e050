//! The streams between gateways: opening them, stating on them, listening to them.

use std::sync::Arc;

use eastway_core::Version;
use eastway_registry::{Changes, EndpointState, Exported, Exporter, Fact, Key, Reader, Statement, SyncError};

use crate::sabotage::Sabotage;
use crate::world::gateway::{Listening, Publishing, Speaker, StreamReader, Told};
use crate::world::names::{self, Host};
use crate::world::network::{Actor, ConnectionId, End};
use crate::world::statements::Said;
use crate::world::{Stop, World};

/// Between two signs of life, in milliseconds.
pub(crate) const HEARTBEAT: u64 = 1_000;
/// How long a stream may be silent.
pub(crate) const SILENCE: u64 = 3_000;
/// Before a stream is opened again.
const RESYNC_PAUSE: u64 = 500;

impl World {
    /// Opens the streams that are missing, ends the silent ones, and speaks.
    pub(crate) fn tick_streams(&mut self, process: usize) {
        self.end_silent_streams(process);
        self.open_streams(process);
        let now = self.now;
        let Some(core) = self.gateways[process].core_mut() else { return };
        if core.is_settled {
            let waiting = core.publishing.iter().filter(|(_, p)| matches!(p.told, Told::Waiting { .. }));
            for connection in waiting.map(|(connection, _)| *connection).collect::<Vec<_>>() {
                self.publish_whole(process, connection);
            }
        }
        let Some(core) = self.gateways[process].core_mut() else { return };
        if now < core.heartbeat_at {
            return;
        }
        core.heartbeat_at = now + HEARTBEAT;
        let mut said: Vec<(ConnectionId, Said)> = Vec::new();
        for (connection, publishing) in &core.publishing {
            match &publishing.told {
                Told::Waiting { .. } => {}
                Told::Peer(exporter) => {
                    said.push((*connection, Said::Peer(exporter.last(), Box::new(Statement::Heartbeat))));
                }
                Told::Sibling(last) => said.push((*connection, Said::Sibling(*last, vec![Statement::Heartbeat]))),
            }
        }
        said.extend(core.listening.values().map(|listening| (listening.connection, Said::Alive)));
        said.extend(core.registrations.keys().map(|connection| (*connection, Said::Alive)));
        for (connection, said) in said {
            self.say(connection, Actor::Gateway(process), said);
        }
    }

    fn end_silent_streams(&mut self, process: usize) {
        let now = self.now;
        let Some(core) = self.gateways[process].core_mut() else { return };
        let silent = |heard: u64| now - heard >= SILENCE;
        let mut over: Vec<ConnectionId> =
            core.listening.values().filter(|stream| silent(stream.heard)).map(|stream| stream.connection).collect();
        over.extend(core.publishing.iter().filter(|(_, stream)| silent(stream.heard)).map(|(id, _)| *id));
        for connection in over {
            self.close(connection, Actor::Gateway(process));
            self.gateway_stream_closed(process, connection);
        }
    }

    fn open_streams(&mut self, process: usize) {
        let place = self.gateways[process].place;
        for other in 0..self.places.len() {
            let Some(core) = self.gateways[process].core_mut() else { return };
            let waits = core.dial_after.get(&other).is_some_and(|at| self.now < *at);
            if other == place || waits || core.listening.contains_key(&other) {
                continue;
            }
            core.dial_after.insert(other, self.now + RESYNC_PAUSE);
            let Some(target) = self.running[other].filter(|target| self.gateways[*target].core.is_some()) else {
                continue;
            };
            let hosts = [Host::Gateway(place), Host::Gateway(other)];
            if !self.network.reaches(hosts[0], hosts[1], self.now) {
                continue;
            }
            let connection = self.network.open([Actor::Gateway(process), Actor::Gateway(target)], hosts);
            let heard = self.now;
            if let Some(core) = self.gateways[process].core_mut() {
                core.listening.insert(other, Listening { connection, heard, speaker: None });
            }
            self.say(connection, Actor::Gateway(process), Said::Hello);
        }
    }

    /// Another gateway asks for this one's statements.
    fn hello(&mut self, process: usize, connection: ConnectionId) {
        let Actor::Gateway(from) = self.network.connections[&connection].actor(End::Opener) else { return };
        let is_sibling = self.gateways[from].cluster == self.gateways[process].cluster;
        let heard = self.now;
        let Some(core) = self.gateways[process].core_mut() else { return };
        core.publishing.insert(connection, Publishing { heard, told: Told::Waiting { is_sibling } });
        if core.is_settled {
            self.publish_whole(process, connection);
        }
    }

    fn publish_whole(&mut self, process: usize, connection: ConnectionId) {
        let (id, cluster) = (self.gateways[process].id.clone(), self.gateways[process].cluster);
        let Some(core) = self.gateways[process].core_mut() else { return };
        let Some(publishing) = core.publishing.get_mut(&connection) else { return };
        let Told::Waiting { is_sibling } = publishing.told else { return };
        let meta = Box::new(core.catalogue.meta().clone());
        let mut said = Vec::new();
        let version;
        if is_sibling {
            let (stated, states) = core.catalogue.statements();
            version = stated;
            let count = states.len();
            let mut statements: Vec<_> =
                states.into_iter().map(|(key, state)| Statement::Service(key, state)).collect();
            statements.push(Statement::SnapshotEnd(count));
            // As production does: many in one message, and the end in another.
            let end = statements.split_off(count);
            let left = core.catalogue.deregistrations().into_iter().map(state_or_removal).collect();
            let parts = [statements, end, left].into_iter().filter(|statements: &Vec<_>| !statements.is_empty());
            said.extend(parts.map(|statements| Said::Sibling(version, statements)));
            publishing.told = Told::Sibling(version);
        } else {
            let other = 1 - cluster;
            let mut exporter = Exporter::new(names::cluster_name(other));
            let statements;
            (version, statements) = exporter.snapshot(&core.catalogue);
            let stated = core.catalogue.exports_for(&names::cluster_name(other)).into_iter();
            let stated = stated.map(|(name, export)| (name, ageless(&export.exported))).collect();
            said.extend(
                statements.into_iter().map(|statement| Said::Peer(version, Box::new(ageless_statement(statement)))),
            );
            publishing.told = Told::Peer(exporter);
            self.stated.insert((id.clone(), version), stated);
        }
        self.say(connection, Actor::Gateway(process), Said::Welcome { meta, gateway: id, version });
        for said in said {
            self.say(connection, Actor::Gateway(process), said);
        }
    }

    /// States what changed, to whom it concerns.
    pub(crate) fn publish(&mut self, process: usize, changes: &Changes) {
        let Some(core) = self.gateways[process].core_mut() else { return };
        let mut said: Vec<(ConnectionId, Said)> = Vec::new();
        let mut over = Vec::new();
        for (connection, publishing) in &mut core.publishing {
            match &mut publishing.told {
                Told::Peer(exporter) if changes.exports => {
                    let statements = exporter.changes(&core.catalogue).into_iter();
                    said.extend(statements.map(|(version, statement)| {
                        (*connection, Said::Peer(version, Box::new(ageless_statement(statement))))
                    }));
                }
                Told::Sibling(last) if changes.statements => match core.catalogue.statements_since(last.seq) {
                    Some((_, states)) if states.is_empty() => {}
                    Some((version, states)) => {
                        *last = version;
                        let states = states.into_iter().map(state_or_removal).collect();
                        said.push((*connection, Said::Sibling(version, states)));
                    }
                    None => over.push(*connection),
                },
                _ => {}
            }
        }
        for (connection, said) in said {
            self.say(connection, Actor::Gateway(process), said);
        }
        for connection in over {
            self.close(connection, Actor::Gateway(process));
            self.gateway_stream_closed(process, connection);
        }
        self.tell_followers(process, &changes.services);
    }

    /// A message on a stream between gateways.
    pub(crate) fn gateway_hears(&mut self, process: usize, connection: ConnectionId, said: Said) -> Result<(), Stop> {
        let now = self.now;
        let Some(core) = self.gateways[process].core_mut() else { return Ok(()) };
        if let Some(publishing) = core.publishing.get_mut(&connection) {
            publishing.heard = now;
        }
        let listened = core.listening.iter_mut().find(|(_, listening)| listening.connection == connection);
        if let Some((_, listening)) = listened {
            listening.heard = now;
        }
        match said {
            Said::Hello => self.hello(process, connection),
            Said::Welcome { meta, gateway, version } => {
                if !self.believes_epoch(process, version.epoch) {
                    self.close(connection, Actor::Gateway(process));
                    self.gateway_stream_closed(process, connection);
                    return Ok(());
                }
                let Some(core) = self.gateways[process].core_mut() else { return Ok(()) };
                let limits = (100, 100);
                let reader = match *meta.name == core.catalogue.meta().name {
                    true => StreamReader::Sibling(core.name_stream(), Reader::new(version, limits.0)),
                    false => StreamReader::Peer(Reader::new(version, limits.1)),
                };
                let listening = core.listening.values_mut().find(|listening| listening.connection == connection);
                if let Some(listening) = listening {
                    listening.speaker = Some(Speaker { meta: *meta, gateway, reader });
                }
            }
            Said::Peer(version, statement) => return self.hear_peer(process, connection, version, *statement),
            Said::Sibling(version, statements) => self.hear_sibling(process, connection, version, statements),
            Said::Closed => self.gateway_stream_closed(process, connection),
            _ => {}
        }
        Ok(())
    }

    fn hear_peer(
        &mut self,
        process: usize,
        connection: ConnectionId,
        version: Version,
        statement: Statement,
    ) -> Result<(), Stop> {
        let now = self.gateways[process].clock(self.now);
        let sabotage = self.sabotage();
        let Some(core) = self.gateways[process].core_mut() else { return Ok(()) };
        let listening = core.listening.values_mut().find(|listening| listening.connection == connection);
        let Some(Speaker { meta, gateway, reader: StreamReader::Peer(reader) }) =
            listening.and_then(|listening| listening.speaker.as_mut())
        else {
            return Ok(());
        };
        let statement = match (sabotage, statement) {
            // Whatever came is taken for the whole.
            (Some(Sabotage::HalfSnapshot), Statement::Service(name, exported)) if !reader.is_live() => {
                let fact = Fact::Snapshot(version, [(name.clone(), exported.clone())].into());
                core.catalogue.peer_fact(meta, gateway, version.epoch, fact, now);
                Statement::Service(name, exported)
            }
            // What a gateway says of its siblings is not heard.
            (Some(Sabotage::Siblings), Statement::Service(name, exported)) => {
                Statement::Service(name, Exported { beside: Default::default(), ..exported })
            }
            (_, statement) => statement,
        };
        let fact = match reader.read(version, statement) {
            Ok(fact) => fact,
            Err(SyncError::Lost { .. }) if sabotage == Some(Sabotage::Gap) => None,
            Err(_) => {
                self.count("stream with a hole");
                self.close(connection, Actor::Gateway(process));
                self.gateway_stream_closed(process, connection);
                return Ok(());
            }
        };
        let (meta, gateway) = (meta.clone(), gateway.clone());
        if let Some(fact) = fact {
            core.catalogue.peer_fact(&meta, &gateway, version.epoch, fact, now);
        }
        self.changed(process);
        self.check_mirrors(process, &meta.name)
    }

    fn hear_sibling(
        &mut self,
        process: usize,
        connection: ConnectionId,
        version: Version,
        statements: Vec<Statement<Key, EndpointState>>,
    ) {
        let now = self.gateways[process].clock(self.now);
        let sabotage = self.sabotage();
        let Some(core) = self.gateways[process].core_mut() else { return };
        let listening = core.listening.values_mut().find(|listening| listening.connection == connection);
        let Some(Speaker { gateway, reader: StreamReader::Sibling(stream, reader), .. }) =
            listening.and_then(|listening| listening.speaker.as_mut())
        else {
            return;
        };
        let mut facts = Vec::new();
        let mut is_over = false;
        for statement in statements {
            match reader.read(version, statement) {
                Ok(fact) => facts.extend(fact),
                Err(SyncError::Lost { .. }) if sabotage == Some(Sabotage::Gap) => {}
                Err(_) => is_over = true,
            }
        }
        let (stream, gateway) = (*stream, gateway.clone());
        if is_over {
            self.count("stream with a hole");
            self.close(connection, Actor::Gateway(process));
            self.gateway_stream_closed(process, connection);
            return;
        }
        core.catalogue.sibling_facts(stream, &gateway, version.epoch, facts, now);
        self.changed(process);
    }

    /// A stream of a gateway's is over, whoever ended it.
    pub(crate) fn gateway_stream_closed(&mut self, process: usize, connection: ConnectionId) {
        let now = self.gateways[process].clock(self.now);
        let again = self.now + RESYNC_PAUSE;
        let Some(core) = self.gateways[process].core_mut() else { return };
        core.publishing.remove(&connection);
        if let Some(registered) = core.registrations.remove(&connection) {
            core.catalogue.lost(registered.stream, now);
        }
        let place = core.listening.iter().find(|(_, stream)| stream.connection == connection).map(|(place, _)| *place);
        if let Some(place) = place
            && let Some(listening) = core.listening.remove(&place)
        {
            core.dial_after.insert(place, again);
            if let Some(Speaker { gateway, reader: StreamReader::Sibling(stream, _), .. }) = listening.speaker {
                core.catalogue.sibling_lost(stream, &gateway, now);
            }
        }
        self.changed(process);
    }
}

/// Ages are measured by whoever states them; a schedule compares what is stated, and not how old it is.
pub(crate) fn ageless(exported: &Arc<Exported>) -> Exported {
    let mut exported = (**exported).clone();
    exported.zones.iter_mut().for_each(|(_, zone)| zone.returned = None);
    exported
}

fn state_or_removal((key, state): (Key, Option<EndpointState>)) -> Statement<Key, EndpointState> {
    match state {
        Some(state) => Statement::Service(key, state),
        None => Statement::Removed(key),
    }
}

fn ageless_statement(statement: Statement) -> Statement {
    match statement {
        Statement::Service(name, exported) => Statement::Service(name, ageless(&Arc::new(exported))),
        statement => statement,
    }
}
