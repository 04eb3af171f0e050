//! Writing a gateway's own slices: one request to the store after the other, each in the gateway's own life.
//!
//! ```text
//! begin ─► compare: is the life in the store? ─► list ─┐        (only if the store may hold anything)
//!                     │ lost: restore it               ▼
//!                     └──────────────────────────► write slice by slice ─► end: what is left, and how long to wait
//!                            conflict: learn what is there, judge the life, try again
//! ```
//!
//! What the store holds is knowledge that may be wrong at any time: a write compares with it, and finds out. Called by the
//! gateway's membership task, the simulation and the model checker alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eastway_core::Timestamp;

use super::life::Standing;
use super::stuck::Stuck;
use super::{Found, Life, RETRY, RETRY_MAX, SliceName, Wanted, to_json};
use crate::Slice;
use crate::store::keys::{self, Key};
use crate::store::{Commit, Expect, Listing, StoreEntry, Txn};

/// How often a slice is tried against a store that turns out to hold something else.
const ATTEMPTS: u32 = 8;

/// What the store is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The entry at a key.
    Get(String),
    /// All entries under a prefix.
    List(&'static str),
    /// To apply a transaction.
    Commit(Txn),
}

/// What the store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::Get`].
    Entry(Option<StoreEntry>),
    /// To [`Request::List`].
    Listing(Listing),
    /// To [`Request::Commit`].
    Commit(Commit),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The store refuses this request, and will again.
    Refused,
    /// It did not answer: what was asked may have happened, or may not.
    Unanswered,
}

/// What an operator should hear of.
#[derive(Clone, Debug, PartialEq)]
pub enum Noted {
    /// The store held other slices than this gateway has, so many.
    Differing(usize),
    /// The store had lost this gateway's life, which is in it again. It may name another uid of the cluster now.
    Restored {
        /// That uid.
        other_uid: Option<String>,
    },
    /// Another process has taken over the gateway's id, in this epoch. Nothing is written any more.
    Replaced(u64),
    /// This life began without the store, which lists own slices of lives before it: what they list and is not known is to be
    /// loaded, as at any other start ([`crate::Catalogue::load_slice`]), before the next request.
    Inherited(Vec<(SliceName, Slice)>),
    /// Something in the store changed again and again; it is tried later.
    Unsettled(String),
}

/// How a round of writing ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundEnd {
    /// Slices that were not written, to be handed to the next round.
    pub left: BTreeSet<SliceName>,
    /// How long to wait before the next round; zero if there was no failure.
    pub pause: Duration,
}

/// A gateway's own slices on their way into the store.
#[derive(Clone, Debug)]
pub struct Writer {
    gateway: Arc<str>,
    life: Life,
    /// The own slices as the store holds them, as far as known.
    stored: BTreeMap<String, StoreEntry>,
    /// Those that the store refuses.
    stuck: Stuck,
    /// The store may hold anything: compare all.
    doubt: bool,
    /// The life began without the store, whose own slices have not been seen since.
    began_without: bool,
    /// The epoch of the process that took over this gateway's id.
    replaced: Option<u64>,
    pause: Duration,
    round: Round,
}

/// What is under way.
#[derive(Clone, Debug, Default)]
struct Round {
    task: Option<Task>,
    /// The request that is to be answered.
    step: Option<Step>,
    /// What is known of the life, while it is being restored.
    found: Found,
    todo: BTreeSet<SliceName>,
    left: BTreeSet<SliceName>,
    /// Slices of which the watch spoke since the request was made: the answer may be older than that.
    seen: BTreeSet<SliceName>,
    failed: bool,
}

#[derive(Clone, Debug)]
enum Task {
    Compare,
    Write { slice: SliceName, attempts: u32 },
}

#[derive(Clone, Debug)]
enum Step {
    /// Is the life in the store?
    Life,
    /// What is the cluster's entry, beside which the life is to be restored?
    Meta,
    Restore(Txn, Option<String>),
    List,
    Write(Txn, Option<Bytes>),
}

impl Writer {
    /// Nothing is known yet of what the store holds.
    pub fn new(gateway: impl Into<Arc<str>>, life: Life) -> Self {
        let (stored, stuck, round) = (BTreeMap::new(), Stuck::default(), Round::default());
        let began_without = !life.is_claimed();
        let gateway = gateway.into();
        Self { gateway, life, stored, stuck, doubt: false, began_without, replaced: None, pause: RETRY, round }
    }

    /// The life in which it writes.
    pub const fn life(&self) -> &Life {
        &self.life
    }

    /// The epoch of the process that took over this gateway's id, once one did: nothing is written any more.
    pub const fn replaced(&self) -> Option<u64> {
        self.replaced
    }

    /// The store may have lost or changed what this gateway wrote: the next round compares all of it.
    pub const fn doubt(&mut self) {
        self.doubt = true;
    }

    /// Whether a comparison is due.
    pub const fn is_in_doubt(&self) -> bool {
        self.doubt && self.replaced.is_none()
    }

