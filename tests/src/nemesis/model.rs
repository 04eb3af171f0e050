//! Who could reach whom: what a perfect mesh could do under a set of faults, and nothing of how Eastway does it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fault::What;
use super::plan::{Cluster, Host, Role, Target};

/// What is broken at one moment.
#[derive(Debug, Default)]
pub(super) struct World {
    down: BTreeSet<Host>,
    /// No packet passes from the first to the second.
    blocked: BTreeSet<(Host, Host)>,
}

/// A fault as it was: from just before it was made until what it had broken ran again.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// What was done.
    pub what: What,
    /// Since the begin of the run.
    pub from: Duration,
    /// Since the begin of the run.
    pub to: Duration,
}

/// All that was broken in a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline(pub Vec<Window>);

/// Who could not reach a service has so long to find it again before its requests count: paths are dialled again, and
/// proven, with pauses.
pub(super) const RETURN: Duration = Duration::from_secs(10);

impl World {
    /// The world with all of these faults at once.
    pub(super) fn under<'a>(faults: impl IntoIterator<Item = &'a What>) -> Self {
        let mut world = Self::default();
        for what in faults {
            match what {
                What::Kill(host) | What::Freeze(host) => {
                    world.down.insert(*host);
                }
                // A member that cannot write ends itself; gateways and sidecars need no disk to serve.
                What::FullDisk(host) => world.down.extend((host.role == Role::Member).then_some(*host)),
                What::Cut { from, to, both } => {
                    for (one, other) in from.iter().flat_map(|one| to.iter().map(move |other| (*one, *other))) {
                        world.blocked.insert((one, other));
                        world.blocked.extend(both.then_some((other, one)));
                    }
                }
                What::Loss(_) | What::Delay(_) | What::Clock(..) => {}
            }
        }
        world
    }

    /// Whether its processes run.
    pub(super) fn is_up(&self, host: Host) -> bool {
        !self.down.contains(&host)
    }

    /// Whether they can talk with one another: packets pass both ways.
    pub(super) fn linked(&self, one: Host, other: Host) -> bool {
        !self.blocked.contains(&(one, other)) && !self.blocked.contains(&(other, one))
    }

    /// Whether a workload that runs can reach an endpoint of what it calls: in its own cluster, or through a gateway of both.
    pub(super) fn reaches(&self, caller: Host, target: Target) -> bool {
        let own = target.cluster.is_none_or(|cluster| cluster == caller.cluster);
        let within = own && self.serves(caller, caller.cluster, target.service);
        let across = || {
            let wanted = |cluster: &Cluster| target.cluster.is_none_or(|only| only == *cluster);
            caller.cluster.others().filter(wanted).any(|cluster| self.crosses(caller, cluster, target.service))
        };
        self.is_up(caller) && (within || across())
    }

    fn crosses(&self, caller: Host, cluster: Cluster, service: &str) -> bool {
        let next = |from: Host, cluster: Cluster| {
            let gateways = cluster.hosts(Role::Gateway).into_iter();
            gateways.filter(move |gateway| self.is_up(*gateway) && self.linked(from, *gateway))
        };
        let mut ways = next(caller, caller.cluster).flat_map(|here| next(here, cluster));
        ways.any(|there| self.serves(there, cluster, service))
    }

    /// Whether an endpoint of `service` in `cluster` can be reached from `from`.
    fn serves(&self, from: Host, cluster: Cluster, service: &str) -> bool {
        let serving = |workload: &Host| workload.service() == service && self.is_up(*workload) && self.heard(*workload);
        let mut workloads = cluster.hosts(Role::Workload).into_iter().filter(serving);
        workloads.any(|workload| self.linked(from, workload))
    }

    /// Whether the gateways of its cluster do not take it for down: they do if those that run cannot reach it. Callers follow
    /// them, whether or not they could reach it themselves.
    fn heard(&self, workload: Host) -> bool {
        let mut running =
            workload.cluster.hosts(Role::Gateway).into_iter().filter(|gateway| self.is_up(*gateway)).peekable();
        running.peek().is_none() || running.any(|gateway| self.linked(gateway, workload))
    }
}

impl Timeline {
    /// Whether `caller` could reach what it called all the time, and long enough before.
    pub(super) fn reached(&self, caller: Host, target: Target, from: Duration, to: Duration) -> bool {
        let from = from.saturating_sub(RETURN);
        let begins = self.between(from, to).map(|window| window.from.max(from));
        // What is broken grows only where a fault begins.
        begins.chain([from]).all(|at| self.at(at).reaches(caller, target))
    }

