//! The faults: which, when and for how long, all by the seed; and their end.

use eastway_core::Health;

use crate::world::gateway::Told;
use crate::world::names::Host;
use crate::world::{Event, World};

/// How long after the end of a fault its consequences may last, in milliseconds.
pub(crate) const AFTERMATH: u64 = 9_000;

/// How long nobody hinders a gateway from writing again what was deleted by hand.
const REPAIR: u64 = 10_000;

/// One fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A gateway is killed, and started again at the end of the time.
    CrashGateway(u64),
    /// A gateway is killed for good.
    RemoveGateway,
    /// A gateway is suspended.
    PauseGateway(u64),
    /// A gateway is suspended, and replaced by another process meanwhile.
    ReplaceGateway(u64),
    /// A gateway and its store do not reach one another.
    CutStore(u64),
    /// Two gateways do not reach one another, or one not the other.
    CutGateways(u64),
    /// A gateway and all those of the other cluster do not reach one another, while all sidecars go to it.
    HideGateway(u64),
    /// A sidecar and a gateway do not reach one another.
    CutSidecar(u64),
    /// A sidecar is killed, and starts again at the end of the time.
    CrashSidecar(u64),
    /// A workload is killed, and another one gets its address.
    ReplaceWorkload,
    /// A workload ends in order, and starts again at the end of the time.
    Goodbye(u64),
    /// A sidecar is suspended.
    PauseSidecar(u64),
    /// A sidecar goes to another gateway.
    MoveSidecar,
    /// An application's health changes.
    Flip,
    /// The store's history is forgotten.
    Compact,
    /// The store answers nobody.
    StoreDown(u64),
    /// A copy of the store is made, and restored at the end of the time.
    RestoreStore(u64),
    /// All slices of a gateway are deleted by hand.
    WipeSlices,
    /// All leases of the store end.
    EndLeases,
    /// A wall clock jumps.
    JumpClock,
    /// A stream between gateways breaks.
    BreakStream,
    /// A statement between gateways is lost.
    LoseStatement,
    /// No store has a quorum, and the clusters do not reach one another.
    Isolate(u64),
    /// A workload ends or is replaced, and a moment later another does.
    Churn,
    /// The end of some of the above.
    StartGateway(usize),
    StartSidecar(usize),
    Restore(usize),
}

impl Fault {
    /// Whether it may keep a gateway from writing its slices again.
    const fn hinders_repair(self) -> bool {
        matches!(
            self,
            Self::CrashGateway(_)
                | Self::RemoveGateway
                | Self::PauseGateway(_)
                | Self::ReplaceGateway(_)
                | Self::CutStore(_)
                | Self::StoreDown(_)
                | Self::RestoreStore(_)
        )
    }
}

impl World {
    /// The faults of this schedule, with their times.
    pub(crate) fn plan_faults(&mut self, from: u64, to: u64) -> Vec<(u64, Fault)> {
        let count = self.rng.usize(4..16);
        (0..count).map(|_| (self.rng.u64(from..to - 2_000), self.draw_fault())).collect()
    }

    fn draw_fault(&mut self) -> Fault {
        let long = self.rng.u64(500..12_000);
        match self.rng.u8(0..41) {
            0..4 => Fault::CrashGateway(long),
            4 => Fault::RemoveGateway,
            5..7 => Fault::PauseGateway(long),
            7..10 => Fault::ReplaceGateway(long.min(8_000)),
            10..13 => Fault::CutStore(long),
            13..16 => Fault::CutGateways(long),
            16 => Fault::CutSidecar(long.min(8_000)),
            17..20 => Fault::CrashSidecar(long),
            20 => Fault::ReplaceWorkload,
            21..23 => Fault::Goodbye(long),
            23 => Fault::PauseSidecar(long.min(6_000)),
            24..27 => Fault::MoveSidecar,
            27..29 => Fault::Flip,
            29..31 => Fault::Compact,
            31 => Fault::StoreDown(long),
            32 => Fault::RestoreStore(long),
            33 => Fault::WipeSlices,
            34 => Fault::EndLeases,
            35..37 => Fault::JumpClock,
            37 => Fault::BreakStream,
            38 => Fault::HideGateway(long / 2 + 12_500),
            _ => Fault::LoseStatement,
        }
    }

