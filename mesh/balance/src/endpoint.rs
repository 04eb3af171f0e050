//! One endpoint as the workers share it: a few atomics that picks read, and its breaker behind a lock that picks never take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::view::EndpointView;
use eastway_core::{EndpointId, Health, LoadReport, Timestamp, ZoneId};
use eastway_resilience::breaker::ProbePermit;
use eastway_resilience::{Breaker, BreakerConfig, Phase};

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// One life (incarnation) of one endpoint.
///
/// It survives snapshots as long as it is the same life at the same address; requests under way keep it alive after that.
#[derive(Debug)]
#[repr(C)]
pub struct Endpoint {
    hot: Hot,
    /// Its name, unique within its cluster.
    pub id: EndpointId,
    /// Its zone.
    pub zone: ZoneId,
    /// Its sidecar's inbound listener; `None` in remote localities, where a gateway reaches it.
    pub address: Option<SocketAddr>,
    /// Which life of it.
    pub incarnation: u64,
    pub(crate) cold: Mutex<Cold>,
    pub(crate) permit: ProbePermit,
}

/// What a pick reads, in a cache line of its own: a pick draws endpoints at random, and pays for each line of each.
/// Numbers that are not whole are kept as the bits of an `f32`.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Hot {
    /// Acceptance (0 to [`FULL`]) in the low bits, marks above them.
    gate: AtomicU32,
    /// Requests of this node in flight.
    active_requests: AtomicU32,
    /// Requests of others in flight, as reported and decayed, and penalties.
    extra: AtomicU32,
    inverse_weight: AtomicU32,
    /// Smoothed time to the first byte, in µs; 0 while unknown.
    latency: AtomicU32,
    /// Others' requests as last reported.
    reported: AtomicU32,
    /// When that was; 0 for never.
    reported_at: AtomicU64,
    penalty: AtomicU32,
    utilisation: AtomicU32,
    latency_at: AtomicU64,
    /// The breaker has something to remember: results must reach it.
    alert: AtomicBool,
}

/// What changes rarely, or only by failures.
#[derive(Debug)]
pub(crate) struct Cold {
    pub(crate) breaker: Breaker,
    pub(crate) health: Health,
    pub(crate) weight: f64,
    pub(crate) capacity: u32,
    /// It is in the current view, and its locality's tally counts it.
    pub(crate) member: bool,
    /// How the tally counts it.
    pub(crate) class: HealthClass,
}

/// How an endpoint counts towards its locality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HealthClass {
    /// Never warmed: not at all.
    #[default]
    Uncounted,
    Healthy,
    Degraded,
    /// Ejected by statistics.
    Soft,
    /// Down, unready.
    Hard,
}

/// Acceptance of everything.
pub(crate) const FULL: u32 = 1 << 16;
const ACCEPTANCE: u32 = (1 << 17) - 1;
/// Not to be picked, whatever happens.
pub(crate) const HARD: u32 = 1 << 20;
/// Half-open: whoever has the permit may try.
pub(crate) const HALF_OPEN: u32 = 1 << 21;

const NEVER: u64 = 0;

/// An error rate that an endpoint reports of itself counts above this: as much as the breakers take for usual at most.
const TOLERATED: f32 = 0.1;
/// The load of an endpoint that fails always, relative to what it is.
const FAILING: f32 = 8.0;

fn read(cell: &AtomicU32) -> f32 {
    f32::from_bits(cell.load(Relaxed))
}

fn write(cell: &AtomicU32, value: f32) {
    cell.store(value.to_bits(), Relaxed);
}

