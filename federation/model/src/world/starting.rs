//! How a gateway's process starts: it claims a life in the store and loads what that holds, or begins with what was kept of it.

use eastway_registry::Catalogue;
use eastway_registry::membership::{Answer, Claim, Failure, Found, Life, Request, StoredAddress};
use eastway_registry::store::{StoreEntry, keys};

use crate::options;
use crate::sabotage::Sabotage;
use crate::world::World;
use crate::world::gateway::{Core, Gateway, Starting, WATCHED};
use crate::world::names::{self, Host};
use crate::world::store_calls::{Answered, Operation, Purpose};

/// How long a start waits for the store, if it can do without.
const STORE_PATIENCE: u64 = 3_000;
/// How long endpoints that were loaded are probed before anybody is told of them.
const SETTLE: u64 = 600;

impl World {
    pub(crate) fn start_step(&mut self, process: usize) {
        let (now, born) = (self.now, self.gateways[process].born);
        let place = self.gateways[process].place;
        if now >= born + STORE_PATIENCE
            && let Some(kept) = self.kept[place].clone()
        {
            self.start_from(process, &kept);
            return;
        }
        if matches!(self.gateways[process].starting, Some(Starting::Pausing(until)) if now >= until) {
            self.gateways[process].starting = Some(Starting::Meta);
            self.ask(process, Purpose::Start, Operation::Ask(Request::Get(keys::META.to_owned())));
        }
    }

    fn claim(&self, process: usize) -> Claim {
        let Gateway { cluster, id, .. } = &self.gateways[process];
        Claim {
            gateway: id.clone(),
            cluster: names::cluster_name(*cluster),
            region: names::cluster_name(*cluster),
            trust_domain: names::trust_domain(*cluster),
            zones: names::ZONES.map(|zone| (zone.to_owned(), None)).into(),
            trust_bundle: Vec::new(),
            uid: format!("uid-{process}"),
            process: process.to_string(),
        }
    }

    fn life_after(&self, process: usize, found: &Found) -> Option<Life> {
        let last = Some(self.latest_epochs[self.gateways[process].place]);
        let found = match self.sabotage() {
            Some(Sabotage::Epoch) => Found::default(),
            _ => Found { last, ..found.clone() },
        };
        Life::after(self.claim(process), &found, self.wall_clock(process)).ok()
    }

    /// Without the store: from what it held last.
    fn start_from(&mut self, process: usize, kept: &[StoreEntry]) {
        let id = self.gateways[process].id.clone();
        let entry = |key: &str| kept.iter().find(|entry| entry.key == key).cloned();
        let found = Found { meta: entry(keys::META), life: entry(&keys::epoch(&id)), last: None };
        let Some(life) = self.life_after(process, &found) else { return };
        self.count("start without the store");
        let under =
            |prefix: &str| kept.iter().filter(|entry| entry.key.starts_with(prefix)).cloned().collect::<Vec<_>>();
        self.begin(process, life, &under(keys::SERVICES), &under(keys::GATEWAYS));
    }

    pub(crate) fn start_answered(&mut self, process: usize, answer: Result<Answered, Failure>) {
        let Some(starting) = self.gateways[process].starting.take() else { return };
        let id = self.gateways[process].id.clone();
        let next = match (starting, answer) {
            (Starting::Meta, Ok(Answered::Plain(Answer::Entry(meta)))) => {
                let request = Request::Get(keys::epoch(&id));
                Some((Starting::Life(Found { meta, ..Found::default() }), Operation::Ask(request)))
            }
            (Starting::Life(found), Ok(Answered::Plain(Answer::Entry(entry)))) => {
                let found = Found { life: entry, ..found };
                self.life_after(process, &found).map(|life| {
                    let operation = Operation::commit(life.claim(&found));
                    (Starting::Claim(Box::new(life)), operation)
                })
            }
            (Starting::Claim(mut life), Ok(Answered::Plain(Answer::Commit(commit)))) => {
                let is_claimed = life.claimed(&commit);
                is_claimed.then(|| (Starting::Slices(life), Operation::Ask(Request::List(keys::SERVICES))))
            }
            (Starting::Slices(life), Ok(Answered::Plain(Answer::Listing(listing)))) => {
                let next = Starting::Gateways(life, listing.entries);
                Some((next, Operation::Ask(Request::List(keys::GATEWAYS))))
            }
            (Starting::Gateways(life, slices), Ok(Answered::Plain(Answer::Listing(listing)))) => {
                self.begin(process, *life, &slices, &listing.entries);
                return;
            }
            _ => None,
        };
        match next {
            Some((starting, operation)) => {
                self.gateways[process].starting = Some(starting);
                self.ask(process, Purpose::Start, operation);
            }
            None => self.gateways[process].starting = Some(Starting::Pausing(self.now + 500)),
        }
    }

    /// It runs, with what it loaded.
    pub(crate) fn begin(&mut self, process: usize, life: Life, slices: &[StoreEntry], gateways: &[StoreEntry]) {
        let (id, cluster) = (self.gateways[process].id.clone(), self.gateways[process].cluster);
        let now = self.gateways[process].clock(self.now);
        let epoch = life.epoch();
        let mut catalogue = Catalogue::new(life.cluster(), id.as_str(), epoch, options(self.sabotage()));
        catalogue.set_resources(names::resources(cluster), now);
        let own = StoredAddress { address: id.clone(), epoch };
        let core = Core::new(catalogue, life, own, self.now + SETTLE);
        let place = self.gateways[process].place;
        self.latest_epochs[place] = epoch.max(self.latest_epochs[place]);
        (self.gateways[process].core, self.gateways[process].starting) = (Some(Box::new(core)), None);
        self.note(|| format!("gateway process {process} runs as {id} in epoch {epoch}"));
        for entry in slices {
            let Some(core) = self.gateways[process].core_mut() else { return };
            let news = core.slices.load(entry).ok().flatten();
            self.hear_slices(process, news);
        }
        for entry in gateways {
            let Some(core) = self.gateways[process].core_mut() else { return };
            let news = core.gateways.load(entry);
            self.hear_gateways(process, news);
        }
        for which in 0..WATCHED.len() {
            self.wake_watch(process, which);
        }
    }

    /// Keeps what the store holds for a start without it.
    pub(crate) fn keep(&mut self, process: usize) {
        let Gateway { place, cluster, .. } = self.gateways[process];
        let reached = self.network.reaches(Host::Gateway(place), Host::Store(cluster), self.now);
        if reached && self.now >= self.store_down_until[cluster] && self.rng.u8(..) < 12 {
            let entries = self.stores[cluster].list(keys::ROOT).entries;
            self.kept[place] = Some(entries.into_iter().filter(|entry| entry.key != keys::LEADER).collect());
        }
    }
}
