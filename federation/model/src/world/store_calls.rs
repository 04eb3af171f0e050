//! Asking a store over the network: requests and answers are delayed and lost, and tried again where that is safe.

use eastway_registry::membership::{Answer, Failure, Request};
use eastway_registry::store::{Commit, LeaseId, Op, Txn, keys};
use eastway_registry::{Registration, Slice};

use crate::sabotage::Sabotage;
use crate::world::names::Host;
use crate::world::store::Writer;
use crate::world::{Event, Stop, World};

/// How long a store's answer is waited for, in milliseconds.
const PATIENCE: u64 = 500;
/// How often it is asked, if asking again is safe.
const ATTEMPTS: u32 = 3;
/// How long a session's lease lasts.
pub(crate) const TTL: u64 = 5_000;

/// What a gateway wants of the store: one of each at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Start,
    Writer,
    Session,
    OwnKey,
    Election,
    ListForCollection,
    Collect,
}

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Ask(Request),
    Grant,
    Renew(LeaseId),
}

#[derive(Clone, Debug)]
pub(crate) enum Answered {
    Plain(Answer),
    Granted(LeaseId),
    Renewed(bool),
}

/// A request that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) process: usize,
    pub(crate) purpose: Purpose,
    operation: Operation,
    /// In which life it was asked: the process may have ended when the store hears of it.
    epoch: u64,
    attempts: u32,
}

/// A request on its way to the store.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    id: u64,
    process: usize,
    epoch: u64,
    operation: Operation,
}

impl Operation {
    pub(crate) const fn commit(txn: Txn) -> Self {
        Self::Ask(Request::Commit(txn))
    }

    /// Whether it may be asked again when no answer came.
    fn may_repeat(&self) -> bool {
        match self {
            Self::Ask(Request::Commit(txn)) => txn.is_guarded(),
            Self::Ask(_) | Self::Renew(_) => true,
            Self::Grant => false,
        }
    }
}

impl World {
    /// A process asks the store of its cluster, unless it waits for an answer to the same already.
    pub(crate) fn ask(&mut self, process: usize, purpose: Purpose, operation: Operation) {
        if !self.gateways[process].waits_for.insert(purpose) {
            return;
        }
        self.last_call += 1;
        let id = self.last_call;
        let (operation, epoch) = (self.sabotaged(operation), self.gateways[process].epoch());
        self.calls.insert(id, Call { process, purpose, operation, epoch, attempts: 0 });
        self.send_call(id);
    }

    /// The request as a broken gateway would make it.
    fn sabotaged(&self, mut operation: Operation) -> Operation {
        if let Operation::Ask(Request::Commit(txn)) = &mut operation {
            let is_slice = txn.ops.iter().all(|op| op.key().starts_with(keys::SERVICES));
            let dropped = match self.sabotage() {
                Some(Sabotage::Fencing) if is_slice => Some(keys::EPOCHS),
                Some(Sabotage::Leadership) if is_slice => Some(keys::LEADER),
                _ => None,
            };
            txn.expects.retain(|(key, _)| dropped.is_none_or(|prefix| !key.starts_with(prefix)));
        }
        operation
    }