    /// Makes a fault.
    pub(crate) fn make(&mut self, fault: Fault) {
        self.note(|| format!("FAULT {fault:?}"));
        let place = self.rng.usize(..self.places.len());
        let cluster = self.places[place].cluster;
        let number = self.rng.usize(..self.sidecars.len());
        let process = self.running[place];
        if self.now < self.repairing_until[cluster] && fault.hinders_repair() {
            return;
        }
        match fault {
            Fault::CrashGateway(_) | Fault::RemoveGateway | Fault::PauseGateway(_) | Fault::ReplaceGateway(_) => {
                self.trouble_gateway(fault, place, process);
            }
            Fault::CrashSidecar(_)
            | Fault::ReplaceWorkload
            | Fault::Goodbye(_)
            | Fault::PauseSidecar(_)
            | Fault::MoveSidecar
            | Fault::Flip => self.trouble_sidecar(fault, number),
            Fault::CutStore(long) => {
                self.count("gateway cut from its store");
                self.cut(Host::Gateway(place), Host::Store(cluster), long);
                self.unsettle(cluster, long);
            }
            Fault::CutGateways(long) => self.cut_gateways(place, long),
            Fault::HideGateway(long) => self.hide_gateway(place, long),
            Fault::CutSidecar(long) => {
                self.count("gateway cut from a sidecar");
                self.cut(Host::Gateway(place), Host::Sidecar(number), long);
                self.disturb(number, long);
            }
            Fault::Isolate(long) => self.isolate(long),
            Fault::Churn => self.churn(number),
            Fault::JumpClock => {
                self.count("clock jump");
                let host = self.rng.usize(..self.wall_offsets.len());
                self.wall_offsets[host] += self.rng.i64(-3_600_000..600_000);
            }
            Fault::BreakStream | Fault::LoseStatement => self.trouble_stream(fault),
            Fault::StartGateway(place) => {
                if self.running[place].is_none() && !self.abandoned.contains(&place) {
                    self.spawn_gateway(place);
                }
            }
            Fault::StartSidecar(number) => {
                if !self.sidecars[number].is_up {
                    self.start_sidecar(number);
                }
            }
            fault => self.trouble_store(fault, cluster, place),
        }
    }

    fn trouble_gateway(&mut self, fault: Fault, place: usize, process: Option<usize>) {
        let (Some(process), cluster) = (process, self.places[place].cluster) else { return };
        let others = (0..self.places.len()).filter(|other| self.places[*other].cluster == cluster);
        let left = others.filter(|other| !self.abandoned.contains(other)).count();
        match fault {
            Fault::CrashGateway(long) => {
                self.count("gateway killed");
                self.kill_gateway(process);
                self.after(long, Event::Fault(Fault::StartGateway(place)));
                self.unsettle(cluster, long);
            }
            Fault::RemoveGateway if left > 1 => {
                self.count("gateway removed");
                self.kill_gateway(process);
                self.abandoned.push(place);
                self.unsettle(cluster, 15_000);
            }
            Fault::PauseGateway(long) => {
                self.count("gateway suspended");
                self.suspend(process, long);
            }
            Fault::ReplaceGateway(long) => {
                self.count("gateway suspended and replaced");
                self.suspend(process, long);
                self.spawn_gateway(place);
            }
            _ => {}
        }
    }

    /// What it hears of either cluster it hears late.
    fn suspend(&mut self, process: usize, long: u64) {
        self.gateways[process].paused_until = self.now + long;
        self.unsettle(0, long);
        self.unsettle(1, long);
    }

    pub(crate) fn trouble_sidecar(&mut self, fault: Fault, number: usize) {
        let cluster = self.sidecars[number].cluster;
        if !self.sidecars[number].is_up {
            return;
        }
        match fault {
            Fault::CrashSidecar(long) => {
                self.count("sidecar killed");
                self.stop_sidecar(number, false);
                self.after(long, Event::Fault(Fault::StartSidecar(number)));
                self.disturb(number, long);
            }
            Fault::ReplaceWorkload => {
                self.count("workload replaced at its address");
                self.stop_sidecar(number, false);
                self.replace_workload(number);
                self.disturb(number, 0);
            }
            Fault::Goodbye(long) => {
                self.count("sidecar deregistered");
                self.stop_sidecar(number, true);
                self.after(long, Event::Fault(Fault::StartSidecar(number)));
                self.disturb(number, long);
            }
            Fault::PauseSidecar(long) => {
                self.count("sidecar suspended");
                self.sidecars[number].paused_until = self.now + long;
                self.unsettle(cluster, long);
            }
            Fault::MoveSidecar => {
                self.count("sidecar moved");
                self.leave_gateway(number, 0);
                self.unsettle(cluster, 0);
            }
            _ => {
                self.count("health changed");
                let health = [Health::Ready, Health::Degraded, Health::Unready][self.rng.usize(..3)];
                self.set_health(number, health);
                self.unsettle(cluster, 0);
            }
        }
    }

    fn trouble_store(&mut self, fault: Fault, cluster: usize, place: usize) {
        match fault {
            Fault::Compact => {
                self.count("compaction");
                self.stores[cluster].compact();
                return;
            }
            Fault::StoreDown(long) => {
                self.count("store down");
                self.store_down_until[cluster] = self.now + long;
                self.unsettle(cluster, long);
            }
            Fault::RestoreStore(long) => {
                self.stores[cluster].back_up();
                self.after(long, Event::Fault(Fault::Restore(cluster)));
                return;
            }
            Fault::Restore(cluster) => {
                self.count("store restored");
                self.stores[cluster].restore(self.now);
                self.unsettle(cluster, 0);
                self.store_changed(cluster);
                return;
            }
            Fault::WipeSlices if self.may_be_wiped(place, cluster) => {
                self.count("slices deleted by hand");
                self.repairing_until[cluster] = self.now + REPAIR;
                let gateway = self.places[place].id.clone();
                self.stores[cluster].wipe(&gateway, self.now);
            }
            Fault::EndLeases => {
                self.count("all leases ended");
                self.stores[cluster].end_all_leases(self.now);
                self.unsettle(cluster, 0);
            }
            _ => return,
        }
        self.store_changed(cluster);
    }