    /// When slices that the store refused are to be tried again.
    pub fn next_retry(&self) -> Option<Timestamp> {
        self.stuck.next()
    }

    /// Begins a round, with slices that changed. One that was not finished is given up; what it had in hand must be among them.
    pub fn begin(&mut self, changed: BTreeSet<SliceName>, now: Timestamp) {
        let mut todo = changed;
        todo.extend(self.stuck.due(now));
        // What lives before it had written is loaded before anything is written over it.
        let compares = std::mem::take(&mut self.doubt) || self.began_without;
        let (task, step) = match compares {
            true => (Some(Task::Compare), Some(Step::Life)),
            false => (None, None),
        };
        self.round = Round { task, step, todo, ..Round::default() };
    }

    /// What to ask the store; hand the answer to [`Writer::answered`]. `None`: the round is over, [`Writer::end`] it.
    pub fn next(&mut self, wanted: &impl Wanted) -> Option<Request> {
        if self.replaced.is_some() {
            return None;
        }
        self.round.seen.clear();
        while self.round.step.is_none() {
            if self.round.task.is_none() {
                let slice = self.round.todo.pop_first()?;
                self.round.task = Some(Task::Write { slice, attempts: 0 });
            }
            if let Some(Task::Write { slice, attempts }) = self.round.task.clone() {
                self.try_slice(slice, attempts, wanted);
            }
        }
        self.round.step.as_ref().map(|step| match step {
            Step::Life => Request::Get(self.life.key()),
            Step::Meta => Request::Get(keys::META.to_owned()),
            Step::List => Request::List(keys::SERVICES),
            Step::Restore(txn, _) | Step::Write(txn, _) => Request::Commit(txn.clone()),
        })
    }

    /// The store's answer to the last request, when the wall clock shows `wall_clock`, in milliseconds since 1970.
    pub fn answered(
        &mut self,
        answer: Result<Answer, Failure>,
        wanted: &impl Wanted,
        now: Timestamp,
        wall_clock: u64,
    ) -> Option<Noted> {
        match (self.round.step.take()?, answer) {
            (_, Err(failure)) => self.fail(failure, now),
            (Step::Life, Ok(Answer::Entry(found))) => return self.settle(found, wall_clock),
            (Step::Meta, Ok(Answer::Entry(meta))) => {
                self.round.found.meta = meta;
                let (txn, other_uid) = self.life.restore(&self.round.found);
                self.round.step = Some(Step::Restore(txn, other_uid));
            }
            (Step::Restore(_, other_uid), Ok(Answer::Commit(commit))) => {
                if self.life.claimed(&commit) {
                    self.proceed();
                    return Some(Noted::Restored { other_uid });
                }
                return self.unsettled(keys::META.to_owned(), now);
            }
            (Step::List, Ok(Answer::Listing(listing))) => return self.compare(listing, wanted),
            (Step::Write(_, value), Ok(Answer::Commit(commit))) => return self.wrote(value, commit, now, wall_clock),
            (_, Ok(_)) => self.fail(Failure::Unanswered, now),
        }
        None
    }