    fn send_call(&mut self, id: u64) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.attempts += 1;
        let (process, attempts) = (call.process, call.attempts);
        let asked = Asked { id, process, epoch: call.epoch, operation: call.operation.clone() };
        let hosts = self.store_hosts(process);
        if self.network.passes(hosts.0, hosts.1, self.now) {
            let late = if self.is_faulty() && self.rng.u8(..) < 6 { self.rng.u64(300..4_000) } else { 0 };
            let after = self.rng.u64(1..8) + late;
            self.after(after, Event::StoreAsked(asked));
        }
        self.after(PATIENCE, Event::CallDue(id, attempts));
    }

    fn store_hosts(&self, process: usize) -> (Host, Host) {
        let gateway = &self.gateways[process];
        (Host::Gateway(gateway.place), Host::Store(gateway.cluster))
    }

    /// A request has arrived, perhaps long after it was given up.
    pub(crate) fn store_asked(&mut self, Asked { id, process, epoch, operation }: Asked) -> Result<(), Stop> {
        let cluster = self.gateways[process].cluster;
        if self.now < self.store_down_until[cluster] {
            return Ok(());
        }
        let answer = match operation {
            Operation::Grant => {
                let until = self.now + TTL;
                Answered::Granted(self.stores[cluster].grant(until))
            }
            Operation::Renew(lease) => {
                let until = self.now + TTL;
                Answered::Renewed(self.stores[cluster].renew(lease, until))
            }
            Operation::Ask(Request::Get(key)) => {
                Answered::Plain(Answer::Entry(self.stores[cluster].get(&key).cloned()))
            }
            Operation::Ask(Request::List(prefix)) => {
                Answered::Plain(Answer::Listing(self.stores[cluster].list(prefix)))
            }
            Operation::Ask(Request::Commit(txn)) => Answered::Plain(Answer::Commit(self.commit(process, epoch, &txn)?)),
        };
        let hosts = self.store_hosts(process);
        let is_lost = self.is_faulty() && self.rng.u8(..) < 8;
        if is_lost {
            self.count("lost answer of the store");
        } else if self.network.passes(hosts.1, hosts.0, self.now) {
            let after = self.rng.u64(1..8);
            self.after(after, Event::StoreAnswers(id, answer));
        }
        Ok(())
    }

    fn commit(&mut self, process: usize, epoch: u64, txn: &Txn) -> Result<Commit, Stop> {
        let gateway = &self.gateways[process];
        let (cluster, id) = (gateway.cluster, gateway.id.clone());
        let writer = Writer { gateway: &id, epoch };
        let commit = self.stores[cluster].apply(txn, writer, self.now).map_err(Stop::rule)?;
        if let Commit::Applied(revision) = &commit {
            let (revision, ops) = (*revision, &txn.ops);
            self.note(|| {
                let written = ops.iter().map(summary).collect::<Vec<_>>().join(", ");
                format!("store {cluster}: {id} in epoch {epoch} wrote {written} at {revision}")
            });
            self.store_changed(cluster);
        }
        Ok(commit)
    }

    /// Whoever watches the store hears of it some time.
    pub(crate) fn store_changed(&mut self, cluster: usize) {
        for process in 0..self.gateways.len() {
            if self.gateways[process].cluster == cluster && self.gateways[process].is_alive() {
                for which in 0..2 {
                    self.wake_watch(process, which);
                }
            }
        }
    }

    pub(crate) fn wake_watch(&mut self, process: usize, which: usize) {
        let Some(core) = &mut self.gateways[process].core else { return };
        if !std::mem::replace(&mut core.watch_woken[which], true) {
            let lag = if self.is_faulty() && self.rng.u8(..) < 20 { self.rng.u64(100..3_000) } else { 0 };
            let after = self.rng.u64(1..15) + lag;
            self.after(after, Event::Watch(process, which));
        }
    }

    /// An answer has been waited for long enough.
    pub(crate) fn call_due(&mut self, id: u64, attempt: u32) -> Result<(), Stop> {
        let Some(call) = self.calls.get(&id).filter(|call| call.attempts == attempt) else { return Ok(()) };
        if call.attempts < ATTEMPTS && call.operation.may_repeat() {
            self.send_call(id);
            return Ok(());
        }
        self.call_ends(id, Err(Failure::Unanswered))
    }

    pub(crate) fn call_ends(&mut self, id: u64, answer: Result<Answered, Failure>) -> Result<(), Stop> {
        let Some(call) = self.calls.get(&id) else { return Ok(()) };
        let (process, purpose) = (call.process, call.purpose);
        if self.gateways[process].paused_until > self.now
            && let Ok(answer) = answer
        {
            // It lies in the socket until the process goes on.
            let until = self.gateways[process].paused_until - self.now;
            self.after(until, Event::StoreAnswers(id, answer));
            return Ok(());
        }
        self.calls.remove(&id);
        self.gateways[process].waits_for.remove(&purpose);
        if !self.gateways[process].is_alive() {
            return Ok(());
        }
        self.answered(process, purpose, answer)
    }
}

/// What a write does, for a reader.
fn summary(op: &Op) -> String {
    let key = op.key();
    let Op::Put { value, .. } = op else { return format!("{key} (deleted)") };
    let slice = serde_json::from_slice::<Slice>(value).unwrap_or_default();
    let version = |r: &Registration| format!("{} {:?}", r.endpoint, r.version());
    match slice.endpoints.is_empty() {
        true => key.to_owned(),
        false => format!("{key} ({})", slice.endpoints.iter().map(version).collect::<Vec<_>>().join(", ")),
    }
}
