//! Virtual addresses: which number each name has in this cluster. An address is a number in a network that each node adds.
//!
//! A name gets its number once, in the store, and keeps it for as long as some node follows it: its clients may have looked it
//! up once and for all. A number that was freed is nobody else's for an hour. Called by the gateway (`federation/server`), which
//! hands over what the store says, and applies the transactions. Never: I/O or clocks; times are seconds since 1970, because they
//! outlive the gateways.

use std::collections::BTreeMap;

use eastway_core::MeshHost;
use serde::{Deserialize, Serialize};

use crate::membership::to_json;
use crate::store::keys::{self, Key};
use crate::store::{Change, Expect, Known, Revision, StoreEntry, Txn};

/// Numbers are below this: as many as addresses in 127.64.0.0/10.
pub const NUMBERS: u32 = 1 << 22;

/// The first numbers are no names': they are for what nodes may want addresses for themselves.
const RESERVED: u32 = 256;

/// A name that is in use is stored as that again after so long.
const RENEWED: u64 = 6 * HOUR;

/// A name that nobody has used for so long loses its number.
const KEPT: u64 = 7 * 24 * HOUR;

/// A number that was freed is no other name's for so long.
const QUARANTINE: u64 = HOUR;

const HOUR: u64 = 3_600;

/// How many numbers are looked at for a name: with one of forty taken, that all of them are happens to nobody.
const TRIES: u32 = 64;

/// The numbers of names, as the store says.
#[derive(Clone, Debug)]
pub struct Virtuals {
    names: BTreeMap<MeshHost, Held<StoredName>>,
    numbers: BTreeMap<u32, Held<StoredNumber>>,
    /// What names had that are no longer stored: a store that was restored may have forgotten them.
    former: BTreeMap<MeshHost, u32>,
    limit: usize,
}

#[derive(Clone, Debug)]
struct Held<T> {
    revision: Revision,
    value: T,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredName {
    number: u32,
    /// When it was last in use, or some time before that.
    used: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredNumber {
    name: MeshHost,
    /// When the name lost it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    freed: Option<u64>,
}

/// Why a name gets no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNumber {
    /// It has one.
    #[error("it has one")]
    Held,
    /// As many names as are taken have one.
    #[error("{0} names have virtual addresses, and no more may")]
    Limit(usize),
    /// All that it could have are others'.
    #[error("the numbers that it could have are taken")]
    Taken,
}

impl Virtuals {
    /// Nothing is known yet; at most `limit` names will have a number.
    pub const fn new(limit: usize) -> Self {
        Self { names: BTreeMap::new(), numbers: BTreeMap::new(), former: BTreeMap::new(), limit }
    }

    /// The number of the name, if it has one.
    pub fn number(&self, host: &MeshHost) -> Option<u32> {
        self.names.get(host).map(|held| held.value.number)
    }

    /// How many names have one.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// The store changed. Answers the name of which that is news: it has another number now, or none.
    pub fn change(&mut self, change: &Change) -> Option<MeshHost> {
        let (entry, gone) = match change {
            Change::Put(entry) => (entry, false),
            Change::Delete(entry) => (entry, true),
            Change::Ready(_) | Change::Relisted(_) => return None,
        };
        match Key::parse(&entry.key)? {
            Key::VirtualName(host) if gone => {
                let held = self.names.remove(&host)?;
                if self.former.len() < self.limit {
                    self.former.insert(host.clone(), held.value.number);
                }
                Some(host)
            }
            Key::VirtualName(host) => {
                let held: Held<StoredName> = read(entry)?;
                let number = held.value.number;
                let before = self.names.insert(host.clone(), held);
                self.former.remove(&host);
                before.is_none_or(|before| before.value.number != number).then_some(host)
            }
            Key::VirtualNumber(number) => {
                match gone {
                    true => drop(self.numbers.remove(&number)),
                    false => drop(self.numbers.insert(number, read(entry)?)),
                }
                None
            }
            _ => None,
        }
    }

