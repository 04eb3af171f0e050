//! A running gateway and its store: watches, slices, the session, the election and the collection.

use std::sync::Arc;
use std::time::Duration;

use eastway_registry::membership::{Answer, Collector, Failure, GatewayNews, Noted, Request, SliceNews, to_json};
use eastway_registry::store::{Change, Commit, Event as StoreEvent, Expect, Txn, keys};

use crate::COLLECT_AFTER;
use crate::sabotage::Sabotage;
use crate::world::gateway::WATCHED;
use crate::world::names::Host;
use crate::world::nemesis::Fault;
use crate::world::store_calls::{Answered, Operation, Purpose, TTL};
use crate::world::{Event, Stop, World};

impl World {
    /// A watch delivers.
    pub(crate) fn watch(&mut self, process: usize, which: usize) {
        let gateway = &self.gateways[process];
        let (place, cluster, is_paused) = (gateway.place, gateway.cluster, gateway.paused_until > self.now);
        let reached = self.network.reaches(Host::Gateway(place), Host::Store(cluster), self.now);
        let is_faulty = self.sabotage() == Some(Sabotage::Relisting);
        let Some(core) = self.gateways[process].core_mut() else { return };
        if is_paused || !reached || self.now < self.store_down_until[cluster] {
            self.after(300, Event::Watch(process, which));
            return;
        }
        core.watch_woken[which] = false;
        let (events, position) = self.stores[cluster].since(WATCHED[which], core.positions[which]);
        let is_lost = |event: &StoreEvent| is_faulty && matches!(event, StoreEvent::Reset(_));
        let skips = core.positions[which].is_some();
        core.positions[which] = Some(position);
        for event in events {
            if skips && is_lost(&event) {
                continue;
            }
            let Some(core) = self.gateways[process].core_mut() else { return };
            for change in core.known[which].apply(event) {
                self.hear_change(process, which, change);
            }
        }
        self.changed(process);
        self.pump_writer(process);
    }

    fn hear_change(&mut self, process: usize, which: usize, change: Change) {
        let Some(core) = self.gateways[process].core_mut() else { return };
        if which == 0 {
            let news = core.slices.change(change, &core.known[0]).unwrap_or_default();
            self.hear_slices(process, news);
        } else {
            core.collector.hear(&change);
            let news = core.gateways.change(&change, &core.known[1]);
            self.hear_gateways(process, news);
        }
    }

    pub(crate) fn hear_slices(&mut self, process: usize, news: impl IntoIterator<Item = SliceNews>) {
        let now = self.gateways[process].clock(self.now);
        let Some(core) = self.gateways[process].core_mut() else { return };
        for news in news {
            match news {
                SliceNews::Own(slice, found) => {
                    if core.writer.suspect(&slice, found, &core.catalogue) {
                        core.changed.insert(slice);
                    }
                }
                SliceNews::Slice { gateway, slice: (service, index), content } => {
                    core.catalogue.load_slice(&gateway, &service, index, content, now);
                }
                SliceNews::Doubt => core.writer.doubt(),
            }
        }
    }

    pub(crate) fn hear_gateways(&mut self, process: usize, news: impl IntoIterator<Item = GatewayNews>) {
        let now = self.gateways[process].clock(self.now);
        let Some(core) = self.gateways[process].core_mut() else { return };
        for news in news {
            match news {
                GatewayNews::Registered(gateway, _) => core.catalogue.gateway_registered(&gateway, now),
                GatewayNews::Unregistered(gateway) => core.catalogue.gateway_unregistered(&gateway),
                GatewayNews::OwnKeyTaken => core.writer.doubt(),
                GatewayNews::OwnKeyLost => core.own_key = core.own_key.or(Some(Expect::Absent)),
            }
        }
    }