/// One life of one endpoint is itself only, whatever it has in common with others.
impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Endpoint {
    /// An endpoint of the own cluster. `slow` starts it with a rising acceptance.
    pub(crate) fn local(
        view: &EndpointView,
        zone: &ZoneId,
        breaker: &Arc<BreakerConfig>,
        slow: bool,
        now: Timestamp,
    ) -> Arc<Self> {
        let breaker = match slow {
            true => Breaker::starting(Arc::clone(breaker), now),
            false => Breaker::new(Arc::clone(breaker), now),
        };
        let endpoint =
            Self::new(view.id.clone(), zone.clone(), Some(view.address), view.incarnation, breaker, view.health);
        endpoint.hot.alert.store(slow, Relaxed);
        if let Some(load) = &view.load {
            endpoint.report(load, now);
        }
        Arc::new(endpoint)
    }

    /// An endpoint of a remote locality, known by its name only.
    pub(crate) fn remote(id: EndpointId, zone: ZoneId, breaker: &Arc<BreakerConfig>) -> Arc<Self> {
        let breaker = Breaker::new(Arc::clone(breaker), Timestamp::ZERO);
        let endpoint = Self::new(id, zone, None, 0, breaker, Health::Ready);
        endpoint.regate(&endpoint.cold.lock(), Timestamp::ZERO);
        Arc::new(endpoint)
    }

    fn new(
        id: EndpointId,
        zone: ZoneId,
        address: Option<SocketAddr>,
        incarnation: u64,
        breaker: Breaker,
        health: Health,
    ) -> Self {
        let hot = Hot::default();
        write(&hot.inverse_weight, 1.0);
        write(&hot.utilisation, f32::NAN);
        // Rates and latencies need every result; sums that are 0 need failures only.
        let cold = Cold { breaker, health, weight: 1.0, capacity: 0, member: false, class: HealthClass::Uncounted };
        Self { hot, id, zone, address, incarnation, cold: Mutex::new(cold), permit: ProbePermit::default() }
    }

    /// Whether this is still the life that `view` describes.
    pub(crate) fn is_same_life(&self, view: &EndpointView) -> bool {
        self.incarnation == view.incarnation && self.address == Some(view.address) && *self.zone.zone == *view.zone
    }

    /// Requests of this node in flight to it.
    pub fn active_requests(&self) -> u32 {
        self.hot.active_requests.load(Relaxed)
    }

    /// What others have in flight, by the last report and its age, and penalties for failures.
    pub fn others(&self) -> f32 {
        read(&self.hot.extra)
    }

    /// Requests in flight per weight: what two choices compare.
    #[inline]
    pub fn load(&self) -> f32 {
        (self.active_requests() as f32 + self.others()) * read(&self.hot.inverse_weight)
    }

    /// This node's own requests in flight per weight.
    #[inline]
    pub(crate) fn own_load(&self) -> f32 {
        self.active_requests() as f32 * read(&self.hot.inverse_weight)
    }

    /// The smoothed time to the first byte, in µs; 0 while unknown.
    #[inline]
    pub(crate) fn latency_us(&self) -> f32 {
        read(&self.hot.latency)
    }

    /// The share of draws that accept it, 0 to 1.
    pub fn acceptance(&self) -> f32 {
        (self.gate() & ACCEPTANCE) as f32 / FULL as f32
    }

    /// Its part of the draws: weight × ramp.
    pub(crate) fn draw_weight(&self, ignore_ramp: bool) -> f32 {
        let ramp = if ignore_ramp { 1.0 } else { self.acceptance() };
        ramp / read(&self.hot.inverse_weight)
    }

    /// Whether a pick may take it at all.
    pub fn is_reachable(&self) -> bool {
        self.gate() & HARD == 0
    }

    /// Its use of its capacity as last reported.
    pub fn utilisation(&self) -> Option<f32> {
        Some(read(&self.hot.utilisation)).filter(|u| u.is_finite())
    }

    /// For how long it has waited for somebody to try it; `None` if it does not. Takes its lock.
    pub(crate) fn half_open_for(&self, now: Timestamp) -> Option<Duration> {
        match self.cold.lock().breaker.phase() {
            Phase::HalfOpen { since, .. } => Some(now - since),
            Phase::Closed | Phase::Open { .. } => None,
        }
    }

    #[inline]
    pub(crate) fn gate(&self) -> u32 {
        self.hot.gate.load(Relaxed)
    }

    /// Whether a draw accepts it, given 16 random bits: marks and ramps are in one word.
    #[inline]
    pub(crate) fn accepts(gate: u32, random: u32) -> bool {
        gate & ACCEPTANCE > random & 0xffff
    }

    pub(crate) fn start_request(&self) {
        self.hot.active_requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn end_request(&self) {
        let before = self.hot.active_requests.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "requests in flight of {} underflow", self.id);
    }

    pub(crate) fn set_weight(&self, weight: f64) {
        let weight = sane_weight(weight);
        write(&self.hot.inverse_weight, (1.0 / weight) as f32);
    }

    pub(crate) fn is_alert(&self) -> bool {
        self.hot.alert.load(Relaxed)
    }

    /// Whoever holds its lock, and shows so, says whether its breaker has something to remember.
    pub(crate) fn set_alert(&self, _held: &Cold, alert: bool) {
        self.hot.alert.store(alert, Relaxed);
    }

    /// Takes a report of its load: what was mine when it was made is not counted twice. One that says of itself that it
    /// fails counts as busier than it is: a gateway, which never sees an answer, knows of failures only by this.
    pub(crate) fn report(&self, load: &LoadReport, now: Timestamp) {
        let others = load.active_requests.saturating_sub(self.active_requests()) as f32;
        let others =
            if load.error_rate > TOLERATED { others + (others + 1.0) * FAILING * load.error_rate } else { others };
        write(&self.hot.reported, others);
        write(&self.hot.extra, others + read(&self.hot.penalty));
        write(&self.hot.utilisation, load.utilisation.unwrap_or(f32::NAN));
        self.hot.reported_at.store(now.as_nanos().max(1), Relaxed);
    }

    /// What others have in flight as last reported; `None` if nobody ever did.
    pub(crate) fn reported(&self) -> Option<f32> {
        (self.hot.reported_at.load(Relaxed) != NEVER).then(|| read(&self.hot.reported))
    }

    /// The age of the last report of its load.
    pub(crate) fn report_age(&self, now: Timestamp) -> Option<Duration> {
        Some(self.hot.reported_at.load(Relaxed)).filter(|at| *at != NEVER).map(|at| now - Timestamp::from_nanos(at))
    }

    /// Lets a report age towards the locality's `mean`, and penalties vanish; `factor` is what is left of a penalty.
    pub(crate) fn age(&self, mean: f32, constant: Duration, penalty_left: f32, now: Timestamp) {
        let left = read(&self.hot.penalty) * penalty_left;
        write(&self.hot.penalty, if left < 0.05 { 0.0 } else { left });
        let others = match self.reported() {
            None => mean,
            Some(reported) => {
                let age = now - Timestamp::from_nanos(self.hot.reported_at.load(Relaxed));
                mean + (reported - mean) * (-(age.as_secs_f32() / constant.as_secs_f32().max(1e-6))).exp()
            }
        };
        write(&self.hot.extra, others + read(&self.hot.penalty));
    }

    /// A failure must not make it look idle: it counts as load for a while.
    pub(crate) fn punish(&self) {
        const MOST: f32 = 16.0;
        let penalty = (read(&self.hot.penalty) + 1.0 + self.load().clamp(0.0, 4.0)).min(MOST);
        let others = (read(&self.hot.extra) - read(&self.hot.penalty)).max(0.0);
        write(&self.hot.penalty, penalty);
        write(&self.hot.extra, others + penalty);
    }

    /// Takes a latency into the smoothed one.
    pub(crate) fn observe_latency(&self, latency: Duration, now: Timestamp) {
        const PART: f32 = 0.2;
        let sample = latency.as_secs_f32() * 1e6;
        let known = self.latency_us();
        write(&self.hot.latency, if known == 0.0 { sample.max(1.0) } else { known + (sample - known) * PART });
        self.hot.latency_at.store(now.as_nanos(), Relaxed);
    }

    /// An endpoint that is not asked any more comes back to the locality's `median`, or its veto would be for ever.
    pub(crate) fn forget_latency(&self, median: f32, idle: Duration, now: Timestamp) {
        if self.latency_us() > median && now - Timestamp::from_nanos(self.hot.latency_at.load(Relaxed)) >= idle {
            write(&self.hot.latency, (self.latency_us() + median) / 2.0);
        }
    }

    /// Writes the word that picks read, from what the breaker and discovery say.
    pub(crate) fn regate(&self, cold: &Cold, now: Timestamp) {
        self.hot.gate.store(gate_of(cold, now), Relaxed);
    }
}