    /// The faults that were there at some time of `from` to `to`.
    pub(super) fn between(&self, from: Duration, to: Duration) -> impl Iterator<Item = &Window> {
        self.0.iter().filter(move |window| window.from <= to && from <= window.to)
    }

    fn at(&self, at: Duration) -> World {
        World::under(self.between(at, at).map(|window| &window.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Target = Target { service: "payments", cluster: None };

    fn host(cluster: usize, role: Role, number: usize) -> Host {
        Cluster::ALL[cluster].hosts(role)[number - 1]
    }

    fn cut(from: Vec<Host>, to: Vec<Host>) -> What {
        What::Cut { from, to, both: false }
    }

    #[test]
    fn a_service_is_reached_in_the_own_cluster_and_through_gateways_of_both() {
        let caller = host(0, Role::Workload, 3);
        let far = Target { cluster: Some(Cluster::ALL[1]), ..ANY };
        let own = [1, 2].map(|number| What::Kill(host(0, Role::Workload, number)));
        let gateways = |cluster| [1, 2].map(|number| host(cluster, Role::Gateway, number)).to_vec();
        let apart = [cut(gateways(0), gateways(1)), cut(gateways(2), gateways(0))];
        let [one, other] = [1, 2].map(|number| What::Freeze(host(0, Role::Gateway, number)));
        for (faults, any, only_far) in [
            (vec![], true, true),
            (own.to_vec(), true, true),
            (vec![one.clone()], true, true),
            (vec![one.clone(), other.clone()], true, false),
            ([&own[..], &[one, other]].concat(), false, false),
            (vec![apart[0].clone()], true, false),
            (vec![apart[1].clone()], true, true),
            ([&own[..], &apart[..]].concat(), false, false),
            (vec![cut(vec![caller], gateways(0))], true, false),
            (vec![What::Kill(caller)], false, false),
            (Host::of(Role::Member).into_iter().map(What::Kill).collect(), true, true),
        ] {
            let world = World::under(&faults);
            assert_eq!((world.reaches(caller, ANY), world.reaches(caller, far)), (any, only_far), "{faults:?}");
        }
    }

    #[test]
    fn an_endpoint_that_its_gateways_cannot_reach_is_down_for_everybody() {
        let (caller, gateways) = (host(0, Role::Workload, 3), [1, 2].map(|number| host(0, Role::Gateway, number)));
        let near = Target { cluster: Some(Cluster::ALL[0]), ..ANY };
        let cut_off = [1, 2].map(|number| cut(vec![host(0, Role::Workload, number)], gateways.to_vec()));
        assert!(World::under(&cut_off[..1]).reaches(caller, near) && !World::under(&cut_off).reaches(caller, near));
        // Silence alone is no evidence.
        let gone = gateways.map(What::Kill);
        assert!(World::under(cut_off.iter().chain(&gone)).reaches(caller, near));
        assert!(!World::under(cut_off.iter().chain(&gone[..1])).reaches(caller, near));
    }

    #[test]
    fn a_path_that_is_left_through_one_gateway_each_is_enough() {
        let caller = host(0, Role::Workload, 1);
        let far = Target { cluster: Some(Cluster::ALL[2]), ..ANY };
        let [near, there] = [0, 2].map(|cluster| host(cluster, Role::Gateway, 1));
        let faults = [What::Kill(near), What::Kill(there)];
        assert!(World::under(&faults).reaches(caller, far));
        let last = cut(vec![host(2, Role::Gateway, 2)], vec![host(0, Role::Gateway, 2)]);
        assert!(!World::under(faults.iter().chain([&last])).reaches(caller, far));
    }

    #[test]
    fn what_was_out_of_reach_counts_again_after_a_while_only() {
        let caller = host(0, Role::Workload, 1);
        let seconds = Duration::from_secs;
        let timeline = Timeline(vec![Window { what: What::Kill(caller), from: seconds(20), to: seconds(25) }]);
        for (from, to, reached) in [(5, 19, true), (5, 20, false), (21, 22, false), (30, 31, false), (36, 37, true)] {
            assert_eq!(timeline.reached(caller, ANY, seconds(from), seconds(to)), reached, "{from} to {to}");
        }
    }
}