    pub(crate) fn tick_session(&mut self, process: usize) {
        let (now, id) = (self.now, self.gateways[process].id.clone());
        let Some(core) = self.gateways[process].core_mut() else { return };
        core.lease = core.lease.filter(|(_, until)| now < *until);
        let Some((lease, _)) = core.lease else {
            self.ask(process, Purpose::Session, Operation::Grant);
            return;
        };
        let (own, renew, leads) = (core.own_key, now >= core.renew_at, core.fence(now).is_some());
        let value = to_json(core.gateways.own());
        if renew {
            core.renew_at = now + TTL / 3;
            self.ask(process, Purpose::Session, Operation::Renew(lease));
        }
        if let Some(expect) = own {
            let key = keys::gateway(&id);
            self.ask(
                process,
                Purpose::OwnKey,
                Operation::commit(Txn::new().when(&key, expect).put_leased(&key, value, lease)),
            );
        }
        if !leads && self.rng.u8(..) < 64 {
            let txn = Txn::new().when(keys::LEADER, Expect::Absent).put_leased(keys::LEADER, id, lease);
            self.ask(process, Purpose::Election, Operation::commit(txn));
        }
    }

    pub(crate) fn tick_collection(&mut self, process: usize) {
        let now = self.gateways[process].clock(self.now);
        let wait = if self.sabotage() == Some(Sabotage::CollectionWait) { 0 } else { COLLECT_AFTER };
        let world_now = self.now;
        let ignores_election = self.sabotage() == Some(Sabotage::Leadership);
        let Some(core) = self.gateways[process].core_mut() else { return };
        if !core.known[1].is_ready() {
            return;
        }
        let due = core.collector.due(&core.catalogue, &core.known[1], now, Duration::from_millis(wait));
        if !due.is_empty() && (core.fence(world_now).is_some() || ignores_election) && core.collecting.is_empty() {
            core.due = due;
            self.ask(process, Purpose::ListForCollection, Operation::Ask(Request::List(keys::SERVICES)));
        }
    }

    fn collect_next(&mut self, process: usize) {
        let now = self.now;
        let ignores_election = self.sabotage() == Some(Sabotage::Leadership);
        let Some(core) = self.gateways[process].core_mut() else { return };
        while let Some((gateway, entry)) = core.collecting.pop_front() {
            let leader = core.fence(now).or_else(|| ignores_election.then_some((keys::LEADER, Expect::Absent)));
            let Some(leader) = leader else {
                core.collecting.clear();
                return;
            };
            if let Some(collection) = Collector::collect(&core.catalogue, &gateway, &entry, leader) {
                self.ask(process, Purpose::Collect, Operation::commit(collection.txn));
                return;
            }
        }
    }

    pub(crate) fn pump_writer(&mut self, process: usize) {
        let (now, world_now) = (self.gateways[process].clock(self.now), self.now);
        if self.gateways[process].waits_for.contains(&Purpose::Writer) {
            return;
        }
        let Some(core) = self.gateways[process].core_mut() else { return };
        if !core.writing {
            let is_due = core.writer.next_retry().is_some_and(|retry| retry <= now);
            let wants = !core.changed.is_empty() || core.writer.is_in_doubt() || is_due;
            let waits = world_now < core.write_after && !core.hurries;
            if !wants || waits || core.writer.replaced().is_some() {
                return;
            }
            core.hurries = false;
            core.writer.begin(std::mem::take(&mut core.changed), now);
            core.writing = true;
        }
        if let Some(request) = core.writer.next(&core.catalogue) {
            self.ask(process, Purpose::Writer, Operation::Ask(request));
            return;
        }
        let end = core.writer.end();
        core.writing = false;
        core.changed.extend(end.left);
        core.write_after = world_now + end.pause.as_millis() as u64;
    }