/// Weights in a range that sums and ratios can stand; 0 becomes next to nothing.
pub(crate) fn sane_weight(weight: f64) -> f64 {
    if weight.is_finite() { weight.clamp(0.001, 1e6) } else { 1.0 }
}

impl Cold {
    /// How the endpoint counts, from its health and its breaker.
    pub(crate) fn classify(&self) -> HealthClass {
        let by_health = match self.health {
            Health::Warming => return HealthClass::Uncounted,
            Health::Unready | Health::Down => return HealthClass::Hard,
            Health::Ready => HealthClass::Healthy,
            Health::Degraded | Health::Draining => HealthClass::Degraded,
        };
        match self.breaker.phase() {
            Phase::Closed => by_health,
            _ if self.breaker.is_down() => HealthClass::Hard,
            _ => HealthClass::Soft,
        }
    }

    /// Its weight in the units of the locality's tally.
    pub(crate) fn units(&self) -> u64 {
        (sane_weight(self.weight) * 1000.0).round() as u64
    }
}

fn gate_of(cold: &Cold, now: Timestamp) -> u32 {
    if matches!(cold.health, Health::Warming | Health::Unready | Health::Down) {
        return HARD;
    }
    match cold.breaker.phase() {
        Phase::Closed => ((cold.breaker.acceptance(now) * FULL as f32) as u32).clamp(1, FULL),
        Phase::Open { down, .. } => hard_if(down),
        Phase::HalfOpen { down, .. } => HALF_OPEN | hard_if(down),
    }
}

