use proptest::prelude::*;

use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A path whose answers take `rtt` (by ping number), driven like the real one; stops answering at `dies`.
struct Path {
    monitor: PathMonitor,
    now: Timestamp,
    pings: u64,
    answers: VecDeque<(Timestamp, Duration)>,
}

impl Path {
    fn new() -> Self {
        let monitor = PathMonitor::new(PathMonitorConfig::default(), Timestamp::ZERO);
        Self { monitor, now: Timestamp::ZERO, pings: 0, answers: VecDeque::new() }
    }

    /// Runs until `end`, and returns when each state was first seen after `from`.
    fn run(&mut self, end: Timestamp, rtt: impl Fn(u64) -> Option<Duration>) -> Vec<(PathState, Timestamp)> {
        let mut seen: Vec<(PathState, Timestamp)> = Vec::new();
        while self.now < end {
            while self.answers.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, rtt) = self.answers.pop_front().expect("just seen");
                self.monitor.on_pong(rtt, self.now);
            }
            let poll = self.monitor.poll(self.now);
            if seen.last().is_none_or(|(state, _)| *state != poll.state) {
                seen.push((poll.state, self.now));
            }
            if poll.send_ping {
                self.monitor.on_ping_sent(self.now);
                if let Some(rtt) = rtt(self.pings) {
                    self.answers.push_back((self.now + rtt, rtt));
                }
                self.pings += 1;
                continue;
            }
            assert!(poll.deadline > self.now, "a poll that is due again at once: {:?}", self.monitor);
            let answer = self.answers.front().map_or(end, |(at, _)| *at);
            self.now = poll.deadline.min(answer).min(end);
        }
        seen
    }

    /// When the state was reached, in ms after the last ping that was answered nowhere was sent first.
    fn silence(rtt: impl Fn(u64) -> Option<Duration>) -> (u64, u64) {
        let mut path = Self::new();
        path.run(Timestamp::from_millis(30_000), rtt);
        assert_eq!(path.monitor.state(), PathState::Up);
        path.answers.clear();
        let seen = path.run(Timestamp::from_millis(60_000), |_| None);
        let since = path.monitor.silent_since.expect("silent");
        let at = |state| seen.iter().find(|(s, _)| *s == state).map(|(_, at)| (*at - since).as_millis() as u64);
        (at(PathState::Suspect).expect("suspect"), at(PathState::Down).expect("down"))
    }
}

#[test]
fn a_path_of_one_millisecond_is_down_after_300() {
    let (suspect, down) = Path::silence(|_| Some(ms(1)));
    assert!((75..=90).contains(&suspect), "suspect after {suspect} ms");
    assert!((300..=310).contains(&down), "down after {down} ms");
}

#[test]
fn a_path_of_a_hundred_milliseconds_is_suspect_after_about_435() {
    // A jitter of some ms, as a real path of this length has.
    let (suspect, down) = Path::silence(|ping| Some(ms([95, 100, 105, 100][ping as usize % 4])));
    assert!((380..=470).contains(&suspect), "suspect after {suspect} ms");
    assert!((800..=1_200).contains(&down), "down after {down} ms");
}

#[test]
fn a_timeout_follows_the_round_trips_and_their_variance() {
    let mut monitor = PathMonitor::new(PathMonitorConfig::default(), Timestamp::ZERO);
    assert_eq!(monitor.timeout(), PathMonitorConfig::default().initial);
    // The first answer's variance is half of it; then 1/8 of the round trip and 1/4 of the deviation go in.
    for (rtt, smoothed, variance) in [(80, 80.0, 40.0), (80, 80.0, 30.0), (160, 90.0, 42.5), (10, 80.0, 51.875)] {
        monitor.on_pong(ms(rtt), Timestamp::ZERO);
        let expected = smoothed + 4.0 * variance + 25.0;
        assert!((monitor.timeout().as_secs_f64() * 1e3 - expected).abs() < 1e-3, "{:?}", monitor.timeout());
    }
    let mut steady = PathMonitor::new(PathMonitorConfig::default(), Timestamp::ZERO);
    (0..100).for_each(|_| steady.on_pong(ms(4), Timestamp::ZERO));
    assert!(steady.timeout().abs_diff(ms(4 + 1 + 25)) < Duration::from_micros(1), "{:?}", steady.timeout());
}

