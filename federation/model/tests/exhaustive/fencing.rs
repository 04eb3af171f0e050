//! Two processes of one gateway, each in a life of its own, write the same slice through one store. Requests are delayed for as
//! long as it takes, answers are lost, and either process may end at any time.

use std::collections::{BTreeMap, BTreeSet};

use eastway_core::{EndpointId, ServiceName, Timestamp};
use eastway_registry::membership::{Answer, Claim, Failure, Found, Life, Request, SliceName, Wanted, Writer};
use eastway_registry::store::{Commit, Op, Txn, keys};
use eastway_registry::{Registration, Slice};
use stateright::{Checker, Model, Property};

use super::Printed;
use super::memory::Memory;

const GATEWAY: &str = "gw-1";
const NOW: u64 = 1_800_000_000_000;

/// The instance; `fenced`: writes compare the key of the epoch, as they do in production.
#[derive(Clone, Debug)]
struct Lives {
    fenced: bool,
}

#[derive(Clone, Debug, Default)]
struct World {
    store: Memory,
    processes: [Process; 2],
    /// Requests whose process no longer waits for them, with the epoch in which they were made.
    delayed: Vec<(Txn, u64)>,
    /// How often an answer was given up.
    lost: usize,
    /// A write was applied that was made in a life which was not the latest.
    overwritten: bool,
}

#[derive(Clone, Debug, Default)]
enum Process {
    #[default]
    NotBegun,
    /// It has read the store, and its claim is under way.
    Claiming(Box<Life>, Txn),
    Running(Box<Writer>),
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    /// A process reads the store, and claims a life.
    Begin(usize),
    /// What a process asked for reaches the store; the answer comes back, or does not.
    Reaches(usize, bool),
    /// A process gives up waiting, though what it asked for is still under way.
    GivesUp(usize),
    /// A request that nobody waits for reaches the store.
    Late(usize),
    Ends(usize),
}

/// How many answers may be lost.
const MOST_LOST: usize = 2;

struct Own(usize);

impl Wanted for Own {
    fn slice(&self, _: &SliceName) -> Option<Slice> {
        let registration = Registration {
            service: name().0,
            endpoint: EndpointId::new(format!("of-process-{}", self.0)),
            account: "payments".to_owned(),
            zone: "a".into(),
            address: ([10, 0, 0, 1], 15008).into(),
            weight: 1.0,
            capacity: 0,
            labels: Default::default(),
            incarnation: 1,
            session: 1,
        };
        Some(Slice { endpoints: vec![registration] })
    }

    fn slices(&self) -> BTreeSet<SliceName> {
        [name()].into()
    }
}

fn name() -> SliceName {
    (ServiceName::new("shop", "payments"), 0)
}

impl World {
    fn begin(&mut self, number: usize) {
        let entry = |key: &str| self.store.entries.get(key).cloned();
        let found = Found { meta: entry(keys::META), life: entry(&keys::epoch(GATEWAY)), last: None };
        let claim = Claim {
            gateway: GATEWAY.to_owned(),
            cluster: "eu-west".to_owned(),
            region: "eu".to_owned(),
            trust_domain: "eu.example".to_owned(),
            zones: BTreeMap::new(),
            trust_bundle: Vec::new(),
            uid: "uid".to_owned(),
            process: number.to_string(),
        };
        let life = Life::after(claim, &found, NOW).expect("the own store");
        let txn = life.claim(&found);
        self.processes[number] = Process::Claiming(Box::new(life), txn);
    }

    /// What a process waits for, with its epoch.
    fn asked(&mut self, number: usize, fenced: bool) -> Option<(Request, u64)> {
        let (mut request, epoch) = match &mut self.processes[number] {
            Process::Claiming(life, txn) => (Request::Commit(txn.clone()), life.epoch()),
            Process::Running(writer) => (writer.next(&Own(number))?, writer.life().epoch()),
            Process::NotBegun | Process::Ended => return None,
        };
        if let Request::Commit(txn) = &mut request
            && !fenced
            && is_of_slice(txn)
        {
            txn.expects.retain(|(key, _)| !key.starts_with(keys::EPOCHS));
        }
        Some((request, epoch))
    }

    fn reach(&mut self, request: &Request, epoch: u64) -> Answer {
        let latest = self.epoch();
        let answer = self.store.answer(request);
        if let (Request::Commit(txn), Answer::Commit(Commit::Applied(_))) = (request, &answer) {
            self.overwritten |= is_of_slice(txn) && latest != Some(epoch);
        }
        answer
    }

