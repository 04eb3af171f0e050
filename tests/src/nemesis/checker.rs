//! What must hold, whatever was broken: judged from what was seen and from the model, by code that shares nothing with Eastway.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::What;
use super::model::Timeline;
use super::observer::{Observation, Said};
use super::plan::{Cluster, Host, Role, Target};
use super::traffic::{Outcome, Request};

/// What came of the requests of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All that were sent.
    pub sent: usize,
    /// Of them, those whose target the model says could be reached all the time.
    pub counted: usize,
    /// Of those that count, the ones that failed.
    pub failed: usize,
}

/// One failure is forgiven for so many requests that count: 99.95 % succeed.
const ONE_IN: usize = 2_000;
/// After a fault that concerns it, an endpoint has so long to be taken for ready again.
pub(super) const RECOVERY: Duration = Duration::from_secs(15);
/// Violations of one rule that are told; there may be thousands.
const TOLD: usize = 20;

/// Counts the requests, and tells what is wrong with them.
pub(super) fn requests(requests: &[Request], timeline: &Timeline, violations: &mut Vec<String>) -> Tally {
    let mut tally = Tally { sent: requests.len(), ..Tally::default() };
    let (mut wrong, mut failed) = (Vec::new(), Vec::new());
    for request in requests {
        let counts = timeline.reached(request.caller, request.target, request.sent, request.done);
        tally.counted += usize::from(counts);
        match &request.outcome {
            Outcome::Answered { service, name, path } if !is_right(request, service, name, path) => {
                wrong.push(format!("the wrong one answered: {service} {name} {path} to {}", told(request)));
            }
            Outcome::Failed(error) if counts => failed.push(format!("{error}: {}", told(request))),
            Outcome::Answered { .. } | Outcome::Failed(_) => {}
        }
    }
    tally.failed = failed.len();
    if tally.failed > tally.counted / ONE_IN {
        let Tally { failed: number, counted, .. } = tally;
        violations.push(format!("{number} of {counted} requests failed while their target could be reached"));
        violations.extend(failed.into_iter().take(TOLD));
    }
    violations.extend(wrong.into_iter().take(TOLD));
    tally
}

/// Failures that were forgiven, too, in words.
pub(super) fn failures(requests: &[Request], timeline: &Timeline) -> Vec<String> {
    let counts = |request: &&Request| timeline.reached(request.caller, request.target, request.sent, request.done);
    let failed = requests.iter().filter_map(|request| match &request.outcome {
        Outcome::Failed(error) => counts(&request).then(|| format!("{error}: {}", told(request))),
        Outcome::Answered { .. } => None,
    });
    failed.collect()
}

fn is_right(request: &Request, service: &str, name: &str, path: &str) -> bool {
    let asked = Host::of(Role::Workload).into_iter().find(|host| host.to_string() == name);
    let in_place = asked.is_some_and(|host| {
        host.service() == service && request.target.cluster.is_none_or(|cluster| cluster == host.cluster)
    });
    in_place && service == request.target.service && path == request.path
}

fn told(request: &Request) -> String {
    let Request { caller, target, path, sent, done, .. } = request;
    format!("{caller} -> {target}{path}, {:.2} s to {:.2} s", sent.as_secs_f64(), done.as_secs_f64())
}