    fn writer_answered(&mut self, process: usize, answer: Result<Answered, Failure>) {
        let (now, wall_clock) = (self.gateways[process].clock(self.now), self.wall_clock(process));
        let believes_all = self.sabotage() == Some(Sabotage::Conflict);
        let Some(core) = self.gateways[process].core_mut() else { return };
        let answer = match answer {
            Ok(Answered::Plain(Answer::Commit(Commit::Conflict(_)))) if believes_all => {
                // As if it were asked only now: whatever the watch said meanwhile is forgotten.
                core.writer.next(&core.catalogue);
                Ok(Answer::Commit(Commit::Applied(1)))
            }
            Ok(Answered::Plain(answer)) => Ok(answer),
            Ok(_) => Err(Failure::Unanswered),
            Err(failure) => Err(failure),
        };
        let noted = core.writer.answered(answer, &core.catalogue, now, wall_clock);
        if let Some(Noted::Inherited(slices)) = &noted {
            let id = self.gateways[process].id.clone();
            let Some(core) = self.gateways[process].core_mut() else { return };
            for ((service, index), slice) in slices {
                core.catalogue.load_slice(&id, service, *index, Some(slice.clone()), now);
            }
            self.changed(process);
        }
        if let Some(Noted::Replaced(epoch)) = noted {
            self.note(|| format!("gateway process {process} was replaced by epoch {epoch}"));
            self.kill_gateway(process);
            // Whatever supervises it starts it again, if its successor is gone as well.
            let place = self.gateways[process].place;
            self.after(1_000, Event::Fault(Fault::StartGateway(place)));
            return;
        }
        self.pump_writer(process);
    }

    /// The store answered, or did not.
    pub(crate) fn answered(
        &mut self,
        process: usize,
        purpose: Purpose,
        answer: Result<Answered, Failure>,
    ) -> Result<(), Stop> {
        match purpose {
            Purpose::Start => self.start_answered(process, answer),
            Purpose::Writer => self.writer_answered(process, answer),
            _ => self.session_answered(process, purpose, answer),
        }
        Ok(())
    }

    fn session_answered(&mut self, process: usize, purpose: Purpose, answer: Result<Answered, Failure>) {
        let now = self.now;
        let Some(core) = self.gateways[process].core_mut() else { return };
        match (purpose, answer) {
            (Purpose::Session, Ok(Answered::Granted(lease))) => {
                // Counted from when it was asked for, which was not long ago.
                core.lease = Some((lease, now + TTL - 1_000));
                core.renew_at = now + TTL / 3;
                core.own_key = Some(Expect::Absent);
                core.writer.doubt();
                core.hurries = true;
                self.pump_writer(process);
            }
            (Purpose::Session, Ok(Answered::Renewed(is_held))) => {
                core.lease = core.lease.filter(|_| is_held).map(|(lease, _)| (lease, now + TTL - 1_500));
            }
            (Purpose::OwnKey, Ok(Answered::Plain(Answer::Commit(commit)))) => {
                core.own_key = match commit {
                    Commit::Applied(_) => None,
                    Commit::Conflict(found) => match found.into_iter().flatten().next() {
                        // The answer to the write was lost.
                        Some(found) if Some(found.lease) == core.lease.map(|(l, _)| Some(l)) => None,
                        Some(found) => Some(Expect::At(found.revision)),
                        None => Some(Expect::Absent),
                    },
                };
            }
            (Purpose::Election, Ok(Answered::Plain(Answer::Commit(commit)))) => {
                let lease = core.lease.map(|(lease, _)| lease);
                core.leads = match commit {
                    Commit::Applied(revision) => lease.map(|lease| (lease, revision)),
                    Commit::Conflict(found) => {
                        let own =
                            found.into_iter().flatten().find(|found| found.lease.is_some() && found.lease == lease);
                        own.and_then(|found| Some((found.lease?, found.revision)))
                    }
                };
            }
            (Purpose::ListForCollection, Ok(Answered::Plain(Answer::Listing(listing)))) => {
                let due = std::mem::take(&mut core.due);
                let each =
                    due.iter().flat_map(|gateway| listing.entries.iter().map(|e| (Arc::clone(gateway), e.clone())));
                core.collecting = each.collect();
                self.collect_next(process);
            }
            (Purpose::Collect, answer) => {
                if matches!(answer, Ok(Answered::Plain(Answer::Commit(Commit::Applied(_))))) {
                    self.count("collected slice");
                }
                self.collect_next(process);
            }
            _ => {}
        }
    }
}