    /// Ends the round.
    pub fn end(&mut self) -> RoundEnd {
        let mut round = std::mem::take(&mut self.round);
        round.left.append(&mut round.todo);
        if let Some(Task::Write { slice, .. }) = round.task {
            round.left.insert(slice);
        }
        if !round.failed {
            self.pause = RETRY;
            return RoundEnd { left: round.left, pause: Duration::ZERO };
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(RETRY_MAX);
        RoundEnd { left: round.left, pause }
    }

    /// The store was seen to hold this under an own slice's key. Whoever wrote it, this gateway is its writer: true if it is
    /// not as it should be, and the slice is to be written.
    pub fn suspect(&mut self, slice: &SliceName, found: Option<StoreEntry>, wanted: &impl Wanted) -> bool {
        self.know(&self.key(slice), found);
        self.round.seen.insert(slice.clone());
        self.differs(slice, wanted)
    }

    /// Asks for a slice to be written, unless the store is known to hold it so.
    fn try_slice(&mut self, slice: SliceName, attempts: u32, wanted: &impl Wanted) {
        let key = self.key(&slice);
        let value = wanted.slice(&slice).map(|slice| to_json(&slice));
        let known = self.stored.get(&key);
        if value.as_ref() == known.map(|entry| &entry.value) {
            self.stuck.written(&slice);
            self.round.task = None;
            return;
        }
        let expect = known.map_or(Expect::Absent, |entry| Expect::At(entry.revision));
        let txn = self.life.fenced().when(&key, expect);
        let txn = match &value {
            Some(value) => txn.put(&key, value.clone()),
            None => txn.delete(&key),
        };
        self.round.task = Some(Task::Write { slice, attempts: attempts + 1 });
        self.round.step = Some(Step::Write(txn, value));
    }

    fn wrote(&mut self, value: Option<Bytes>, commit: Commit, now: Timestamp, wall_clock: u64) -> Option<Noted> {
        let Some(Task::Write { slice, attempts }) = self.round.task.clone() else { return None };
        let key = self.key(&slice);
        match commit {
            Commit::Applied(revision) => {
                let entry = value.map(|value| StoreEntry { key: key.clone(), value, revision, lease: None });
                self.learn(&slice, entry);
                self.stuck.written(&slice);
                self.round.task = None;
                None
            }
            Commit::Conflict(found) => {
                let mut found = found.into_iter();
                let life = found.next().flatten();
                self.learn(&slice, found.next().flatten());
                if attempts >= ATTEMPTS { self.unsettled(key, now) } else { self.settle(life, wall_clock) }
            }
        }
    }

    /// Goes on if the store holds this life; restores it if the store has lost it.
    fn settle(&mut self, found: Option<StoreEntry>, wall_clock: u64) -> Option<Noted> {
        match self.life.judge(found.as_ref(), wall_clock) {
            Standing::Current => self.proceed(),
            Standing::Lost => {
                self.round.found.life = found;
                self.round.step = Some(Step::Meta);
            }
            Standing::Replaced { epoch } => {
                self.replaced = Some(epoch);
                return Some(Noted::Replaced(epoch));
            }
        }
        None
    }

    /// The life is in the store: on with the task.
    fn proceed(&mut self) {
        self.round.step = matches!(self.round.task, Some(Task::Compare)).then_some(Step::List);
    }

    /// Notes which of the slices differ, are missing or should not be there.
    fn compare(&mut self, listing: Listing, wanted: &impl Wanted) -> Option<Noted> {
        let found: Vec<_> = listing
            .entries
            .into_iter()
            .filter_map(|entry| Some((own_slice(&self.gateway, &entry.key)?, entry)))
            .collect();
        let mut suspects = wanted.slices();
        suspects.extend(found.iter().map(|(slice, _)| slice.clone()));
        let seen: BTreeSet<String> = self.round.seen.iter().map(|slice| self.key(slice)).collect();
        self.stored.retain(|key, _| seen.contains(key));
        for (slice, entry) in found {
            self.learn(&slice, Some(entry));
        }
        let differing: Vec<_> = suspects.into_iter().filter(|slice| self.differs(slice, wanted)).collect();
        self.round.task = None;
        if std::mem::take(&mut self.began_without) {
            // Once they are loaded it is compared again.
            self.doubt = true;
            let inherited = self.stored.values().filter_map(|entry| {
                let slice = own_slice(&self.gateway, &entry.key)?;
                Some((slice, serde_json::from_slice(&entry.value).ok()?))
            });
            return Some(Noted::Inherited(inherited.collect()));
        }
        let count = differing.len();
        self.round.todo.extend(differing);
        (count > 0).then_some(Noted::Differing(count))
    }

    /// What was asked last has no answer.
    fn fail(&mut self, failure: Failure, now: Timestamp) {
        match self.round.task.take() {
            Some(Task::Write { slice, .. }) if failure == Failure::Refused => self.stuck.refused(slice, now),
            Some(Task::Write { slice, .. }) => {
                self.round.left.insert(slice);
                self.round.failed = true;
            }
            // Nothing is written into a store of which nothing is known.
            Some(Task::Compare) => {
                self.doubt = true;
                self.round.left.append(&mut self.round.todo);
                self.round.failed = true;
            }
            None => {}
        }
    }

    fn unsettled(&mut self, key: String, now: Timestamp) -> Option<Noted> {
        self.fail(Failure::Unanswered, now);
        Some(Noted::Unsettled(key))
    }

    /// An answer says what the store holds under a slice's key. If the watch spoke of it meanwhile, it counts: where it lags behind,
    /// the next write finds out, and it has not said its last.
    fn learn(&mut self, slice: &SliceName, entry: Option<StoreEntry>) {
        if !self.round.seen.contains(slice) {
            self.know(&self.key(slice), entry);
        }
    }

    fn know(&mut self, key: &str, entry: Option<StoreEntry>) {
        match entry {
            Some(entry) => drop(self.stored.insert(key.to_owned(), entry)),
            None => drop(self.stored.remove(key)),
        }
    }

    fn differs(&self, slice: &SliceName, wanted: &impl Wanted) -> bool {
        let wanted = wanted.slice(slice).map(|slice| to_json(&slice));
        wanted.as_ref() != self.stored.get(&self.key(slice)).map(|entry| &entry.value)
    }

    fn key(&self, (service, index): &SliceName) -> String {
        keys::slice(service, &self.gateway, *index)
    }
}

/// The slice under `key`, if it is one of the gateway's own.
pub(super) fn own_slice(own: &str, key: &str) -> Option<SliceName> {
    match Key::parse(key)? {
        Key::Slice { service, gateway, index } if *gateway == *own => Some((service, index)),
        _ => None,
    }
}
