//! A leader collects the slice of a gateway that is gone, while its sidecar lives, dies, moves or starts again, the gateway comes
//! back, another one leads, and what was decided reaches the store as late as it likes.

use eastway_core::resource::ClusterMeta;
use eastway_core::{EndpointId, Health, ServiceName, Timestamp};
use eastway_registry::membership::{Collector, to_json};
use eastway_registry::store::{Expect, StoreEntry, Txn, keys};
use eastway_registry::{Catalogue, Options, ProbeOutcome, Registration, Slice, StreamId};
use stateright::{Checker, Model, Property};

use super::Printed;
use super::memory::Memory;

/// The instance, and which of its rules hold.
#[derive(Clone, Debug)]
struct Collecting {
    /// What answers stays.
    probes: bool,
    /// The slice is as it was, and its gateway still gone.
    compares: bool,
}

const PRODUCTION: Collecting = Collecting { probes: true, compares: true };

#[derive(Clone, Debug)]
struct World {
    store: Memory,
    sidecar: Sidecar,
    /// The gateway whose slice it is.
    gateway_runs: bool,
    /// What was decided, and has not reached the store.
    decided: Vec<Txn>,
    /// A look of the leader at the slice and at the sidecar.
    looked: Option<(StoreEntry, ProbeOutcome)>,
    steps: u8,
}

#[derive(Clone, Debug, PartialEq)]
struct Sidecar {
    lives: bool,
    incarnation: u64,
    session: u64,
    /// To whom it speaks.
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Nobody,
    Gateway,
    Leader,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    GatewayEnds,
    GatewayReturns,
    SidecarDies,
    SidecarStarts,
    /// It registers, at the gateway or at the leader.
    Registers(At),
    Looks,
    Decides,
    Reaches(usize),
    OtherLeads,
}

/// The longest way that is looked at.
const STEPS: u8 = 9;
const SECOND: Timestamp = Timestamp::from_millis(1_000);

fn payments() -> ServiceName {
    ServiceName::new("shop", "payments")
}

fn slice_key(gateway: &str) -> String {
    keys::slice(&payments(), gateway, 0)
}

impl World {
    fn new() -> Self {
        let sidecar = Sidecar { lives: true, incarnation: 1, session: 1, at: At::Gateway };
        let (store, decided) = (Memory::default(), Vec::new());
        let mut world = Self { store, sidecar, gateway_runs: true, decided, looked: None, steps: 0 };
        world.store.apply(&Txn::new().put(keys::LEADER, "gw-1").put(keys::gateway("gw-2"), "here"));
        world.write("gw-2");
        world
    }

    fn registration(&self) -> Registration {
        Registration {
            service: payments(),
            endpoint: EndpointId::new("p1"),
            account: "payments".to_owned(),
            zone: "a".into(),
            address: ([10, 0, 0, 1], 15008).into(),
            weight: 1.0,
            capacity: 0,
            labels: Default::default(),
            incarnation: self.sidecar.incarnation,
            session: self.sidecar.session,
        }
    }

    /// A gateway writes that it has the sidecar.
    fn write(&mut self, gateway: &str) {
        let slice = Slice { endpoints: vec![self.registration()] };
        self.store.apply(&Txn::new().put(slice_key(gateway), to_json(&slice)));
    }

    fn lists(&self, gateway: &str, registration: &Registration) -> bool {
        let entry = self.store.entries.get(&slice_key(gateway));
        let slice = entry.and_then(|entry| serde_json::from_slice::<Slice>(&entry.value).ok()).unwrap_or_default();
        slice.endpoints.contains(registration)
    }

    /// What the leader decides from its look, with the production catalogue.
    fn decide(&self, rules: &Collecting) -> Option<Txn> {
        let (entry, outcome) = self.looked.clone()?;
        let zones = [("a".to_owned(), None)].into();
        let (name, region) = ("eu-west".to_owned(), "eu".to_owned());
        let meta = ClusterMeta { name, uid: "uid".to_owned(), region, trust_domain: "eu.example".to_owned(), zones };
        let mut catalogue = Catalogue::new(meta, "gw-1", 1, Options::default());
        let slice: Slice = serde_json::from_slice(&entry.value).ok()?;
        catalogue.load_slice("gw-2", &payments(), 0, Some(slice), SECOND);
        for probe in catalogue.due_probes(SECOND) {
            let outcome = if rules.probes { outcome } else { ProbeOutcome::Refused };
            catalogue.probed(&probe, outcome, SECOND);
        }
        if self.sidecar.at == At::Leader {
            catalogue.register(StreamId(1), self.registration(), Health::Ready, SECOND).ok()?;
        }
        let leader = self.store.entries.get(keys::LEADER)?;
        let mut txn = Collector::collect(&catalogue, "gw-2", &entry, (keys::LEADER, Expect::At(leader.revision)))?.txn;
        if !rules.compares {
            txn.expects.retain(|(key, _)| key == keys::LEADER);
        }
        Some(txn)
    }

