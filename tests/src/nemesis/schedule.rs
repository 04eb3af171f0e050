//! Which fault, where, when and for how long: derived from a seed alone.
//!
//! Every kind of fault comes up once before any comes up again. What is drawn is taken only if, by the model, every workload
//! can still reach each service somewhere, whatever else is broken then.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::fault::What;
use super::model::World;
use super::plan::{Cluster, Host, Role, SERVICES, Target};

/// A kind of fault, as a schedule draws it and a report counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is explained where it is drawn")]
pub enum Kind {
    KillGateway,
    KillMember,
    KillWorkload,
    FreezeGateway,
    FreezeMember,
    FreezeWorkload,
    CutClusters,
    CutClustersOneWay,
    CutOnePath,
    CutStore,
    CutMember,
    CutSibling,
    CutWorkload,
    IsolateGateway,
    IsolateWorkload,
    Loss,
    Delay,
    FullDiskGateway,
    FullDiskMember,
    ClockGateway,
    ClockWorkload,
}

/// A fault, and when it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its kind.
    pub kind: Kind,
    /// What is done.
    pub what: What,
    /// When it begins, from the begin of the run.
    pub begin: Duration,
    /// When it is taken back.
    pub end: Duration,
}

/// The faults of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What all of it follows from.
    pub seed: u64,
    /// In the order of their begin.
    pub faults: Vec<Fault>,
}

/// So long do the faults of a run go on, unless something else is wanted. Each kind comes up at least once.
pub const LENGTH: Duration = Duration::from_secs(90);
/// No fault is there for longer, in milliseconds, nor for a shorter time.
const LASTS: std::ops::Range<u64> = 3_000..10_000;
/// Between the begins of two faults, in milliseconds.
const APART: std::ops::Range<u64> = 2_000..4_000;
/// What was broken may still have its effects for so long, as far as the choice of further faults is concerned.
const AFTERMATH: Duration = Duration::from_secs(5);
/// How often another place is tried for a fault before it is put off.
const TRIES: usize = 20;
/// Half an hour. Certificates are valid from an hour before they are issued.
const JUMP: i64 = 1_800;

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 21] = [
        Self::KillGateway,
        Self::KillMember,
        Self::KillWorkload,
        Self::FreezeGateway,
        Self::FreezeMember,
        Self::FreezeWorkload,
        Self::CutClusters,
        Self::CutClustersOneWay,
        Self::CutOnePath,
        Self::CutStore,
        Self::CutMember,
        Self::CutSibling,
        Self::CutWorkload,
        Self::IsolateGateway,
        Self::IsolateWorkload,
        Self::Loss,
        Self::Delay,
        Self::FullDiskGateway,
        Self::FullDiskMember,
        Self::ClockGateway,
        Self::ClockWorkload,
    ];

    fn draw(self, rng: &mut Rng) -> What {
        let cluster = Cluster::ALL[rng.usize(..3)];
        let other = cluster.others().nth(rng.usize(..2)).expect("two others");
        let mut one = |role| {
            let hosts = cluster.hosts(role);
            hosts[rng.usize(..hosts.len())]
        };
        let (gateway, member, workload) = (one(Role::Gateway), one(Role::Member), one(Role::Workload));
        let (gateways, there) = (cluster.hosts(Role::Gateway), other.hosts(Role::Gateway));
        let jump = if rng.bool() { JUMP } else { -JUMP };
        let cut = |from, to| What::Cut { from, to, both: true };
        match self {
            Self::KillGateway => What::Kill(gateway),
            Self::KillMember => What::Kill(member),
            Self::KillWorkload => What::Kill(workload),
            Self::FreezeGateway => What::Freeze(gateway),
            Self::FreezeMember => What::Freeze(member),
            Self::FreezeWorkload => What::Freeze(workload),
            Self::CutClusters => cut(gateways, there),
            Self::CutClustersOneWay => What::Cut { from: gateways, to: there, both: false },
            Self::CutOnePath => cut(vec![gateway], vec![there[rng.usize(..there.len())]]),
            Self::CutStore => cut(vec![gateway], cluster.hosts(Role::Member)),
            // The store falls into two parts, perhaps with its leader in the smaller one.
            Self::CutMember => cut(vec![member], without(cluster.hosts(Role::Member), member)),
            Self::CutSibling => cut(vec![gateway], without(gateways, gateway)),
            Self::CutWorkload => cut(vec![workload], gateways),
            Self::IsolateGateway => cut(vec![gateway], without(Host::all(), gateway)),
            Self::IsolateWorkload => cut(vec![workload], without(Host::all(), workload)),
            Self::Loss => What::Loss(if rng.bool() { [gateways, there].concat() } else { vec![workload, gateway] }),
            Self::Delay => What::Delay([cluster, other]),
            Self::FullDiskGateway => What::FullDisk(gateway),
            Self::FullDiskMember => What::FullDisk(member),
            Self::ClockGateway => What::Clock(gateway, jump),
            Self::ClockWorkload => What::Clock(workload, jump),
        }
    }
}