    /// Whether the gateway can write again what is deleted: nobody else knows its endpoints, and one that cannot for longer than
    /// what vanished is held loses them until it can.
    fn may_be_wiped(&self, place: usize, cluster: usize) -> bool {
        let process = self.running[place].filter(|process| self.gateways[*process].core.is_some());
        let runs = process.is_some_and(|process| self.gateways[process].paused_until <= self.now);
        let reaches = self.network.reaches(Host::Gateway(place), Host::Store(cluster), self.now);
        runs && reaches && self.now >= self.store_down_until[cluster]
    }

    fn trouble_stream(&mut self, fault: Fault) {
        let told = |gateway: &crate::world::gateway::Gateway| {
            let core = gateway.core.as_deref()?;
            let streams = core.publishing.iter().filter(|(_, stream)| !matches!(stream.told, Told::Waiting { .. }));
            Some(streams.map(|(id, _)| *id).collect::<Vec<_>>())
        };
        let streams: Vec<_> = self.gateways.iter().filter_map(told).flatten().collect();
        if streams.is_empty() {
            return;
        }
        let connection = streams[self.rng.usize(..streams.len())];
        let Some(stream) = self.network.connections.get_mut(&connection) else { return };
        if matches!(fault, Fault::LoseStatement) {
            stream.loses_one = true;
            self.count("statement lost");
            return;
        }
        let ends = stream.ends;
        self.count("stream broken");
        for actor in ends {
            self.close(connection, actor);
            if let crate::world::network::Actor::Gateway(process) = actor {
                self.gateway_stream_closed(process, connection);
            }
        }
    }

    fn cut_gateways(&mut self, place: usize, long: u64) {
        let other = self.rng.usize(..self.places.len());
        if other == place {
            return;
        }
        let until = self.now + long;
        let (a, b) = (Host::Gateway(place), Host::Gateway(other));
        self.network.block(a, b, until);
        match self.rng.bool() {
            true => {
                self.count("gateways cut from one another");
                self.network.block(b, a, until);
            }
            false => self.count("gateways cut in one direction"),
        }
        if self.places[place].cluster == self.places[other].cluster {
            self.unsettle(self.places[place].cluster, long);
        }
    }

    /// What the other cluster knows then it has from the others of this one (found by the nemesis).
    fn hide_gateway(&mut self, place: usize, long: u64) {
        self.count("gateway hidden from the other cluster");
        let cluster = self.places[place].cluster;
        for other in (0..self.places.len()).filter(|other| self.places[*other].cluster != cluster).collect::<Vec<_>>() {
            self.cut(Host::Gateway(place), Host::Gateway(other), long);
        }
        self.gathered[cluster] = Some((place, self.now + long));
        for number in 0..self.sidecars.len() {
            if self.sidecars[number].cluster == cluster && self.sidecars[number].is_up {
                self.leave_gateway(number, 0);
            }
        }
        self.unsettle(cluster, 0);
    }

    fn cut(&mut self, a: Host, b: Host, long: u64) {
        let until = self.now + long;
        self.network.block(a, b, until);
        self.network.block(b, a, until);
    }

    /// Probes of a sidecar may fail for so long.
    fn disturb(&mut self, number: usize, long: u64) {
        let until = self.now + long + AFTERMATH;
        let sidecar = &mut self.sidecars[number];
        sidecar.disturbed_until = until.max(sidecar.disturbed_until);
        self.unsettle(self.sidecars[number].cluster, long);
    }

    /// Something within the cluster is out of order for so long.
    pub(crate) fn unsettle(&mut self, cluster: usize, long: u64) {
        let until = self.now + long + AFTERMATH;
        self.unquiet_until[cluster] = until.max(self.unquiet_until[cluster]);
    }

    /// All faults end. Some workloads never come back.
    pub(crate) fn heal(&mut self) {
        self.note(|| "HEALED".to_owned());
        self.network.heal();
        self.gathered = [None; 2];
        self.store_down_until = [0; 2];
        self.unsettle(0, 0);
        self.unsettle(1, 0);
        for gateway in &mut self.gateways {
            gateway.paused_until = 0;
        }
        for place in 0..self.places.len() {
            self.end_fenced_life(place);
            self.make(Fault::StartGateway(place));
        }
        for number in 0..self.sidecars.len() {
            self.sidecars[number].paused_until = 0;
            if !self.sidecars[number].is_up && self.rng.bool() {
                self.start_sidecar(number);
            }
        }
    }

    /// A life that began without the store, and ended before the store heard of it, leaves an earlier one of the same gateway
    /// that everybody else ignores. That one says so, and tells its operator to start it again: so that is done here.
    fn end_fenced_life(&mut self, place: usize) {
        let Some(process) = self.running[place] else { return };
        if self.latest_epochs[place] > self.gateways[process].epoch() && self.gateways[process].core.is_some() {
            self.count("gateway restarted because it was fenced");
            self.kill_gateway(process);
        }
    }
}
