//! A source that changes, restarts and states what it has on a stream that breaks and loses; a reader and a mirror at the other
//! end.

use std::collections::{BTreeMap, VecDeque};

use eastway_core::Version;
use eastway_registry::{Fact, Mirror, Reader, Statement};
use stateright::{Checker, Model, Property};

use super::Printed;

/// The instance.
#[derive(Clone, Debug)]
struct Mirroring {
    /// A stream with a hole is given up, as it is in production.
    resyncs: bool,
    /// What is lost may be followed by other statements before the next heartbeat. A stream of production does not do that: it
    /// is reliable, and whoever cannot send ends it. Versions alone would not show it, because they have gaps of their own.
    covers_holes: bool,
}

const PRODUCTION: Mirroring = Mirroring { resyncs: true, covers_holes: false };

#[derive(Clone, Debug)]
struct World {
    values: BTreeMap<u8, u64>,
    version: Version,
    stream: VecDeque<(Version, Statement<u8, u64>)>,
    reader: Option<Reader<u8, u64>>,
    mirror: Mirror<u8, u64>,
    /// What the source had at each of its versions.
    past: BTreeMap<Version, BTreeMap<u8, u64>>,
    /// The version that a heartbeat confirmed last, if nothing was taken since.
    confirmed: Option<Version>,
    /// The greatest version that the mirror ever had.
    highest: Option<Version>,
    regressed: bool,
    changes: u8,
    lost: u8,
    /// The last statement on the stream is lost.
    holed: bool,
    opened: u8,
    beaten: u8,
}

const CHANGES: u8 = 3;
const LOST: u8 = 1;
const OPENED: u8 = 3;
const BEATEN: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    /// A key gets a value that it never had, or is removed.
    Change(u8, bool),
    Restart,
    Heartbeat,
    Arrives,
    IsLost,
    Breaks,
    Opens,
}

impl World {
    fn new() -> Self {
        let version = Version::new(1, 0);
        Self {
            values: BTreeMap::new(),
            version,
            stream: VecDeque::new(),
            reader: None,
            mirror: Mirror::new(10),
            past: [(version, BTreeMap::new())].into(),
            confirmed: None,
            highest: None,
            regressed: false,
            changes: 0,
            lost: 0,
            holed: false,
            opened: 0,
            beaten: 0,
        }
    }

    fn change(&mut self, key: u8, removes: bool) {
        self.changes += 1;
        self.version = Version::new(self.version.epoch, self.version.seq + 1);
        let statement = match removes {
            true => {
                self.values.remove(&key);
                Statement::Removed(key)
            }
            false => {
                let value = self.version.epoch * 100 + self.version.seq;
                self.values.insert(key, value);
                Statement::Service(key, value)
            }
        };
        self.past.insert(self.version, self.values.clone());
        if self.reader.is_some() {
            self.stream.push_back((self.version, statement));
        }
    }

    /// The source forgets all, in another life.
    fn restart(&mut self) {
        self.changes += 1;
        self.values.clear();
        self.version = Version::new(self.version.epoch + 1, 0);
        self.past.insert(self.version, BTreeMap::new());
        self.close();
    }

    fn close(&mut self) {
        (self.reader, self.holed) = (None, false);
        self.stream.clear();
    }

    fn open(&mut self) {
        self.opened += 1;
        self.reader = Some(Reader::new(self.version, 10));
        let values = self.values.iter().map(|(key, value)| (self.version, Statement::Service(*key, *value)));
        self.stream = values.collect();
        self.stream.push_back((self.version, Statement::SnapshotEnd(self.values.len())));
    }