/// The mark of what is down. What is ejected by statistics has none: it accepts nothing, except in a panic.
fn hard_if(down: bool) -> u32 {
    if down { HARD } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Arc<Endpoint> {
        let config = Arc::new(BreakerConfig::endpoint());
        Endpoint::remote(EndpointId::new("p-1"), ZoneId::new("eu", "a"), &config)
    }

    #[test]
    fn a_report_does_not_count_my_own_requests_twice() {
        let endpoint = endpoint();
        endpoint.start_request();
        endpoint.start_request();
        endpoint.report(
            &LoadReport { active_requests: 7, utilisation: Some(0.5), error_rate: 0.0 },
            Timestamp::from_millis(5),
        );
        assert_eq!((endpoint.active_requests(), endpoint.others(), endpoint.load()), (2, 5.0, 7.0));
        assert_eq!(endpoint.utilisation(), Some(0.5));
        endpoint.report(&LoadReport { active_requests: 1, ..LoadReport::default() }, Timestamp::from_millis(6));
        assert_eq!((endpoint.others(), endpoint.utilisation()), (0.0, None));
    }

    #[test]
    fn one_that_says_that_it_fails_looks_busy_while_it_says_so() {
        let endpoint = endpoint();
        let report = |error_rate, millis| {
            endpoint.report(
                &LoadReport { active_requests: 3, utilisation: None, error_rate },
                Timestamp::from_millis(millis),
            );
            endpoint.others()
        };
        assert_eq!(report(0.1, 1), 3.0, "usual errors count for nothing");
        assert_eq!(report(0.5, 2), 3.0 + 4.0 * 8.0 * 0.5);
        assert_eq!(report(0.0, 3), 3.0);
        endpoint
            .report(&LoadReport { active_requests: 0, utilisation: None, error_rate: 1.0 }, Timestamp::from_millis(4));
        assert_eq!(endpoint.others(), 8.0, "also one that is idle because it fails at once");
    }

    #[test]
    fn an_old_report_decays_towards_the_mean_of_the_locality() {
        let endpoint = endpoint();
        let second = Duration::from_secs(1);
        endpoint.age(3.0, second, 1.0, Timestamp::ZERO);
        assert_eq!(endpoint.others(), 3.0, "nobody reported: as the others");
        endpoint.report(&LoadReport { active_requests: 10, ..LoadReport::default() }, Timestamp::from_millis(1_000));
        endpoint.age(2.0, second, 1.0, Timestamp::from_millis(2_000));
        assert!((endpoint.others() - (2.0 + 8.0 / std::f32::consts::E)).abs() < 0.01);
        endpoint.age(2.0, 4 * second, 1.0, Timestamp::from_millis(5_000));
        assert!((endpoint.others() - (2.0 + 8.0 / std::f32::consts::E)).abs() < 0.01, "the same of a longer constant");
        endpoint.age(2.0, second, 1.0, Timestamp::from_millis(60_000));
        assert!((endpoint.others() - 2.0).abs() < 1e-3);
    }

    #[test]
    fn failures_count_as_load_for_a_while() {
        let endpoint = endpoint();
        endpoint.punish();
        assert_eq!(endpoint.load(), 1.0);
        (0..100).for_each(|_| endpoint.punish());
        assert!(endpoint.load() <= 16.0);
        (0..100).for_each(|i| endpoint.age(0.0, Duration::from_secs(1), 0.9, Timestamp::from_millis(i * 100)));
        assert_eq!(endpoint.load(), 0.0);
    }

    #[test]
    fn loads_are_per_weight() {
        let endpoint = endpoint();
        endpoint.set_weight(4.0);
        endpoint.start_request();
        endpoint.report(&LoadReport { active_requests: 3, ..LoadReport::default() }, Timestamp::from_millis(1));
        assert_eq!((endpoint.load(), endpoint.own_load(), endpoint.draw_weight(false)), (0.75, 0.25, 4.0));
        assert_eq!(endpoint.report_age(Timestamp::from_millis(4)), Some(Duration::from_millis(3)));
    }

    #[test]
    fn a_penalty_is_added_to_what_others_have_and_to_what_it_was() {
        let endpoint = endpoint();
        endpoint.start_request();
        endpoint.report(&LoadReport { active_requests: 4, ..LoadReport::default() }, Timestamp::from_millis(1));
        // 1 and the load, up to 4.
        endpoint.punish();
        assert_eq!(endpoint.others(), 3.0 + 5.0);
        endpoint.punish();
        assert_eq!(endpoint.others(), 3.0 + 10.0);
        endpoint.age(3.0, Duration::from_secs(1), 0.5, Timestamp::from_millis(1));
        assert_eq!(endpoint.others(), 3.0 + 5.0);
        endpoint.report(&LoadReport { active_requests: 2, ..LoadReport::default() }, Timestamp::from_millis(2));
        assert_eq!(endpoint.others(), 1.0 + 5.0, "a report ends no penalty");
    }

    #[test]
    fn a_latency_is_smoothed() {
        let endpoint = endpoint();
        for (ms, smoothed) in [(100, 100_000.0), (200, 120_000.0), (20, 100_000.0)] {
            endpoint.observe_latency(Duration::from_millis(ms), Timestamp::ZERO);
            assert!((endpoint.latency_us() - smoothed).abs() < 1.0, "{}", endpoint.latency_us());
        }
    }

    #[test]
    fn a_latency_is_forgotten_when_nobody_asks() {
        let endpoint = endpoint();
        endpoint.observe_latency(Duration::from_millis(100), Timestamp::ZERO);
        let idle = Duration::from_secs(5);
        endpoint.forget_latency(10_000.0, idle, Timestamp::from_millis(4_000));
        assert_eq!(endpoint.latency_us(), 100_000.0);
        endpoint.forget_latency(10_000.0, idle, Timestamp::from_millis(5_000));
        assert_eq!(endpoint.latency_us(), 55_000.0);
    }

    #[test]
    fn the_gate_tells_soft_from_hard_marks() {
        let endpoint = endpoint();
        let mut rng = fastrand::Rng::with_seed(1);
        let now = Timestamp::from_millis(1);
        assert!(Endpoint::accepts(endpoint.gate(), 0xffff) && endpoint.is_reachable());
        let mut cold = endpoint.cold.lock();
        cold.breaker.trip(false, now, &mut rng);
        endpoint.regate(&cold, now);
        assert!(!Endpoint::accepts(endpoint.gate(), 0) && endpoint.is_reachable());
        assert_eq!(cold.classify(), HealthClass::Soft);
        cold.breaker.trip(true, now, &mut rng);
        endpoint.regate(&cold, now);
        assert!(!endpoint.is_reachable());
        assert_eq!(cold.classify(), HealthClass::Hard);
        cold.breaker.close(now);
        endpoint.regate(&cold, now);
        assert!((endpoint.acceptance() - 0.1).abs() < 1e-3);
        cold.health = Health::Down;
        endpoint.regate(&cold, now);
        assert!(!endpoint.is_reachable());
    }

    #[test]
    fn what_a_pick_reads_is_one_cache_line() {
        assert_eq!((size_of::<Hot>(), align_of::<Hot>(), std::mem::offset_of!(Endpoint, hot)), (64, 64, 0));
    }

    #[test]
    fn weights_are_kept_sane() {
        for (given, kept) in [(2.0, 2.0), (0.0, 0.001), (-5.0, 0.001), (f64::NAN, 1.0), (1e300, 1e6)] {
            assert_eq!(sane_weight(given), kept);
        }
    }
}
