//! The pick itself: one draw from the locality table, two from the locality's endpoints; and the slow ways for what is left
//! over.

use std::sync::Arc;
use std::time::Duration;

use eastway_core::policy::Algorithm;
use eastway_core::{Reason, Timestamp};

use super::Service;
use crate::endpoint::{Endpoint, HALF_OPEN, HARD};
use crate::locality::{Choice, LocalityEndpoints};
use crate::pick::{NoPick, Permits, Pick};
use crate::plan::{Plan, Probe, Probing};
use crate::policy::Policy;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::table::HealthBand;
use crate::tried::Tried;

/// How much of what was tried is still avoided; each level gives up more.
const LEVELS: [Level; 3] = [
    Level { localities: true, clusters: true },
    Level { localities: false, clusters: true },
    Level { localities: false, clusters: false },
];

#[derive(Clone, Copy)]
struct Level {
    localities: bool,
    clusters: bool,
}

/// One search for a pick.
struct Search<'a> {
    plan: &'a Plan,
    tried: &'a Tried,
    cluster: Option<&'a str>,
    algorithm: Algorithm,
    veto: f32,
}

impl Service {
    /// Picks where one attempt goes. It takes no lock; it allocates nothing but where traffic must be divided anew: to leave
    /// a locality that was tried, and once per plan for each cluster that is asked for.
    ///
    /// `tried` is avoided while anything else can serve; `restrict_cluster` is never left. Only `idempotent` requests are
    /// used to try what is half-open, as long as there is a choice.
    ///
    /// # Errors
    /// [`NoPick`] if nothing without a hard mark is there: it says whether that is for want of endpoints or of a path.
    // What most picks do is inlined where it is called. A result that comes through memory would be copied there, and the
    // copy would wait until the write to the endpoint's cache line is done.
    #[inline]
    pub fn pick(
        &self,
        rng: &mut fastrand::Rng,
        now: Timestamp,
        tried: &Tried,
        restrict_cluster: Option<&str>,
        idempotent: bool,
    ) -> Result<Pick, NoPick> {
        let plan = self.view.plan.load();
        let search = Search {
            plan: &plan,
            tried,
            cluster: restrict_cluster,
            algorithm: plan.policy().algorithm,
            veto: plan.policy().latency_veto,
        };
        if plan.probes.is_empty()
            && tried.leaves_no_locality()
            && let Some(pick) = search.by_table(rng)
        {
            return Ok(pick);
        }
        self.search(&search, rng, now, idempotent)
    }

    /// The same where something was tried or waits to be, where only one cluster is allowed, and where the table leads
    /// nowhere.
    fn search(
        &self,
        search: &Search<'_>,
        rng: &mut fastrand::Rng,
        now: Timestamp,
        idempotent: bool,
    ) -> Result<Pick, NoPick> {
        let (plan, tried) = (search.plan, search.tried);
        if !plan.probes.is_empty()
            && tried.is_empty()
            && let Some(pick) = self.probe(search, rng, now, idempotent)
        {
            return Ok(pick);
        }
        if !plan.probes.is_empty()
            && tried.leaves_no_locality()
            && let Some(pick) = search.by_table(rng)
        {
            return Ok(pick);
        }
        if let Some(pick) = search.by_shares(rng) {
            return Ok(pick);
        }
        if let Some(pick) = search.last_resort(rng) {
            return Ok(pick);
        }
        plan.probes.iter().find_map(|probe| search.try_probe(probe, rng)).ok_or_else(|| search.no_pick())
    }

    /// Chooses among the endpoints that the caller has sessions to: an index, or `None` if none of them should be used
    /// (then open another session, naming these in `eastway-exclude`, and failing that [`Service::choose_any`]).
    ///
    /// What is half-open is tried by `idempotent` requests first; once it waited for [`Policy::probe_any_after`], by any, or
    /// it would wait for ever where callers send nothing else.
    ///
    /// [`Policy::probe_any_after`]: crate::Policy::probe_any_after
    pub fn choose(
        &self,
        rng: &mut fastrand::Rng,
        now: Timestamp,
        candidates: &[Arc<Endpoint>],
        tried: &Tried,
        idempotent: bool,
    ) -> Option<usize> {
        let plan = self.view.plan.load();
        let policy = plan.policy();
        let mut waiting = candidates.iter().enumerate().filter(|(_, e)| waits(e) && !tried.has_endpoint(e));
        if let Some((index, _)) = waiting.find(|(_, e)| idempotent || waited_long(e, policy, now)) {
            return Some(index);
        }
        // Sessions of one locality: without its median at hand, latency is compared among them only.
        let algorithm = match policy.algorithm {
            Algorithm::RoundRobin => Algorithm::Random,
            algorithm => algorithm,
        };
        let veto_us = veto_among(candidates, policy.latency_veto);
        let choice = Choice { algorithm, panic: false, tried, veto_us };
        choice.choose(candidates, None, rng, &AtomicU32::new(0))
    }