    fn arrive(&mut self, resyncs: bool) {
        let Some(reader) = &mut self.reader else { return };
        let Some((version, statement)) = self.stream.pop_front() else { return };
        self.confirmed = None;
        match reader.read(version, statement) {
            Ok(Some(Fact::Snapshot(version, values))) => drop(self.mirror.snapshot(version, values)),
            Ok(Some(Fact::Change(version, key, value))) => drop(self.mirror.change(key, version, value)),
            // Without the rule, what the heartbeat says is believed.
            Ok(Some(Fact::Alive)) => self.confirmed = Some(version),
            Err(_) if !resyncs => self.confirmed = Some(version),
            Ok(_) => {}
            Err(_) => self.close(),
        }
        let version = self.mirror.version();
        self.regressed |= version < self.highest;
        self.highest = version.max(self.highest);
    }

    fn mirrored(&self) -> BTreeMap<u8, u64> {
        self.mirror.iter().map(|(key, value)| (*key, *value)).collect()
    }
}

impl Model for Mirroring {
    type State = Printed<World>;
    type Action = Action;

    fn init_states(&self) -> Vec<Self::State> {
        vec![Printed(World::new())]
    }

    fn actions(&self, Printed(world): &Self::State, actions: &mut Vec<Action>) {
        if world.changes < CHANGES && (self.covers_holes || !world.holed) {
            for key in 0..2 {
                actions.push(Action::Change(key, false));
                if world.values.contains_key(&key) {
                    actions.push(Action::Change(key, true));
                }
            }
            actions.push(Action::Restart);
        }
        if world.reader.is_none() {
            if world.opened < OPENED {
                actions.push(Action::Opens);
            }
            return;
        }
        actions.push(Action::Breaks);
        if world.beaten < BEATEN {
            actions.push(Action::Heartbeat);
        }
        if !world.stream.is_empty() {
            actions.push(Action::Arrives);
            if world.lost < LOST && (self.covers_holes || world.stream.len() == 1) {
                actions.push(Action::IsLost);
            }
        }
    }

    fn next_state(&self, Printed(world): &Self::State, action: Action) -> Option<Self::State> {
        let mut world = world.clone();
        match action {
            Action::Change(key, removes) => world.change(key, removes),
            Action::Restart => world.restart(),
            Action::Heartbeat => {
                world.beaten += 1;
                world.stream.push_back((world.version, Statement::Heartbeat));
            }
            Action::Arrives => world.arrive(self.resyncs),
            Action::IsLost => {
                (world.lost, world.holed) = (world.lost + 1, true);
                world.stream.pop_front();
            }
            Action::Breaks => world.close(),
            Action::Opens => world.open(),
        }
        Some(Printed(world))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a mirror that is confirmed equals its source", |_, Printed(world): &Self::State| {
                // Before its snapshot is whole a stream confirms that somebody lives, and nothing else.
                let live = world.reader.as_ref().is_some_and(Reader::is_live);
                let confirmed = world.confirmed.filter(|_| live);
                confirmed.is_none_or(|version| world.past.get(&version) == Some(&world.mirrored()))
            }),
            Property::always("a mirror never goes back", |_, Printed(world): &Self::State| !world.regressed),
            Property::sometimes("a change is mirrored", |_, Printed(world): &Self::State| {
                world.confirmed.is_some() && !world.mirrored().is_empty()
            }),
        ]
    }
}

#[test]
fn in_every_interleaving_a_mirror_that_is_confirmed_equals_its_source() {
    let checked = PRODUCTION.checker().spawn_bfs().join();
    println!("mirror: {} states", checked.unique_state_count());
    checked.assert_properties();
    assert!(checked.unique_state_count() > 1_000);
}

#[test]
fn a_stream_with_a_hole_that_is_read_on_makes_a_mirror_that_is_wrong() {
    let checked = Mirroring { resyncs: false, ..PRODUCTION }.checker().spawn_bfs().join();
    checked.assert_any_discovery("a mirror that is confirmed equals its source");
}

/// A limit that is known: it takes a transport that loses in the middle of a stream.
#[test]
fn a_hole_that_other_statements_cover_is_not_noticed() {
    let checked = Mirroring { covers_holes: true, ..PRODUCTION }.checker().spawn_bfs().join();
    checked.assert_any_discovery("a mirror that is confirmed equals its source");
}