    /// Whoever lives is known to somebody: the gateway that it speaks to, or the store.
    fn is_known(&self) -> bool {
        let Sidecar { lives, at, .. } = &self.sidecar;
        let registration = self.registration();
        let written = self.lists("gw-2", &registration) || self.lists("gw-1", &registration);
        !lives || *at == At::Leader || (*at == At::Gateway && self.gateway_runs) || written || !self.was_written()
    }

    /// A life that never registered anywhere is nobody's to lose.
    const fn was_written(&self) -> bool {
        self.sidecar.session > 0
    }
}

impl Model for Collecting {
    type State = Printed<World>;
    type Action = Action;

    fn init_states(&self) -> Vec<Self::State> {
        vec![Printed(World::new())]
    }

    fn actions(&self, Printed(world): &Self::State, actions: &mut Vec<Action>) {
        if world.steps >= STEPS {
            return;
        }
        actions.push(if world.gateway_runs { Action::GatewayEnds } else { Action::GatewayReturns });
        actions.push(if world.sidecar.lives { Action::SidecarDies } else { Action::SidecarStarts });
        if world.sidecar.lives && world.sidecar.at == At::Nobody {
            actions.push(Action::Registers(At::Leader));
            if world.gateway_runs {
                actions.push(Action::Registers(At::Gateway));
            }
        }
        if !world.gateway_runs {
            actions.push(Action::Looks);
        }
        if world.looked.is_some() {
            actions.push(Action::Decides);
        }
        actions.extend((0..world.decided.len()).map(Action::Reaches));
        actions.push(Action::OtherLeads);
    }

    fn next_state(&self, Printed(world): &Self::State, action: Action) -> Option<Self::State> {
        let mut world = world.clone();
        world.steps += 1;
        match action {
            Action::GatewayEnds => {
                world.gateway_runs = false;
                world.store.apply(&Txn::new().delete(keys::gateway("gw-2")));
                if world.sidecar.at == At::Gateway {
                    world.sidecar.at = At::Nobody;
                }
            }
            Action::GatewayReturns => {
                world.gateway_runs = true;
                world.store.apply(&Txn::new().put(keys::gateway("gw-2"), "here"));
            }
            Action::SidecarDies => (world.sidecar.lives, world.sidecar.at) = (false, At::Nobody),
            Action::SidecarStarts => {
                let incarnation = world.sidecar.incarnation + 1;
                world.sidecar = Sidecar { lives: true, incarnation, session: 0, at: At::Nobody };
            }
            Action::Registers(at) => {
                world.sidecar.session += 1;
                world.sidecar.at = at;
                world.write(if at == At::Leader { "gw-1" } else { "gw-2" });
            }
            Action::Looks => {
                let entry = world.store.entries.get(&slice_key("gw-2"))?.clone();
                let outcome = if world.sidecar.lives { ProbeOutcome::Answered } else { ProbeOutcome::Refused };
                world.looked = Some((entry, outcome));
            }
            Action::Decides => {
                let decided = world.decide(self)?;
                world.looked = None;
                world.decided.push(decided);
            }
            Action::Reaches(index) => {
                let txn = world.decided.remove(index);
                world.store.apply(&txn);
            }
            Action::OtherLeads => {
                world.store.apply(&Txn::new().put(keys::LEADER, "gw-3"));
                world.looked = None;
            }
        }
        Some(Printed(world))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nobody who lives is lost", |_, Printed(world): &Self::State| world.is_known()),
            Property::sometimes("what is dead is collected", |_, Printed(world): &Self::State| {
                !world.sidecar.lives && !world.store.entries.contains_key(&slice_key("gw-2"))
            }),
        ]
    }
}

#[test]
fn in_every_interleaving_collecting_loses_nobody_who_lives() {
    let checked = PRODUCTION.checker().spawn_bfs().join();
    println!("collection: {} states", checked.unique_state_count());
    checked.assert_properties();
    assert!(checked.unique_state_count() > 1_000);
}

#[test]
fn without_probes_or_comparisons_collecting_loses_somebody() {
    for broken in [Collecting { probes: false, ..PRODUCTION }, Collecting { compares: false, ..PRODUCTION }] {
        let checked = broken.checker().spawn_bfs().join();
        checked.assert_any_discovery("nobody who lives is lost");
    }
}
