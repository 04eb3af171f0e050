//! Lives and writers against a store in memory that answers, conflicts and fails as it is told.

use std::collections::{BTreeMap, BTreeSet};

use eastway_core::{EndpointId, ServiceName, Timestamp};

use super::*;
use crate::Registration;
use crate::store::{Change, Commit, Known, Listing, Op, StoreEntry, Txn, keys};

const NOW: u64 = 1_800_000_000_000;

/// A store without a network.
#[derive(Debug, Default)]
struct Memory {
    entries: BTreeMap<String, StoreEntry>,
    revision: u64,
}

impl Memory {
    fn apply(&mut self, txn: Txn) -> Commit {
        let holds = |(key, expect): &(String, crate::store::Expect)| {
            expect.holds(self.entries.get(key).map(|entry| entry.revision))
        };
        if !txn.expects.iter().all(holds) {
            return Commit::Conflict(txn.expects.iter().map(|(key, _)| self.entries.get(key).cloned()).collect());
        }
        self.revision += 1;
        for op in txn.ops {
            match op {
                Op::Put { key, value, lease } => {
                    let entry = StoreEntry { key: key.clone(), value, revision: self.revision, lease };
                    self.entries.insert(key, entry);
                }
                Op::Delete { key } => drop(self.entries.remove(&key)),
            }
        }
        Commit::Applied(self.revision)
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Get(key) => Answer::Entry(self.entries.get(&key).cloned()),
            Request::List(prefix) => {
                let entries = self.entries.values().filter(|entry| entry.key.starts_with(prefix)).cloned().collect();
                Answer::Listing(Listing { entries, revision: self.revision })
            }
            Request::Commit(txn) => Answer::Commit(self.apply(txn)),
        }
    }

    fn begin(&mut self, gateway: &str, process: &str) -> Writer {
        let (meta, life) = (self.entries.get(keys::META).cloned(), self.entries.get(&keys::epoch(gateway)).cloned());
        let found = Found { meta, life, last: None };
        let mut life = Life::after(claim(gateway, process), &found, NOW).expect("the own cluster's store");
        assert!(life.claimed(&self.apply(life.claim(&found))));
        Writer::new(gateway, life)
    }

    fn run(&mut self, writer: &mut Writer, wanted: &Slices) -> (Vec<Noted>, RoundEnd) {
        let mut noted = Vec::new();
        while let Some(request) = writer.next(wanted) {
            let answer = self.answer(request);
            noted.extend(writer.answered(Ok(answer), wanted, Timestamp::ZERO, NOW));
        }
        (noted, writer.end())
    }

    fn slices(&self) -> usize {
        self.entries.keys().filter(|key| key.starts_with(keys::SERVICES)).count()
    }
}

/// What a gateway wants, without a catalogue.
#[derive(Clone, Debug, Default)]
struct Slices(BTreeMap<SliceName, Slice>);

impl Wanted for Slices {
    fn slice(&self, name: &SliceName) -> Option<Slice> {
        self.0.get(name).cloned()
    }

    fn slices(&self) -> BTreeSet<SliceName> {
        self.0.keys().cloned().collect()
    }
}

fn claim(gateway: &str, process: &str) -> Claim {
    Claim {
        gateway: gateway.to_owned(),
        cluster: "eu-west".to_owned(),
        region: "eu".to_owned(),
        trust_domain: "eu.example".to_owned(),
        zones: [("a".to_owned(), None)].into(),
        trust_bundle: Vec::new(),
        uid: "uid".to_owned(),
        process: process.to_owned(),
    }
}

fn name(index: u32) -> SliceName {
    (ServiceName::new("shop", "payments"), index)
}

fn wanted(indices: impl IntoIterator<Item = u32>) -> Slices {
    let slice = |index| {
        let registration = Registration {
            service: name(index).0,
            endpoint: EndpointId::new(format!("pay-{index}")),
            account: "payments".to_owned(),
            zone: "a".into(),
            address: ([10, 0, 0, 1], 15008).into(),
            weight: 1.0,
            capacity: 0,
            labels: Default::default(),
            incarnation: 1,
            session: 1,
        };
        (name(index), Slice { endpoints: vec![registration] })
    };
    Slices(indices.into_iter().map(slice).collect())
}

fn all(indices: impl IntoIterator<Item = u32>) -> BTreeSet<SliceName> {
    indices.into_iter().map(name).collect()
}

#[test]
fn what_changed_is_written_and_what_is_there_already_is_not() {
    let (mut store, now) = (Memory::default(), Timestamp::ZERO);
    let mut writer = store.begin("gw-1", "first");
    writer.begin(all(0..3), now);
    let (noted, end) = store.run(&mut writer, &wanted(0..2));
    assert_eq!((noted, end), (vec![], RoundEnd { left: BTreeSet::new(), pause: Duration::ZERO }));
    assert_eq!(store.slices(), 2);
    writer.begin(all(0..3), now);
    assert_eq!(writer.next(&wanted(0..2)), None, "the store holds it so");
    writer.begin(all(0..3), now);
    store.run(&mut writer, &wanted(1..2));
    assert_eq!(store.slices(), 1, "an empty slice is deleted");
}

