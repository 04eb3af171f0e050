//! Runs seed after seed of the nemesis until the time is over, and sums up: `make soak DURATION=1h [SEED=n]`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use eastway_tests::machine;
use eastway_tests::nemesis::{Kind, LENGTH, Report, Schedule, run};

/// What a command line says, or what is wrong with it.
struct Arguments {
    duration: Duration,
    seed: u64,
}

/// All runs together.
#[derive(Default)]
struct Sum {
    seeds: Vec<u64>,
    took: Duration,
    kinds: BTreeMap<Kind, usize>,
    sent: usize,
    counted: usize,
    failed: usize,
    observations: usize,
    slowest: Duration,
    violated: Vec<u64>,
}

const USAGE: &str = "soak DURATION [SEED]: a duration such as 1h, 30m or 90s, and the first seed (1)";

fn main() -> ExitCode {
    let Some(Arguments { duration, seed }) = arguments(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let (begin, mut sum, _machine) = (Instant::now(), Sum::default(), machine::alone());
    // One seed is always run to its end.
    for seed in seed.. {
        let report = run(&Schedule::from_seed(seed, LENGTH));
        println!("{report}");
        sum.add(seed, &report);
        if begin.elapsed() >= duration {
            break;
        }
    }
    sum.print();
    ExitCode::from(u8::from(!sum.violated.is_empty()))
}

fn arguments(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let duration = words.next()?;
    let unit = duration.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => return None,
    };
    let number: u64 = duration.strip_suffix(unit)?.parse().ok()?;
    let seed = words.next().map_or(Some(1), |seed| seed.parse().ok())?;
    words.next().is_none().then_some(Arguments { duration: Duration::from_secs(number * seconds), seed })
}

impl Sum {
    fn add(&mut self, seed: u64, report: &Report) {
        self.seeds.push(seed);
        self.took += report.took;
        for (kind, number) in report.kinds() {
            *self.kinds.entry(kind).or_default() += number;
        }
        self.sent += report.tally.sent;
        self.counted += report.tally.counted;
        self.failed += report.tally.failed;
        self.observations += report.observations;
        self.slowest = self.slowest.max(report.healed.unwrap_or_default());
        self.violated.extend((!report.violations.is_empty()).then_some(seed));
    }

    fn print(&self) {
        let Self { seeds, took, sent, counted, failed, observations, slowest, violated, .. } = self;
        let (first, last) = (seeds.first().copied().unwrap_or_default(), seeds.last().copied().unwrap_or_default());
        println!("{:.2} h, {} seeds ({first} to {last})", took.as_secs_f64() / 3_600.0, seeds.len());
        for (kind, number) in &self.kinds {
            println!("{number:>6} {kind:?}");
        }
        println!(
            "{sent} requests, of which {counted} could reach what they asked for all the time; {failed} of those failed"
        );
        println!(
            "{observations} observations; all was well again {:.0} s after the last fault at most",
            slowest.as_secs_f64()
        );
        println!("seeds with violations: {violated:?}");
    }
}
