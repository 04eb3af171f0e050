//! One run, from the start of the mesh to the verdict.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::checker::{self, Tally};
use super::fault::What;
use super::mesh::Mesh;
use super::model::{Timeline, Window};
use super::observer::{self, Observers, Said};
use super::plan::{Host, Role, Target};
use super::schedule::{Fault, Kind, Schedule};
use super::traffic::{self, Traffic};

/// What a run showed.
#[derive(Debug)]
pub struct Report {
    /// What the run was.
    pub schedule: Schedule,
    /// What came of the requests.
    pub tally: Tally,
    /// How often the gateways were asked what they see.
    pub observations: usize,
    /// From the end of the last fault until nothing was left of any; none if that never came.
    pub healed: Option<Duration>,
    /// How long all of it took.
    pub took: Duration,
    /// The requests that failed while their target could be reached, those that are forgiven included.
    pub failures: Vec<String>,
    /// What should not have been.
    pub violations: Vec<String>,
}

/// All is well so soon after the last fault. The slowest is `path_loss`, which looks back at a minute of pings, and QUIC,
/// which has to prove itself for longer each time that it fails.
const HEALED: Duration = Duration::from_secs(180);
/// All is well so soon after the start, before any fault.
const BEGUN: Duration = Duration::from_secs(60);
/// What was killed is ready again so soon after its start, even if it starts among faults.
const READY: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// The time between two looks whether all has healed: each asks everybody.
const LOOK_ROUND: Duration = Duration::from_secs(1);

/// Runs `schedule`. What the processes said is kept if there is a violation, and where is told.
///
/// # Panics
/// If the mesh does not even start.
pub fn run(schedule: &Schedule) -> Report {
    let mut folder = tempfile::Builder::new().prefix("eastway-nemesis-").tempdir().expect("a temporary folder");
    let report = run_in(schedule, &folder);
    if !report.violations.is_empty() {
        folder.disable_cleanup(true);
        let file = folder.path().join("report");
        std::fs::write(file, report.to_string()).expect("the folder is writable");
        eprintln!("--- everything of this run is kept in {}", folder.path().display());
    }
    report
}

fn run_in(schedule: &Schedule, folder: &TempDir) -> Report {
    let started = Instant::now();
    let mut mesh = Mesh::start(schedule, folder.path());
    // Only what a caller has seen ready can take over without a gap.
    let mut violations = Vec::new();
    if let Err(wrong) = settle(&mesh, BEGUN) {
        violations.push(format!("not all was well before any fault, within {BEGUN:?}"));
        violations.extend(wrong);
    }
    let begin = Instant::now();
    let (traffic, observers) = (Traffic::start(mesh.network(), begin), Observers::start(mesh.network(), begin));
    let timeline = Executor { mesh: &mut mesh, begin, windows: Vec::new(), violations: &mut violations }.all(schedule);
    let over = Instant::now();
    let settled = settle(&mesh, HEALED);
    let healed = settled.is_ok().then(|| over.elapsed());
    if let Err(wrong) = settled {
        violations.push(format!("not all was well again within {HEALED:?}"));
        violations.extend(wrong);
    }
    let (requests, observations) = (traffic.finish(), observers.finish());
    let tally = checker::requests(&requests, &timeline, &mut violations);
    checker::observations(&observations, &timeline, &mut violations);
    Report {
        schedule: schedule.clone(),
        tally,
        observations: observations.len(),
        healed,
        took: started.elapsed(),
        failures: checker::failures(&requests, &timeline),
        violations,
    }
}

/// Makes the faults, and takes them back.
struct Executor<'a> {
    mesh: &'a mut Mesh,
    begin: Instant,
    windows: Vec<Window>,
    violations: &'a mut Vec<String>,
}

/// How far a fault is.
#[derive(Clone, Copy)]
enum Stage {
    Ahead,
    /// Since when.
    There(Duration),
    /// Since when, and until when what it ended must be ready again.
    Awaited(Duration, Duration),
    Over,
}