#[test]
fn an_answer_at_the_last_moment_saves_the_path() {
    let mut path = Path::new();
    path.run(Timestamp::from_millis(5_000), |_| Some(ms(10)));
    path.answers.clear();
    let mut now = path.now;
    while path.monitor.poll(now).state != PathState::Suspect {
        let poll = path.monitor.poll(now);
        if poll.send_ping {
            path.monitor.on_ping_sent(now);
        }
        now = path.monitor.poll(now).deadline;
    }
    path.monitor.on_pong(ms(300), now);
    assert_eq!(path.monitor.poll(now).state, PathState::Up);
}

#[test]
fn a_lost_connection_is_down_at_once_and_a_new_one_unknown_until_it_answers() {
    let mut monitor = PathMonitor::new(PathMonitorConfig::default(), Timestamp::ZERO);
    monitor.on_lost(Timestamp::from_millis(1));
    assert_eq!(monitor.poll(Timestamp::from_millis(1)).state, PathState::Down);
    monitor.on_connected(Timestamp::from_millis(500));
    let poll = monitor.poll(Timestamp::from_millis(500));
    assert_eq!((poll.state, poll.send_ping), (PathState::Unknown, true));
    monitor.on_ping_sent(Timestamp::from_millis(500));
    monitor.on_pong(ms(4), Timestamp::from_millis(504));
    assert_eq!(monitor.state(), PathState::Up);
}

#[test]
fn the_minimum_needs_twenty_answers_and_is_that_of_the_last_minute() {
    let mut monitor = PathMonitor::new(PathMonitorConfig::default(), Timestamp::ZERO);
    for i in 0..19 {
        monitor.on_pong(ms(10 + i), Timestamp::from_millis(i * 250));
    }
    assert_eq!(monitor.min_rtt(), None);
    monitor.on_pong(ms(30), Timestamp::from_millis(5_000));
    assert_eq!(monitor.min_rtt(), Some(ms(10)));
    monitor.on_pong(ms(40), Timestamp::from_millis(63_000));
    assert_eq!(monitor.min_rtt(), Some(ms(22)));
    assert!(monitor.smoothed_rtt().is_some_and(|rtt| rtt > ms(10) && rtt < ms(40)));
}

#[test]
fn what_was_measured_outlasts_an_outage_until_twenty_pings_are_answered_again() {
    // The path falls silent, or its connection breaks and another is opened; for seconds, or for longer than a minute.
    for (broken, outage) in [(false, 12), (true, 12), (false, 600), (true, 600)] {
        let mut path = Path::new();
        path.run(Timestamp::from_millis(20_000), |_| Some(ms(40)));
        assert_eq!(path.monitor.min_rtt(), Some(ms(40)));
        if broken {
            path.monitor.on_lost(Timestamp::from_millis(20_000));
        }
        path.run(Timestamp::from_millis(20_000 + outage * 1_000), |_| None);
        assert_eq!((path.monitor.state(), path.monitor.min_rtt()), (PathState::Down, Some(ms(40))));
        let healed = Timestamp::from_millis(20_000 + outage * 1_000);
        if broken {
            path.monitor.on_connected(healed);
        }
        // What waited comes late, and the new way is shorter.
        let mut answers = 0;
        for i in 0..25u32 {
            let rtt = if i < 3 { ms(400) } else { ms(35) };
            path.monitor.on_pong(rtt, healed + ms(250) * i);
            answers += 1;
            let told = if answers < 20 { ms(40) } else { ms(35) };
            assert_eq!(path.monitor.min_rtt(), Some(told), "{broken} {outage} {answers}");
        }
    }
}

