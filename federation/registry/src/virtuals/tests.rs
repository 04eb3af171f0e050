use std::collections::BTreeSet;

use bytes::Bytes;

use super::*;
use crate::store::Op;

const NOW: u64 = 1_800_000_000;
const LEADER: (&str, Expect) = (keys::LEADER, Expect::At(1));

fn host(name: &str) -> MeshHost {
    name.parse().expect("a name")
}

/// A store, and what a gateway knows of it.
#[derive(Debug)]
struct World {
    virtuals: Virtuals,
    entries: BTreeMap<String, (Revision, Bytes)>,
    revision: Revision,
}

impl World {
    fn new() -> Self {
        Self { virtuals: Virtuals::new(100), entries: BTreeMap::new(), revision: 1 }
    }

    /// Applies the transaction if the store is as it says. Answers the names whose numbers are news.
    fn apply(&mut self, txn: &Txn) -> Option<Vec<MeshHost>> {
        let at = |key: &String| self.entries.get(key).map(|(revision, _)| *revision);
        let holds = |(key, expect): &(String, Expect)| key == keys::LEADER || expect.holds(at(key));
        if !txn.expects.iter().all(holds) {
            return None;
        }
        self.revision += 1;
        Some(txn.ops.iter().filter_map(|op| self.op(op)).collect())
    }

    fn op(&mut self, op: &Op) -> Option<MeshHost> {
        let change = match op {
            Op::Put { key, value, .. } => {
                self.entries.insert(key.clone(), (self.revision, value.clone()));
                Change::Put(entry(key, self.revision, value))
            }
            Op::Delete { key } => {
                let (revision, value) = self.entries.remove(key)?;
                Change::Delete(entry(key, revision, &value))
            }
        };
        self.virtuals.change(&change)
    }

    fn allot(&mut self, name: &str, now: u64) -> u32 {
        let txn = self.virtuals.allot(&host(name), now).expect("a number");
        assert_eq!(self.apply(&txn), Some(vec![host(name)]));
        self.virtuals.number(&host(name)).expect("known")
    }
}

fn entry(key: &str, revision: Revision, value: &Bytes) -> StoreEntry {
    StoreEntry { key: key.to_owned(), value: value.clone(), revision, lease: None }
}

#[test]
fn a_name_gets_one_number_and_no_two_names_the_same() {
    let mut world = World::new();
    let names: Vec<String> = (0..100).map(|number| format!("shop/payments-{number}")).collect();
    let numbers: BTreeSet<u32> = names.iter().map(|name| world.allot(name, NOW)).collect();
    assert_eq!((numbers.len(), world.virtuals.count()), (100, 100));
    assert!(numbers.iter().all(|number| (RESERVED..NUMBERS).contains(number)));
    assert_eq!(world.virtuals.allot(&host("shop/payments-7"), NOW), Err(NoNumber::Held));
    assert_eq!(world.virtuals.allot(&host("shop/more"), NOW), Err(NoNumber::Limit(100)));
}

#[test]
fn of_two_gateways_that_allot_at_once_one_finds_out_and_takes_the_number_of_the_other() {
    let mut world = World::new();
    let first = world.virtuals.allot(&host("shop/payments"), NOW).expect("a number");
    let second = world.virtuals.allot(&host("shop/payments"), NOW + 1).expect("a number");
    assert!(world.apply(&first).is_some());
    assert_eq!(world.apply(&second), None);
    assert_eq!(world.virtuals.allot(&host("shop/payments"), NOW), Err(NoNumber::Held));
}

#[test]
fn a_number_that_another_name_has_is_passed_over() {
    let mut world = World::new();
    let first = candidates(&host("shop/payments")).next().expect("a candidate");
    let other = StoredNumber { name: host("shop/other"), freed: None };
    let (key, value) = (keys::virtual_number(first), to_json(&other));
    world.op(&Op::Put { key, value, lease: None });
    assert_ne!(world.allot("shop/payments", NOW), first);
}

