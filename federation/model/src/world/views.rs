//! What a gateway tells the sidecars that follow services, and what they take.

use std::collections::BTreeSet;
use std::sync::Arc;

use eastway_core::ServiceName;
use eastway_registry::{Delta, ServiceFacts};

use crate::world::World;
use crate::world::network::{Actor, ConnectionId};
use crate::world::statements::Said;

impl World {
    /// A sidecar follows a service from now on, and is told all of it.
    pub(crate) fn follow(&mut self, process: usize, connection: ConnectionId, service: &ServiceName) {
        let Some(core) = self.gateways[process].core_mut() else { return };
        let facts = core.catalogue.facts(service);
        let Some(registered) = core.registrations.get_mut(&connection) else { return };
        registered.follows.insert(service.clone(), (1, facts.clone()));
        self.tell_whole(process, connection, service, 1, facts);
    }

    fn tell_whole(
        &mut self,
        process: usize,
        connection: ConnectionId,
        service: &ServiceName,
        seq: u64,
        facts: Option<Arc<ServiceFacts>>,
    ) {
        let said = match facts {
            Some(facts) => Said::Whole(seq, Box::new(ageless(&facts))),
            None => Said::Unknown(service.clone()),
        };
        self.say(connection, Actor::Gateway(process), said);
    }

    /// Tells whoever follows one of the services what changed.
    pub(crate) fn tell_followers(&mut self, process: usize, services: &BTreeSet<ServiceName>) {
        let Some(core) = self.gateways[process].core_mut() else { return };
        let mut said: Vec<(ConnectionId, Said)> = Vec::new();
        for service in services {
            let facts = core.catalogue.facts(service);
            for (connection, registered) in &mut core.registrations {
                let Some((seq, sent)) = registered.follows.get_mut(service) else { continue };
                let delta = match (&sent, &facts) {
                    (Some(sent), Some(facts)) => match sent.delta_to(facts) {
                        Some(delta) => Some(delta),
                        None => continue,
                    },
                    _ => None,
                };
                *seq += 1;
                sent.clone_from(&facts);
                said.push((
                    *connection,
                    match (delta, &facts) {
                        (Some(delta), _) => Said::Difference(service.clone(), *seq, Box::new(ageless_delta(delta))),
                        (None, Some(facts)) => Said::Whole(*seq, Box::new(ageless(facts))),
                        (None, None) => Said::Unknown(service.clone()),
                    },
                ));
            }
        }
        for (connection, said) in said {
            self.say(connection, Actor::Gateway(process), said);
        }
    }

    /// A sidecar is told of a service. A number that does not follow the last one is a hole: it asks for the whole again.
    pub(crate) fn sidecar_is_told(&mut self, number: usize, connection: ConnectionId, said: Said) {
        let sidecar = &mut self.sidecars[number];
        match said {
            Said::Whole(seq, facts) => drop(sidecar.views.insert(facts.name.clone(), (seq, *facts))),
            Said::Unknown(service) => drop(sidecar.views.remove(&service)),
            Said::Difference(service, seq, delta) => match sidecar.views.get_mut(&service) {
                Some((last, facts)) if seq == *last + 1 => {
                    *last = seq;
                    facts.apply(*delta);
                }
                _ => self.say(connection, Actor::Sidecar(number), Said::Follow(service)),
            },
            _ => {}
        }
    }
}

/// Ages are measured by whoever states them: see [`crate::world::streams::ageless`].
pub(crate) fn ageless(facts: &ServiceFacts) -> ServiceFacts {
    let mut facts = facts.clone();
    facts.returned.clear();
    facts.remote.iter_mut().for_each(|remote| remote.returned = None);
    facts
}

fn ageless_delta(mut delta: Delta) -> Delta {
    delta.returned = None;
    delta.remote.iter_mut().flatten().for_each(|remote| remote.returned = None);
    delta
}