#[test]
fn a_former_life_writes_nothing_any_more_and_says_so() {
    let (mut store, now) = (Memory::default(), Timestamp::ZERO);
    let mut old = store.begin("gw-1", "first");
    let mut new = store.begin("gw-1", "second");
    assert!(new.life().epoch() > old.life().epoch());
    old.begin(all([0]), now);
    let (noted, end) = store.run(&mut old, &wanted([0]));
    assert_eq!(noted, [Noted::Replaced(new.life().epoch())]);
    assert_eq!((end.left, store.slices(), old.replaced()), (all([0]), 0, Some(new.life().epoch())));
    new.begin(all([0]), now);
    store.run(&mut new, &wanted([0]));
    assert_eq!(store.slices(), 1);
}

#[test]
fn a_store_that_was_restored_gets_its_life_and_its_slices_back() {
    let (mut store, now) = (Memory::default(), Timestamp::ZERO);
    let mut writer = store.begin("gw-1", "first");
    writer.begin(all(0..2), now);
    store.run(&mut writer, &wanted(0..2));
    store.entries.clear();
    writer.doubt();
    writer.begin(BTreeSet::new(), now);
    let (noted, _) = store.run(&mut writer, &wanted(0..2));
    assert_eq!(noted, [Noted::Restored { other_uid: None }, Noted::Differing(2)]);
    assert_eq!((store.slices(), store.entries.len()), (2, 4), "with the cluster's entry and the epoch");
    assert!(!writer.is_in_doubt());
}

#[test]
fn a_write_whose_answer_was_lost_is_recognised() {
    let (mut store, now) = (Memory::default(), Timestamp::ZERO);
    let mut writer = store.begin("gw-1", "first");
    writer.begin(all([0]), now);
    let request = writer.next(&wanted([0])).expect("a write");
    store.answer(request);
    writer.answered(Err(Failure::Unanswered), &wanted([0]), now, NOW);
    let end = writer.end();
    assert_eq!((&end.left, end.pause), (&all([0]), RETRY));
    let revision = store.revision;
    writer.begin(end.left, now);
    let (noted, end) = store.run(&mut writer, &wanted([0]));
    assert_eq!((noted, end.left.len(), end.pause), (vec![], 0, Duration::ZERO));
    assert_eq!(store.revision, revision, "it is there already");
}

#[test]
fn pauses_grow_while_the_store_is_away_and_a_refused_slice_delays_no_other() {
    let (mut store, now) = (Memory::default(), Timestamp::ZERO);
    let mut writer = store.begin("gw-1", "first");
    for pause in [RETRY, RETRY * 2, RETRY * 4] {
        writer.begin(all([0]), now);
        while writer.next(&wanted([0])).is_some() {
            writer.answered(Err(Failure::Unanswered), &wanted([0]), now, NOW);
        }
        assert_eq!(writer.end().pause, pause);
    }
    writer.begin(all(0..2), now);
    writer.next(&wanted(0..2)).expect("the first");
    writer.answered(Err(Failure::Refused), &wanted(0..2), now, NOW);
    let (_, end) = store.run(&mut writer, &wanted(0..2));
    assert_eq!((end.left.len(), end.pause, store.slices()), (0, Duration::ZERO, 1));
    assert_eq!(writer.next_retry(), Some(now + RETRY));
    writer.begin(BTreeSet::new(), now + RETRY);
    store.run(&mut writer, &wanted(0..2));
    assert_eq!((store.slices(), writer.next_retry()), (2, None));
}

#[test]
fn a_failed_comparison_writes_nothing_and_is_made_again() {
    let (mut store, now) = (Memory::default(), Timestamp::ZERO);
    let mut writer = store.begin("gw-1", "first");
    writer.doubt();
    writer.begin(all([0]), now);
    assert!(!writer.is_in_doubt());
    writer.next(&wanted([0])).expect("a look at the life");
    writer.answered(Err(Failure::Unanswered), &wanted([0]), now, NOW);
    assert_eq!(writer.next(&wanted([0])), None);
    assert_eq!(writer.end().left, all([0]));
    assert!(writer.is_in_doubt());
}

/// Found by the simulation, for own slices: the leader collected one while its gateway came back.
#[test]
fn what_went_between_the_start_and_the_first_listing_is_noticed() {
    let entry = |key: String| StoreEntry { key, value: to_json(&Slice::default()), revision: 1, lease: None };
    let theirs = keys::slice(&name(0).0, "gw-2", 0);
    let mut reader = SliceReader::new("gw-1");
    reader.load(&entry(theirs)).expect("readable");
    reader.load(&entry(keys::slice(&name(0).0, "gw-1", 0))).expect("readable");
    let news = reader.change(Change::Ready(5), &Known::default()).expect("readable");
    let gone = SliceNews::Slice { gateway: "gw-2".to_owned(), slice: name(0), content: None };
    assert_eq!(news, [gone, SliceNews::Doubt], "own slices are the writer's affair");
    let unreadable = StoreEntry { value: "[]".into(), ..entry(keys::slice(&name(0).0, "gw-2", 1)) };
    assert!(reader.change(Change::Put(unreadable), &Known::default()).is_err());
}