/// Whether views went back at an observer, or endpoints were withdrawn that nothing ailed.
pub(super) fn observations(observations: &[Observation], timeline: &Timeline, violations: &mut Vec<String>) {
    let mut before: BTreeMap<Host, &Said> = BTreeMap::new();
    let mut found = Vec::new();
    for Observation { gateway, asked, answered, said } in observations {
        let at = format!("{gateway} at {:.2} s", answered.as_secs_f64());
        if let Some(last) = before.insert(*gateway, said) {
            if said.epoch < last.epoch {
                found.push(format!("{at}: its own epoch went from {} back to {}", last.epoch, said.epoch));
            }
            // Who has just started has not heard everybody yet.
            let regressed = said.versions.iter().filter(|_| said.epoch == last.epoch);
            for ((cluster, id), version) in regressed {
                let earlier = last.versions.get(&(cluster.clone(), id.clone())).copied().unwrap_or_default();
                if *version < earlier {
                    found.push(format!("{at}: {id} of {cluster} went from {earlier:?} back to {version:?}"));
                }
            }
        }
        for workload in gateway.cluster.hosts(Role::Workload) {
            if ails(timeline, *gateway, workload, asked.saturating_sub(RECOVERY), *answered) {
                continue;
            }
            let endpoint = said.endpoints.get(&workload.to_string());
            if endpoint.is_none_or(|endpoint| endpoint.health != "ready") {
                found.push(format!("{at}: {workload}, which nothing ails, is {endpoint:?}"));
            }
        }
    }
    violations.extend(found.into_iter().take(TOLD));
}

/// Whether a fault concerns the gateway itself, the workload, or what passes between it and a gateway of its cluster. The
/// other gateways may die and the store be lost: that must not cost an endpoint.
fn ails(timeline: &Timeline, gateway: Host, workload: Host, from: Duration, to: Duration) -> bool {
    timeline.between(from, to).any(|window| match &window.what {
        What::Kill(host) | What::Freeze(host) => [gateway, workload].contains(host),
        What::Cut { from, to, .. } => {
            let ours = |host: &Host| host.cluster == workload.cluster && host.role == Role::Gateway;
            let between = |some: &[Host], others: &[Host]| some.contains(&workload) && others.iter().any(ours);
            between(from, to) || between(to, from)
        }
        What::Loss(hosts) => hosts.contains(&workload) || hosts.contains(&gateway),
        What::Delay(_) | What::FullDisk(_) | What::Clock(..) => false,
    })
}

/// What is not as it should be once everything has healed: every registration at every gateway, siblings of one mind, and
/// what is known of other clusters as those know it themselves.
pub(super) fn healed(said: &BTreeMap<Host, Said>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (gateway, here) in said {
        for workload in gateway.cluster.hosts(Role::Workload) {
            let endpoint = here.endpoints.get(&workload.to_string());
            if endpoint.is_none_or(|endpoint| endpoint.health != "ready") {
                wrong.push(format!("{gateway} has {workload} as {endpoint:?}"));
            }
        }
        if here.endpoints.len() != gateway.cluster.hosts(Role::Workload).len() {
            wrong.push(format!("{gateway} has {:?}", here.endpoints.keys()));
        }
        for (other, there) in said {
            if other.cluster == gateway.cluster && lives(here) != lives(there) {
                wrong.push(format!("{gateway} has {:?}, {other} has {:?}", lives(here), lives(there)));
            }
            let source = other.cluster;
            if ready(here, source) != ready(there, source) {
                let (copy, own) = (ready(here, source), ready(there, source));
                wrong.push(format!("{gateway} has {copy:?} of {}, {other} has {own:?}", source.name()));
            }
        }
    }
    let gateways = Host::of(Role::Gateway).len();
    if said.len() != gateways {
        wrong.push(format!("{} of {gateways} gateways answer", said.len()));
    }
    wrong
}

fn lives(said: &Said) -> BTreeMap<&str, u64> {
    said.endpoints.iter().map(|(name, endpoint)| (name.as_str(), endpoint.incarnation)).collect()
}

fn ready(said: &Said, cluster: Cluster) -> BTreeMap<(&str, &str), u64> {
    let of = said.ready.iter().filter(|((name, ..), _)| name == cluster.name());
    of.map(|((_, service, zone), ready)| ((service.as_str(), zone.as_str()), *ready)).collect()
}

/// What nothing answers of all that a workload calls, asked by `ask`.
pub(super) fn unanswered(caller: Host, ask: impl Fn(Target) -> Outcome) -> Vec<String> {
    let failed = Target::all().into_iter().filter_map(|target| match ask(target) {
        Outcome::Answered { .. } => None,
        Outcome::Failed(error) => Some(format!("{caller} -> {target}: {error}")),
    });
    failed.collect()
}

#[cfg(test)]
mod tests;