    /// Chooses among the endpoints of `locality` that the caller has sessions to where [`Service::choose`] finds none and no
    /// further session leads elsewhere: an index, to be bound by [`Pick::bind_anyway`]. `None` while another locality, which
    /// was not tried, can serve: leave this one.
    ///
    /// As in a locality of the own cluster, a pick without an alternative ignores ejections, and then what was tried: a
    /// request that may fail is better than one that fails for sure, and it is the probe for those after it, whatever its
    /// method. An open session is newer evidence than the mark of one that is down, so that is ignored last of all.
    pub fn choose_any(
        &self,
        locality: &LocalityEndpoints,
        candidates: &[Arc<Endpoint>],
        tried: &Tried,
    ) -> Option<usize> {
        if self.serves_beside(locality, tried) {
            return None;
        }
        let rank = |e: &Arc<Endpoint>| (tried.has_endpoint(e), !waits(e), !e.is_reachable());
        let better = |(_, a): &(usize, &Arc<Endpoint>), (_, b): &(usize, &Arc<Endpoint>)| {
            rank(a).cmp(&rank(b)).then_with(|| a.load().total_cmp(&b.load()))
        };
        candidates.iter().enumerate().min_by(better).map(|(index, _)| index)
    }

    /// Whether a locality other than `locality` can serve a request that left those in `tried`, and came to this one for the
    /// first time.
    fn serves_beside(&self, locality: &LocalityEndpoints, tried: &Tried) -> bool {
        let left = |locality: &LocalityEndpoints| {
            tried.has_locality(&locality.zone) || tried.has_cluster(&locality.zone.cluster)
        };
        let plan = self.view.plan.load();
        let mut others =
            plan.localities.iter().zip(&plan.stats.localities).filter(|(other, _)| other.zone != locality.zone);
        !left(locality) && others.any(|(other, counted)| counted.reachable && counted.serves() && !left(other))
    }

    /// A pick that tries something half-open, if its time has come and nobody else does.
    fn probe(&self, search: &Search<'_>, rng: &mut fastrand::Rng, now: Timestamp, idempotent: bool) -> Option<Pick> {
        let due = &self.state.next_probe[usize::from(idempotent)];
        if now.as_nanos() < due.load(Relaxed) {
            return None;
        }
        let policy = search.plan.policy();
        let next = now + policy.probe_interval;
        let waited = |probe: &Probe| now - probe.since >= policy.probe_any_after;
        // Beginning anywhere, so that one that never answers does not keep the others waiting.
        let probes = &search.plan.probes;
        let start = rng.usize(..probes.len());
        let pick = (start..probes.len())
            .chain(0..start)
            .map(|i| &probes[i])
            .filter(|probe| idempotent || waited(probe))
            .find_map(|probe| search.try_probe(probe, rng));
        // Also where none was free: a long list is not searched by every pick.
        due.store(next.as_nanos(), Relaxed);
        if pick.is_some() {
            self.state.next_probe.iter().for_each(|due| due.store(next.as_nanos(), Relaxed));
        }
        pick
    }
}