#[test]
fn a_path_that_is_lost_every_few_seconds_is_measured_all_the_same() {
    let mut monitor = PathMonitor::new(PathMonitorConfig::default(), Timestamp::ZERO);
    for i in 0..20 {
        assert_eq!(monitor.min_rtt(), None);
        monitor.on_pong(ms(40), Timestamp::from_millis(i * 1_000));
        monitor.on_lost(Timestamp::from_millis(i * 1_000 + 500));
    }
    assert_eq!(monitor.min_rtt(), Some(ms(40)));
}

#[test]
fn the_round_trips_of_a_minute_are_kept_and_no_more() {
    let mut monitor = PathMonitor::new(PathMonitorConfig::default(), Timestamp::ZERO);
    // Ever longer ones replace none.
    for i in 0..10_000 {
        monitor.on_pong(Duration::from_micros(1_000 + i), Timestamp::from_millis(i * 250));
    }
    assert!(monitor.minimum.rising.len() <= 241, "{}", monitor.minimum.rising.len());
}

proptest! {
    /// A path that answers is never down, whatever its round trips are, as long as they vary by less than half.
    #[test]
    fn a_path_that_answers_stays_up(base in 1u64..200, spread in 0u64..100, seed in any::<u64>()) {
        let spread = spread.min(base / 2);
        let mut rng = fastrand::Rng::with_seed(seed);
        let jitter: Vec<u64> = (0..64).map(|_| rng.u64(0..=spread)).collect();
        let mut path = Path::new();
        let seen = path.run(Timestamp::from_millis(60_000), |ping| Some(ms(base + jitter[ping as usize % 64])));
        prop_assert!(seen.iter().all(|(state, _)| *state < PathState::Suspect), "{seen:?}");
    }

    /// The timeout never shrinks while pings expire, and stays bounded.
    #[test]
    fn timeouts_double_and_stay_bounded(rtt in 1u64..2_000, expiries in 0u32..40) {
        let mut monitor = PathMonitor::new(PathMonitorConfig::default(), Timestamp::ZERO);
        monitor.on_pong(ms(rtt), Timestamp::ZERO);
        let mut last = Duration::ZERO;
        for expired in 0..expiries {
            monitor.expired = expired;
            prop_assert!(monitor.timeout() >= last && monitor.timeout() <= ms(10_000));
            last = monitor.timeout();
        }
    }
}

#[test]
fn loss_is_the_share_of_the_last_pings_that_were_not_answered_in_time() {
    let mut path = Path::new();
    assert_eq!(path.monitor.loss(), None, "nothing is known before the first ping has ended");
    // Every tenth is lost.
    path.run(Timestamp::from_millis(120_000), |ping| (ping % 10 != 9).then(|| ms(5)));
    let loss = path.monitor.loss().expect("pings have ended");
    assert!((0.09..0.11).contains(&loss), "{loss}");
    // It is forgotten within a minute of pings that are answered, and at once by a new connection.
    path.run(Timestamp::from_millis(200_000), |_| Some(ms(5)));
    assert_eq!(path.monitor.loss(), Some(0.0));
    path.run(Timestamp::from_millis(210_000), |_| None);
    assert!(path.monitor.loss().is_some_and(|loss| loss > 0.0));
    path.monitor.on_connected(path.now);
    assert_eq!(path.monitor.loss(), None);
}

#[test]
fn an_answer_that_comes_too_late_was_a_loss() {
    let mut monitor =
        PathMonitor::new(PathMonitorConfig { loss_window: 2, ..PathMonitorConfig::default() }, Timestamp::ZERO);
    monitor.on_ping_sent(Timestamp::ZERO);
    let late = Timestamp::from_millis(600);
    monitor.poll(late);
    monitor.on_pong(ms(600), late);
    assert_eq!(monitor.loss(), Some(1.0));
    for millis in [1000, 2000] {
        monitor.on_ping_sent(Timestamp::from_millis(millis));
        monitor.on_pong(ms(1), Timestamp::from_millis(millis + 1));
    }
    assert_eq!(monitor.loss(), Some(0.0), "no more than the window is remembered");
}