#[test]
fn a_name_in_use_keeps_its_number_and_one_that_is_not_loses_it() {
    let mut world = World::new();
    let (used, unused) = (world.allot("shop/used", NOW), world.allot("shop/unused", NOW));
    assert_eq!(world.virtuals.renew(&host("shop/used"), NOW + RENEWED - 1), None, "not due");
    for passed in 1..=28 {
        let now = NOW + passed * RENEWED;
        let txn = world.virtuals.renew(&host("shop/used"), now).expect("due");
        assert_eq!(world.apply(&txn), Some(vec![]), "its number is no news");
        assert_eq!(world.virtuals.free(now - 1, LEADER), [], "after {passed}");
    }
    let later = NOW + KEPT;
    let freed = world.virtuals.free(later, LEADER);
    assert_eq!(freed.len(), 1);
    assert_eq!(world.apply(&freed[0]), Some(vec![host("shop/unused")]));
    assert_eq!(
        (world.virtuals.number(&host("shop/unused")), world.virtuals.number(&host("shop/used"))),
        (None, Some(used))
    );

    // For an hour it is nobody else's; the name itself has it again whenever it is wanted.
    let may_have = |world: &World, name, now| world.virtuals.may_have(&host(name), unused, now);
    assert_eq!(may_have(&world, "shop/other", later + QUARANTINE - 1), None);
    assert!(may_have(&world, "shop/other", later + QUARANTINE).is_some());
    assert_eq!(world.allot("shop/unused", later + 1), unused);
    assert_eq!(may_have(&world, "shop/other", later + QUARANTINE), None, "it is taken again");
}

#[test]
fn only_the_leader_frees_and_only_what_is_still_unused() {
    let mut world = World::new();
    world.allot("shop/payments", NOW);
    let freed = world.virtuals.free(NOW + KEPT, LEADER);
    assert_eq!(freed[0].expects[0], (keys::LEADER.to_owned(), Expect::At(1)));
    let renewed = world.virtuals.renew(&host("shop/payments"), NOW + KEPT).expect("due");
    world.apply(&renewed).expect("applied");
    assert_eq!(world.apply(&freed[0]), None, "somebody uses it again");
}

#[test]
fn a_store_that_has_forgotten_a_name_gives_it_the_number_that_it_had() {
    let mut world = World::new();
    let first = candidates(&host("shop/payments")).next().expect("a candidate");
    let taken = StoredNumber { name: host("shop/other"), freed: None };
    world.op(&Op::Put { key: keys::virtual_number(first), value: to_json(&taken), lease: None });
    let number = world.allot("shop/payments", NOW);
    // What took its first choice is gone in the store that was restored, too.
    let keys: Vec<String> = world.entries.keys().cloned().collect();
    for key in keys {
        world.op(&Op::Delete { key });
    }
    assert_eq!(world.virtuals.count(), 0);
    assert_eq!(world.allot("shop/payments", NOW), number);
}

#[test]
fn what_an_earlier_copy_of_the_store_held_and_the_store_does_not_is_gone() {
    let mut world = World::new();
    world.allot("shop/payments", NOW);
    assert_eq!(world.virtuals.keep(&Known::default()), [host("shop/payments")]);
    assert_eq!((world.virtuals.count(), world.virtuals.numbers.len()), (0, 0));
}

#[test]
fn numbers_that_were_freed_long_ago_are_forgotten() {
    let mut world = World::new();
    let number = world.allot("shop/payments", NOW);
    for txn in world.virtuals.free(NOW + KEPT, LEADER) {
        world.apply(&txn).expect("applied");
    }
    assert!(world.virtuals.free(NOW + KEPT + HOUR, LEADER).is_empty());
    for txn in world.virtuals.free(NOW + 2 * KEPT, LEADER) {
        world.apply(&txn).expect("applied");
    }
    assert_eq!((world.entries.len(), world.virtuals.may_have(&host("shop/x"), number, NOW)), (0, Some(Expect::Absent)));
}

#[test]
fn what_is_not_readable_is_passed_over() {
    let mut world = World::new();
    for key in [keys::virtual_name(&host("shop/payments")), keys::virtual_number(300), format!("{}x", keys::VIRTUALS)] {
        assert_eq!(world.op(&Op::Put { key, value: "{".into(), lease: None }), None);
    }
    assert_eq!(world.virtuals.count(), 0);
}