    /// What was taken over from an earlier copy of the store, and is not in `known`, is gone. Answers those names.
    pub fn keep(&mut self, known: &Known) -> Vec<MeshHost> {
        let held =
            self.names.keys().map(keys::virtual_name).chain(self.numbers.keys().copied().map(keys::virtual_number));
        let gone: Vec<String> = held.filter(|key| !known.entries().contains_key(key)).collect();
        let gone = gone.into_iter().map(|key| StoreEntry { key, value: Default::default(), revision: 0, lease: None });
        gone.filter_map(|entry| self.change(&Change::Delete(entry))).collect()
    }

    /// What gives the name a number at `now`, if the store is as it is known here.
    ///
    /// # Errors
    /// Why it gets none.
    pub fn allot(&self, host: &MeshHost, now: u64) -> Result<Txn, NoNumber> {
        if self.names.contains_key(host) {
            return Err(NoNumber::Held);
        }
        if self.names.len() >= self.limit {
            return Err(NoNumber::Limit(self.limit));
        }
        let mut candidates = self.former.get(host).copied().into_iter().chain(candidates(host));
        let found = candidates.find_map(|number| Some((number, self.may_have(host, number, now)?)));
        let (number, expect) = found.ok_or(NoNumber::Taken)?;
        let (name, slot) = (keys::virtual_name(host), keys::virtual_number(number));
        let txn = Txn::new().when(&name, Expect::Absent).when(&slot, expect);
        let held = StoredNumber { name: host.clone(), freed: None };
        Ok(txn.put(name, to_json(&StoredName { number, used: now })).put(slot, to_json(&held)))
    }

    /// Whether the name may have the number, and what the store holds there then.
    fn may_have(&self, host: &MeshHost, number: u32, now: u64) -> Option<Expect> {
        let Some(held) = self.numbers.get(&number) else { return Some(Expect::Absent) };
        let freed = held.value.freed.is_some_and(|freed| now.saturating_sub(freed) >= QUARANTINE);
        (freed || held.value.name == *host).then_some(Expect::At(held.revision))
    }

    /// What stores that the name is in use, if that is due.
    pub fn renew(&self, host: &MeshHost, now: u64) -> Option<Txn> {
        let held = self.names.get(host).filter(|held| now.saturating_sub(held.value.used) >= RENEWED)?;
        let (key, renewed) = (keys::virtual_name(host), StoredName { used: now, ..held.value });
        Some(Txn::new().when(&key, Expect::At(held.revision)).put(key, to_json(&renewed)))
    }

    /// What takes numbers away that nobody has used for long, and forgets those that were freed long ago: for the leader, whose
    /// condition `leader` is.
    pub fn free(&self, now: u64, leader: (&'static str, Expect)) -> Vec<Txn> {
        let fenced = || Txn::new().when(leader.0, leader.1);
        let unused = self.names.iter().filter(|(_, held)| now.saturating_sub(held.value.used) >= KEPT);
        let unused = unused.map(|(host, held)| {
            let key = keys::virtual_name(host);
            let freed = StoredNumber { name: host.clone(), freed: Some(now) };
            let txn = fenced().when(&key, Expect::At(held.revision)).delete(key);
            txn.put(keys::virtual_number(held.value.number), to_json(&freed))
        });
        let is_old = |held: &Held<StoredNumber>| held.value.freed.is_some_and(|at| now.saturating_sub(at) >= KEPT);
        let old = self.numbers.iter().filter(|(_, held)| is_old(held)).map(|(number, held)| {
            let key = keys::virtual_number(*number);
            fenced().when(&key, Expect::At(held.revision)).delete(key)
        });
        unused.chain(old).collect()
    }
}

fn read<T: for<'a> Deserialize<'a>>(entry: &StoreEntry) -> Option<Held<T>> {
    let value = serde_json::from_slice(&entry.value).ok()?;
    Some(Held { revision: entry.revision, value })
}

/// The numbers that a name may have, in its own order: also where a store was lost, it gets the same again, most likely.
fn candidates(host: &MeshHost) -> impl Iterator<Item = u32> {
    let start = fnv(host.to_string().as_bytes());
    (0..TRIES).map(move |place| {
        let spread = start.wrapping_add(u64::from(place).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        RESERVED + ((spread >> 16) % u64::from(NUMBERS - RESERVED)) as u32
    })
}

/// FNV-1a, 64 bits (draft-eastlake-fnv).
fn fnv(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests;
