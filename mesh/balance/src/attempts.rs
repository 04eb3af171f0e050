//! The attempts of one request: where they went, what the next one keeps away from, and whether there is one.
//!
//! Whoever sends requests (the sidecar, and the simulation of it) keeps one [`Attempts`] for each, and does nothing but
//! send: what an answer or a failure means for breakers, budgets and the next pick is decided here.

use std::time::Duration;

use eastway_core::{Attribution, EndpointId, Reason, Timestamp};
use eastway_resilience::attempts::{AttemptEnd, Decision, GiveUp, Repeatable, Retries, RetryPolicy};
use eastway_resilience::deadline::Deadline;
use eastway_resilience::{AttemptError, Fault, Outcome, Progress};

use crate::locality::LocalityEndpoints;
use crate::pick::{NoPick, Pick};
use crate::service::Service;
use crate::tried::Tried;

/// The attempts of one request so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts {
    idempotent: bool,
    deadline: Deadline,
    tried: Tried,
    retries: Retries,
    begun: u32,
    /// There is nobody who was not asked.
    exhausted: bool,
}

impl Attempts {
    /// None yet. An `idempotent` request may be repeated without harm, and may try what is half-open.
    pub fn new(idempotent: bool, deadline: Deadline) -> Self {
        Self { idempotent, deadline, tried: Tried::new(), retries: Retries::default(), begun: 0, exhausted: false }
    }

    /// Whether the request may be repeated without harm.
    pub fn idempotent(&self) -> bool {
        self.idempotent
    }

    /// By when the request must have its answer.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// The answer may come later than was thought at first: the request itself took its time.
    pub fn postpone(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Keeps away from these endpoints, wherever they are. Whoever takes the list from outside must bound it.
    pub fn avoid(&mut self, endpoints: &[EndpointId]) {
        self.tried.set_named(endpoints);
    }

    /// What the next attempt keeps away from, while there is something else.
    pub fn tried(&self) -> &Tried {
        &self.tried
    }

    /// Attempts that were begun.
    pub fn begun(&self) -> u32 {
        self.begun
    }

    /// Picks where the next attempt goes, and counts it as begun. Only `cluster`, if one is given, may serve it.
    ///
    /// # Errors
    /// [`NoPick`] if there is nowhere to go.
    #[inline]
    pub fn pick(
        &mut self,
        service: &Service,
        cluster: Option<&str>,
        rng: &mut fastrand::Rng,
        now: Timestamp,
    ) -> Result<Pick, NoPick> {
        let pick = service.pick(rng, now, &self.tried, cluster, self.idempotent)?;
        self.begun += 1;
        if self.begun == 1 {
            service.retry_budget().record_first(now);
            service.cross_region_budget().record_first(now);
        }
        Ok(pick)
    }

    /// Takes an answer with this HTTP status, as soon as its head is there. `None` if it goes to the caller: then `pick`
    /// ends with the answer's body. Otherwise, `pick` has ended, and another attempt may bring a better answer.
    pub fn answered(
        &mut self,
        service: &Service,
        pick: &Pick,
        status: u16,
        outcome: Outcome,
        now: Timestamp,
    ) -> Option<AttemptEnd> {
        let failed = outcome.failure().is_some();
        service.retry_budget().record_end(failed, now);
        service.answered(pick, &outcome, now);
        if !failed || !self.idempotent || !matches!(status, 502..=504) {
            return None;
        }
        service.finish(pick, outcome, now);
        self.leave(pick, Attribution::Upstream5xx);
        Some(self.end(pick, Progress::Answered, Fault::Stated))
    }

    /// Takes an error that came after `latency`. `pick` has ended.
    pub fn failed(
        &mut self,
        service: &Service,
        pick: &Pick,
        error: &AttemptError,
        latency: Duration,
        now: Timestamp,
    ) -> AttemptEnd {
        let blameless = error.fault == Fault::Nobody;
        service.retry_budget().record_end(!blameless, now);
        let asked_too_much = self.asked_too_much(pick, error);
        let outcome = if asked_too_much { Outcome::cancelled() } else { error.outcome() };
        service.finish(pick, outcome.with_latency(latency), now);
        // The blameless may be asked again, but not at once: whatever kept them from answering may still be there.
        self.leave(pick, if blameless { Attribution::Caller } else { error.reason.attribution() });
        if error.fault == Fault::Silent {
            self.tried.push_locality(&pick.locality.zone);
        }
        self.exhausted = asked_too_much && !self.has_other_locality(service);
        self.end(pick, error.progress, error.fault)
    }

    /// Whether there is another attempt after one that ended so, and when.
    pub fn next(
        &mut self,
        service: &Service,
        policy: &RetryPolicy,
        end: &AttemptEnd,
        rng: &mut fastrand::Rng,
        now: Timestamp,
    ) -> Decision {
        if self.exhausted {
            return Decision::GiveUp(GiveUp::Attempts);
        }
        let own = [service.retry_budget()];
        let both = [service.retry_budget(), service.cross_region_budget()];
        let budgets = if self.leaves_region(service) { &both[..] } else { &own[..] };
        let end = AttemptEnd { other_locality: end.other_locality && self.has_other_locality(service), ..*end };
        policy.decide(&mut self.retries, &end, budgets, self.deadline, now, rng)
    }

    /// The locality has nobody but those that this request keeps away from: that says nothing of the locality.
    fn asked_too_much(&self, pick: &Pick, error: &AttemptError) -> bool {
        error.reason == Reason::NoReadyEndpoint && self.tried.endpoints_in(&pick.locality.zone).next().is_some()
    }

    /// After a transport failure the locality is left as well, after a path's failure the path.
    fn leave(&mut self, pick: &Pick, attribution: Attribution) {
        if let Some(endpoint) = pick.endpoint() {
            self.tried.push_endpoint(endpoint);
        }
        match attribution {
            Attribution::Tunnel | Attribution::GatewayOverload => self.tried.push_cluster(&pick.locality.zone.cluster),
            Attribution::NoEndpoint | Attribution::UpstreamConnect => self.tried.push_locality(&pick.locality.zone),
            _ => {}
        }
    }

    /// No locality of the caller's region is left that has a share and was not tried.
    fn leaves_region(&self, service: &Service) -> bool {
        let near = |locality: &LocalityEndpoints| locality.region == service.caller().region;
        !service.localities().iter().any(|(locality, share)| near(locality) && *share > 0 && !self.was_left(locality))
    }

    /// There is a locality that the next attempt need not keep away from.
    fn has_other_locality(&self, service: &Service) -> bool {
        service.localities().iter().any(|(locality, _)| locality.total() > 0 && !self.was_left(locality))
    }

    /// The next attempt keeps away from the whole locality.
    fn was_left(&self, locality: &LocalityEndpoints) -> bool {
        self.tried.has_locality(&locality.zone) || self.tried.has_cluster(&locality.zone.cluster)
    }

    fn end(&self, pick: &Pick, progress: Progress, fault: Fault) -> AttemptEnd {
        AttemptEnd {
            progress,
            fault,
            repeatable: if self.idempotent { Repeatable::Always } else { Repeatable::Unsent },
            probe: pick.probe,
            other_locality: self.was_left(&pick.locality),
            retry_after: None,
        }
    }
}