impl Executor<'_> {
    fn all(mut self, schedule: &Schedule) -> Timeline {
        let mut stages = vec![Stage::Ahead; schedule.faults.len()];
        while !stages.iter().all(|stage| matches!(stage, Stage::Over)) {
            for (number, fault) in schedule.faults.iter().enumerate() {
                stages[number] = self.step(number, fault, stages[number]);
            }
            self.survey(schedule, &stages);
            std::thread::sleep(LOOK);
        }
        Timeline(self.windows)
    }

    fn step(&mut self, number: usize, fault: &Fault, stage: Stage) -> Stage {
        let now = self.begin.elapsed();
        match stage {
            Stage::Ahead if now >= fault.begin => {
                self.mesh.inflict(number, &fault.what);
                Stage::There(now)
            }
            Stage::There(from) if now >= fault.end => {
                self.mesh.heal(number, &fault.what);
                self.settled(from, self.begin.elapsed() + READY, fault)
            }
            Stage::Awaited(from, limit) => self.settled(from, limit, fault),
            stage => stage,
        }
    }

    /// Whether what a fault ended is ready again.
    fn settled(&mut self, from: Duration, limit: Duration, fault: &Fault) -> Stage {
        let ends = |what: &What| matches!(what, What::Kill(_) | What::FullDisk(_));
        let ready = fault.what.host().filter(|_| ends(&fault.what)).map_or(Ok(()), |host| self.mesh.ready(host));
        let to = self.begin.elapsed();
        match ready {
            Err(_) if to < limit => return Stage::Awaited(from, limit),
            Err(last) => self.violations.push(format!("{}: not ready again within {READY:?}: {last}", fault.what)),
            Ok(()) => {}
        }
        self.windows.push(Window { what: fault.what.clone(), from, to });
        Stage::Over
    }

    /// Whether everything runs that should. A member of etcd whose disk is full may end.
    fn survey(&mut self, schedule: &Schedule, stages: &[Stage]) {
        for (host, words) in self.mesh.ended() {
            let full = |(fault, stage): (&Fault, &Stage)| {
                fault.what == What::FullDisk(host) && host.role == Role::Member && !matches!(stage, Stage::Ahead)
            };
            if !schedule.faults.iter().zip(stages).any(full) && !self.violations.contains(&words) {
                self.violations.push(words);
            }
        }
    }
}

/// Waits until all is well, for so long: each registration, each mirror, `eastway status`, and each call.
fn settle(mesh: &Mesh, patience: Duration) -> Result<(), Vec<String>> {
    let deadline = Instant::now() + patience;
    loop {
        let wrong = ailments(mesh);
        if wrong.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(wrong);
        }
        std::thread::sleep(LOOK_ROUND);
    }
}

fn ailments(mesh: &Mesh) -> Vec<String> {
    let ask = |gateway: Host| Some((gateway, mesh.network().at(gateway).inside(|| observer::ask(gateway)).ok()?));
    let said: BTreeMap<Host, Said> = Host::of(Role::Gateway).into_iter().filter_map(ask).collect();
    let mut wrong = checker::healed(&said);
    if wrong.is_empty() {
        wrong.extend(Host::of(Role::Gateway).into_iter().filter_map(|gateway| {
            mesh.status(gateway).err().map(|words| format!("`eastway status` at {gateway}: {words}"))
        }));
    }
    if wrong.is_empty() {
        for caller in Host::of(Role::Workload) {
            let call = |target: Target| mesh.network().at(caller).inside(|| traffic::ask(target, "/"));
            wrong.extend(checker::unanswered(caller, call));
        }
    }
    wrong
}

impl Report {
    /// How often each kind of fault was made.
    pub fn kinds(&self) -> BTreeMap<Kind, usize> {
        let mut kinds = BTreeMap::new();
        for fault in &self.schedule.faults {
            *kinds.entry(fault.kind).or_default() += 1;
        }
        kinds
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { sent, counted, failed } = self.tally;
        write!(f, "{}{sent} requests, {counted} count, {failed} of them failed; ", self.schedule)?;
        write!(f, "{} observations; {:.0} s in all, ", self.observations, self.took.as_secs_f64())?;
        match self.healed {
            Some(healed) => writeln!(f, "healed {:.0} s after the last fault", healed.as_secs_f64())?,
            None => writeln!(f, "never healed")?,
        }
        self.failures.iter().try_for_each(|failure| writeln!(f, "failed: {failure}"))?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "VIOLATION: {violation}"))
    }
}