impl Search<'_> {
    fn locality(&self, index: usize) -> &Arc<LocalityEndpoints> {
        &self.plan.localities[index]
    }

    /// Whether the locality may be used at all, and at this level.
    fn allowed(&self, index: usize, level: Level) -> bool {
        let zone = &self.locality(index).zone;
        self.cluster.is_none_or(|cluster| *cluster == *zone.cluster)
            && self.plan.stats.localities[index].reachable
            && !(level.localities && self.tried.has_locality(zone))
            && !(level.clusters && self.tried.has_cluster(&zone.cluster))
    }

    /// A pick in the locality that the table gives.
    #[inline]
    fn by_table(&self, rng: &mut fastrand::Rng) -> Option<Pick> {
        let random = rng.u32(..);
        let (index, mode) = match self.cluster {
            None => self.plan.table.get(random),
            Some(cluster) => self.plan.draw_within(cluster, random),
        }?;
        self.in_locality(index, mode, self.tried, rng)
    }

    /// A pick in one locality, or `None` if no endpoint of it serves in this mode.
    #[inline]
    fn in_locality(&self, index: usize, mode: HealthBand, tried: &Tried, rng: &mut fastrand::Rng) -> Option<Pick> {
        let locality = self.locality(index);
        if locality.remote {
            // How many of its endpoints were tried is known, which are left is not.
            let exhausted = !tried.is_empty() && tried.endpoints_in(&locality.zone).count() >= locality.total.max(1);
            return (!exhausted).then(|| Pick::remote(Arc::clone(locality), Permits::default()));
        }
        let slot = locality.draw(mode, rng, self.algorithm, self.veto, tried)?;
        Some(Pick::to_member(locality, slot, Permits::default()))
    }

    /// Without a table: by the formulas over what is allowed, giving up what was tried step by step.
    fn by_shares(&self, rng: &mut fastrand::Rng) -> Option<Pick> {
        for level in LEVELS {
            let drawn = self.plan.stats.divide(|i| self.allowed(i, level)).draw(rng);
            let drawn = drawn.and_then(|(index, mode)| self.in_locality(index, mode, self.tried, rng));
            let localities = (0..self.plan.localities.len()).filter(|i| self.allowed(*i, level));
            let mut serving = localities.filter(|i| self.plan.stats.localities[*i].serves());
            let pick = drawn.or_else(|| {
                serving.find_map(|i| {
                    let pick = self.in_locality(i, HealthBand::Healthy, self.tried, rng);
                    pick.or_else(|| self.in_locality(i, HealthBand::Degraded, self.tried, rng))
                })
            });
            if pick.is_some() {
                return pick;
            }
        }
        None
    }

    /// Soft marks are ignored, then what was tried; hard marks never.
    fn last_resort(&self, rng: &mut fastrand::Rng) -> Option<Pick> {
        const NOTHING: Tried = Tried::new();
        let everything = LEVELS.map(|level| (level, self.tried, HealthBand::Panic));
        let again = [(LEVELS[2], &NOTHING, HealthBand::Healthy), (LEVELS[2], &NOTHING, HealthBand::Panic)];
        for (level, tried, mode) in everything.into_iter().chain(again) {
            let localities = (0..self.plan.localities.len()).filter(|i| self.allowed(*i, level));
            for index in localities {
                if let Some(pick) = self.in_locality(index, mode, tried, rng) {
                    return Some(pick);
                }
            }
        }
        None
    }

    fn try_probe(&self, probe: &Probe, rng: &mut fastrand::Rng) -> Option<Pick> {
        let locality = self.locality(probe.locality);
        if self.cluster.is_some_and(|cluster| *cluster != *locality.zone.cluster) {
            return None;
        }
        match &probe.what {
            Probing::Endpoint(endpoint) => {
                let half_open = || endpoint.gate() & HALF_OPEN != 0;
                if !half_open() || !endpoint.permit.try_take() {
                    return None;
                }
                if !half_open() {
                    // Settled by somebody else meanwhile.
                    endpoint.permit.release();
                    return None;
                }
                let permits = Permits { endpoint: true, ..Permits::default() };
                Some(Pick::to_endpoint(Arc::clone(locality), Arc::clone(endpoint), permits))
            }
            Probing::Locality => self.through(locality, Permits { locality: true, ..Permits::default() }, rng),
            Probing::Path => self.through(locality, Permits { path: true, ..Permits::default() }, rng),
        }
    }

    /// A probe of a locality or a path: with its permit, by any endpoint that has no hard mark.
    fn through(&self, locality: &Arc<LocalityEndpoints>, permits: Permits, rng: &mut fastrand::Rng) -> Option<Pick> {
        let circuit = if permits.locality { Some(&locality.state.circuit) } else { locality.path.as_deref() }?;
        if !circuit.permit.try_take() {
            return None;
        }
        if locality.remote {
            return Some(Pick::remote(Arc::clone(locality), permits));
        }
        let modes = [HealthBand::Healthy, HealthBand::Degraded, HealthBand::Panic];
        let slot = modes.into_iter().find_map(|mode| locality.draw(mode, rng, self.algorithm, self.veto, self.tried));
        if slot.is_none() {
            circuit.permit.release();
        }
        slot.map(|slot| Pick::to_member(locality, slot, permits))
    }

    fn no_pick(&self) -> NoPick {
        let mine = |i: &usize| self.cluster.is_none_or(|cluster| *cluster == *self.locality(*i).zone.cluster);
        let mut localities = (0..self.plan.localities.len()).filter(mine).peekable();
        let cut_off = localities.peek().is_some() && localities.all(|i| self.plan.stats.localities[i].path_down);
        NoPick { reason: if cut_off { Reason::PathDown } else { Reason::NoReadyEndpoint } }
    }
}

/// Whether it waits for somebody to try it, and nobody does.
fn waits(endpoint: &Endpoint) -> bool {
    endpoint.gate() & HALF_OPEN != 0 && !endpoint.permit.is_taken()
}

/// Whether it waited for so long that a request of any kind tries it.
fn waited_long(endpoint: &Endpoint, policy: &Policy, now: Timestamp) -> bool {
    endpoint.half_open_for(now).is_some_and(|waited| waited >= policy.probe_any_after)
}

/// Three times the least latency among sessions: there are too few of them for a median.
fn veto_among(candidates: &[Arc<Endpoint>], veto: f32) -> f32 {
    let known = candidates.iter().filter(|e| e.gate() & HARD == 0).map(|e| e.latency_us()).filter(|us| *us > 0.0);
    let least = known.fold(f32::INFINITY, f32::min);
    // Below a millisecond differences are noise.
    if least.is_finite() { (least * veto).max(LEAST_VETO.as_secs_f32() * 1e6) } else { 0.0 }
}

const LEAST_VETO: Duration = Duration::from_millis(1);