    /// The latest life, as the store has it.
    fn epoch(&self) -> Option<u64> {
        let entry = self.store.entries.get(&keys::epoch(GATEWAY))?;
        serde_json::from_slice::<serde_json::Value>(&entry.value).ok()?["epoch"].as_u64()
    }

    fn hear(&mut self, number: usize, answer: Result<Answer, Failure>) {
        let process = std::mem::take(&mut self.processes[number]);
        self.processes[number] = match (process, answer) {
            (Process::Claiming(mut life, _), Ok(Answer::Commit(commit))) => match life.claimed(&commit) {
                true => {
                    let mut writer = Writer::new(GATEWAY, *life);
                    writer.begin([name()].into(), Timestamp::ZERO);
                    Process::Running(Box::new(writer))
                }
                false => Process::NotBegun,
            },
            (Process::Claiming(..), _) => Process::NotBegun,
            (Process::Running(mut writer), answer) => {
                writer.answered(answer, &Own(number), Timestamp::ZERO, NOW);
                if writer.next(&Own(number)).is_none() {
                    let left = writer.end().left;
                    // What is not written is written in another round, which compares.
                    if !left.is_empty() && writer.replaced().is_none() {
                        writer.doubt();
                        writer.begin(left, Timestamp::ZERO);
                    }
                }
                Process::Running(writer)
            }
            (process, _) => process,
        };
    }

    fn give_up(&mut self, number: usize, fenced: bool) {
        if let Some((Request::Commit(txn), epoch)) = self.asked(number, fenced) {
            self.delayed.push((txn, epoch));
        }
        self.lost += 1;
        self.hear(number, Err(Failure::Unanswered));
    }
}

fn is_of_slice(txn: &Txn) -> bool {
    txn.ops.iter().map(Op::key).all(|key| key.starts_with(keys::SERVICES))
}

impl Model for Lives {
    type State = Printed<World>;
    type Action = Action;

    fn init_states(&self) -> Vec<Self::State> {
        vec![Printed(World::default())]
    }

    fn actions(&self, Printed(world): &Self::State, actions: &mut Vec<Action>) {
        for number in 0..2 {
            let asks = world.clone().asked(number, self.fenced).is_some();
            match &world.processes[number] {
                Process::NotBegun => actions.push(Action::Begin(number)),
                Process::Claiming(..) | Process::Running(_) => {
                    actions.push(Action::Ends(number));
                    if asks {
                        actions.push(Action::Reaches(number, true));
                    }
                    if asks && world.lost < MOST_LOST {
                        actions.extend([Action::Reaches(number, false), Action::GivesUp(number)]);
                    }
                }
                Process::Ended => {}
            }
        }
        actions.extend((0..world.delayed.len()).map(Action::Late));
    }

    fn next_state(&self, Printed(world): &Self::State, action: Action) -> Option<Self::State> {
        let mut world = world.clone();
        match action {
            Action::Begin(number) => world.begin(number),
            Action::Reaches(number, answered) => {
                let (request, epoch) = world.asked(number, self.fenced)?;
                let answer = world.reach(&request, epoch);
                world.lost += usize::from(!answered);
                world.hear(number, if answered { Ok(answer) } else { Err(Failure::Unanswered) });
            }
            Action::GivesUp(number) => world.give_up(number, self.fenced),
            Action::Late(index) => {
                let (txn, epoch) = world.delayed.remove(index);
                world.reach(&Request::Commit(txn), epoch);
            }
            Action::Ends(number) => {
                if let Some((Request::Commit(txn), epoch)) = world.asked(number, self.fenced) {
                    world.delayed.push((txn, epoch));
                }
                world.processes[number] = Process::Ended;
            }
        }
        Some(Printed(world))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("only the latest life writes", |_, Printed(world): &Self::State| !world.overwritten),
            Property::sometimes("a former life finds out", |_, Printed(world): &Self::State| {
                world.processes.iter().any(|p| matches!(p, Process::Running(writer) if writer.replaced().is_some()))
            }),
            Property::sometimes("a slice is written", |_, Printed(world): &Self::State| {
                world.store.entries.keys().any(|key| key.starts_with(keys::SERVICES))
            }),
        ]
    }
}

#[test]
fn in_every_interleaving_only_the_latest_life_of_a_gateway_writes_its_slices() {
    let checked = Lives { fenced: true }.checker().spawn_bfs().join();
    println!("fencing: {} states", checked.unique_state_count());
    checked.assert_properties();
    assert!(checked.unique_state_count() > 1_000);
}

#[test]
fn without_the_comparison_a_former_life_writes_over_its_successor() {
    let checked = Lives { fenced: false }.checker().spawn_bfs().join();
    checked.assert_any_discovery("only the latest life writes");
}