fn without(mut hosts: Vec<Host>, one: Host) -> Vec<Host> {
    hosts.retain(|host| *host != one);
    hosts
}

impl Schedule {
    /// The schedule of `seed`, whose last fault is over after `length`.
    pub fn from_seed(seed: u64, length: Duration) -> Self {
        let (mut rng, mut deck) = (Rng::with_seed(seed), Vec::new());
        let mut schedule = Self { seed, faults: Vec::new() };
        let mut begin = Duration::ZERO;
        loop {
            begin += Duration::from_millis(rng.u64(APART));
            if begin + Duration::from_millis(LASTS.end) > length {
                return schedule;
            }
            if deck.is_empty() {
                deck.extend(Kind::ALL);
                rng.shuffle(&mut deck);
            }
            // What finds no place now comes when others have healed.
            let drawn = (0..deck.len()).rev().find_map(|at| Some((at, schedule.place(&mut rng, deck[at], begin)?)));
            if let Some((at, fault)) = drawn {
                deck.remove(at);
                schedule.faults.push(fault);
            }
        }
    }

    fn place(&self, rng: &mut Rng, kind: Kind, begin: Duration) -> Option<Fault> {
        (0..TRIES).find_map(|_| {
            let end = begin + Duration::from_millis(rng.u64(LASTS));
            let fault = Fault { kind, what: kind.draw(rng), begin, end };
            self.allows(&fault).then_some(fault)
        })
    }

    /// Whether every service stays reachable if this comes on top, and no host has two faults at a time.
    fn allows(&self, new: &Fault) -> bool {
        let beside = self.faults.iter().filter(|fault| new.begin < fault.end + AFTERMATH);
        let beside: Vec<&What> = beside.map(|fault| &fault.what).collect();
        let alone = beside.iter().all(|what| new.what.host().is_none() || what.host() != new.what.host());
        alone && leaves_all_reachable(beside.into_iter().chain([&new.what]))
    }

    /// The hosts whose wall clocks are set.
    pub fn clocks(&self) -> Vec<Host> {
        let set = |fault: &Fault| matches!(fault.what, What::Clock(..)).then(|| fault.what.host()).flatten();
        self.faults.iter().filter_map(set).collect()
    }

    /// The hosts whose disks are filled.
    pub fn disks(&self) -> Vec<Host> {
        let filled = |fault: &Fault| matches!(fault.what, What::FullDisk(_)).then(|| fault.what.host()).flatten();
        self.faults.iter().filter_map(filled).collect()
    }
}

/// Whether every workload can reach every service under these faults, apart from those that cut this one off by themselves.
fn leaves_all_reachable<'a>(faults: impl Iterator<Item = &'a What> + Clone) -> bool {
    let reached = |caller: Host, world: &World| {
        SERVICES.into_iter().all(|service| world.reaches(caller, Target { service, cluster: None }))
    };
    Host::of(Role::Workload).into_iter().all(|caller| {
        let others = faults.clone().filter(|what| reached(caller, &World::under([*what])));
        reached(caller, &World::under(others))
    })
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} faults", self.seed, self.faults.len())?;
        for Fault { what, begin, end, .. } in &self.faults {
            writeln!(f, "{:>7.2} s to {:>6.2} s  {what}", begin.as_secs_f64(), end.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_says_everything_and_another_one_something_else() {
        let text = Schedule::from_seed(7, LENGTH).to_string();
        assert_eq!(text, Schedule::from_seed(7, LENGTH).to_string());
        assert_ne!(text, Schedule::from_seed(8, LENGTH).to_string());
    }

    #[test]
    fn whatever_is_broken_at_a_time_leaves_every_service_reachable_for_all_that_run() {
        for seed in 0..200 {
            let schedule = Schedule::from_seed(seed, LENGTH);
            for at in schedule.faults.iter().map(|fault| fault.begin) {
                let broken = schedule.faults.iter().filter(|fault| fault.begin <= at && at < fault.end);
                assert!(leaves_all_reachable(broken.map(|fault| &fault.what)), "{at:?}\n{schedule}");
            }
        }
    }

    #[test]
    fn faults_that_leave_a_service_to_nobody_are_noticed() {
        let all = |cluster: Cluster| cluster.hosts(Role::Workload).into_iter().map(What::Kill);
        let two: Vec<What> = Cluster::ALL.into_iter().take(2).flat_map(all).collect();
        assert!(leaves_all_reachable(two.iter()));
        let three: Vec<What> = Cluster::ALL.into_iter().flat_map(all).collect();
        assert!(leaves_all_reachable([].iter()) && !leaves_all_reachable(three[..10].iter()));
    }

    #[test]
    fn every_kind_comes_up_and_ends_in_time() {
        for seed in 0..50 {
            let schedule = Schedule::from_seed(seed, LENGTH);
            let kinds: BTreeSet<Kind> = schedule.faults.iter().map(|fault| fault.kind).collect();
            assert_eq!(kinds.len(), Kind::ALL.len(), "{schedule}");
            assert!(schedule.faults.iter().all(|fault| fault.begin < fault.end && fault.end <= LENGTH), "{schedule}");
        }
    }
}