#[test]
fn the_own_key_is_kept_unless_a_later_life_has_it() {
    let own = StoredAddress { address: "10.0.0.1:1".to_owned(), epoch: 7 };
    let mut reader = GatewayReader::new("gw-1", own.clone());
    let found = |epoch| {
        let stored = StoredAddress { epoch, ..own.clone() };
        Change::Put(StoreEntry { key: keys::gateway("gw-1"), value: to_json(&stored), revision: 1, lease: None })
    };
    assert_eq!(reader.change(&found(7), &Known::default()), []);
    assert_eq!(reader.change(&found(6), &Known::default()), [GatewayNews::OwnKeyLost]);
    assert_eq!(reader.change(&found(8), &Known::default()), [GatewayNews::OwnKeyTaken]);
    let Change::Put(entry) = found(7) else { unreachable!() };
    assert_eq!(reader.change(&Change::Delete(entry), &Known::default()), [GatewayNews::OwnKeyLost]);
}

/// Found by the simulation: slices were deleted by hand, and the answers to what was asked before came after the watch.
#[test]
fn an_answer_does_not_hide_what_was_seen_since_it_was_asked_for() {
    let (mut store, now, wants) = (Memory::default(), Timestamp::ZERO, wanted([0]));
    let mut writer = store.begin("gw-1", "first");
    for is_asked in [
        |request: &Request| matches!(request, Request::Commit(_)),
        |request: &Request| matches!(request, Request::List(_)),
    ] {
        writer.doubt();
        writer.begin(BTreeSet::new(), now);
        while let Some(request) = writer.next(&wants) {
            let (asked, answer) = (is_asked(&request), store.answer(request));
            if asked && store.slices() > 0 {
                store.entries.retain(|key, _| !key.starts_with(keys::SERVICES));
                assert!(writer.suspect(&name(0), None, &wants));
            }
            writer.answered(Ok(answer), &wants, now, NOW);
        }
        writer.begin(all([0]), now);
        store.run(&mut writer, &wants);
        assert_eq!(store.slices(), 1);
    }
}

/// Found by the simulation: the leader heard late that the gateway had come back and gone again.
#[test]
fn a_gateway_that_was_there_meanwhile_is_collected_as_long_after_as_any() {
    let (second, after) = (|s: u64| Timestamp::from_millis(s * 1000), Duration::from_secs(60));
    let meta = Memory::default().begin("gw-1", "first").life().cluster();
    let mut catalogue = Catalogue::new(meta, "gw-1", 1, crate::Options::default());
    let slice = wanted([0]).0.remove(&name(0)).expect("a slice");
    catalogue.load_slice("gw-2", &name(0).0, 0, Some(slice), second(0));
    let (mut collector, nobody) = (Collector::default(), Known::default());
    assert_eq!(collector.due(&catalogue, &nobody, second(0), after).len(), 0);
    let entry = StoreEntry { key: keys::gateway("gw-2"), value: "{}".into(), revision: 1, lease: None };
    collector.hear(&Change::Put(entry.clone()));
    collector.hear(&Change::Delete(entry));
    assert_eq!(collector.due(&catalogue, &nobody, second(61), after).len(), 0);
    assert_eq!(collector.due(&catalogue, &nobody, second(120), after).len(), 0);
    assert_eq!(collector.due(&catalogue, &nobody, second(121), after), ["gw-2".into()]);
    collector.hear(&Change::Relisted(9));
    assert_eq!(collector.due(&catalogue, &nobody, second(122), after).len(), 0, "nobody knows what happened meanwhile");
}

/// Found by the simulation: what the gateway's former life had written meanwhile was overwritten.
#[test]
fn a_life_that_began_without_the_store_inherits_what_that_lists() {
    let (mut store, now) = (Memory::default(), Timestamp::ZERO);
    let mut old = store.begin("gw-1", "first");
    old.begin(all([0]), now);
    store.run(&mut old, &wanted([0]));
    let life = Life::after(claim("gw-1", "second"), &Found::default(), NOW + 1).expect("no store at all");
    let mut new = Writer::new("gw-1", life);
    new.doubt();
    new.begin(BTreeSet::new(), now);
    let (noted, _) = store.run(&mut new, &Slices::default());
    let inherited = wanted([0]).0.into_iter().collect();
    assert_eq!(noted, [Noted::Restored { other_uid: None }, Noted::Inherited(inherited)]);
    assert_eq!(store.slices(), 1, "nothing is written before it is loaded");
    assert!(new.is_in_doubt(), "and compared then");
}
