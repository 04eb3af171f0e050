//! The scenarios under `tests/simulations`, each with what it exists to show.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use eastway_documents as config;
use eastway_documents::reference::{keep_current, keep_part_current, tables_of};
use eastway_simulation::{Report, Scenario, plot, run, table};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn scenario(name: &str) -> Scenario {
    let file = root().join(format!("tests/simulations/{name}.yaml"));
    let scenario: Scenario = config::load(&file).unwrap_or_else(|problems| panic!("{problems}")).value;
    assert_eq!(scenario.mistakes(), [], "{name}");
    scenario
}

/// Runs it with its own seed, and shows what came of it where a test fails.
fn result(name: &str) -> Report {
    let report = run(&scenario(name));
    println!("{name}\n{}", table::text(&report));
    report
}

/// The mean share of a locality over some seconds.
fn share(report: &Report, locality: &str, from: f64, until: f64) -> f64 {
    let shares: Vec<f64> = report
        .shares_of(locality)
        .into_iter()
        .filter(|(t, _)| (from..until).contains(t))
        .map(|(_, share)| share)
        .collect();
    assert!(!shares.is_empty(), "{locality} from {from} to {until}");
    shares.iter().sum::<f64>() / shares.len() as f64
}

#[test]
fn a_killed_zone_loses_its_traffic_within_a_second_and_no_request() {
    let report = result("zone-kill");
    assert_eq!((report.failures, report.oscillations), (0, 1));
    assert!(report.shift_ms.expect("it shifts") <= 1_000.0);
    assert!(share(&report, "us-east/a", 0.0, 20.0) > 99.9);
    assert!(share(&report, "us-east/b", 21.0, 50.0) > 99.9, "the region first, not the other one");
    // Half of the ramp, a mean jitter included.
    let half = share(&report, "us-east/a", 67.0, 69.0);
    assert!((40.0..60.0).contains(&half), "{half}");
    assert!(share(&report, "us-east/a", 90.0, 100.0) > 99.9);
}

#[test]
fn a_grey_zone_loses_its_traffic_and_gets_it_back() {
    let report = result("grey-zone");
    assert!(report.failure_ratio() < 0.002, "{}", report.failure_ratio());
    assert!(share(&report, "us-east/a", 23.0, 50.0) < 10.0);
    assert!(share(&report, "us-east/a", 85.0, 90.0) > 80.0, "breakers that were open often are patient");
    assert!(report.offered_ratio < 1.05);
}

/// Close to what exact knowledge reaches: the median of three seeds, as single runs scatter.
#[test]
fn slow_endpoints_are_found_by_their_reports() {
    let mut ratios: Vec<(f64, f64)> = (1..=3)
        .map(|seed| {
            let report = run(&Scenario { seed, ..scenario("slow-endpoints") });
            println!("seed {seed}\n{}", table::text(&report));
            assert_eq!(report.failures, 0);
            (report.imbalance_over_baseline().expect("longer than 10 s"), report.p99_ms / report.baseline.p99_ms)
        })
        .collect();
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(ratios[1].0 <= 1.25, "imbalance is {:.2} times that of exact knowledge", ratios[1].0);
    ratios.sort_by(|a, b| a.1.total_cmp(&b.1));
    assert!(ratios[1].1 <= 1.3, "p99 is {:.2} times that of exact knowledge", ratios[1].1);
}

#[test]
fn without_reports_slow_endpoints_are_overloaded() {
    let mut deaf = scenario("slow-endpoints");
    deaf.report_ms = 0.0;
    deaf.policy.latency_veto = Some(0.0);
    let (deaf, with) = (run(&deaf), result("slow-endpoints"));
    let imbalance = |report: &Report| report.imbalance.expect("longer than 10 s");
    assert!(imbalance(&deaf) > imbalance(&with) * 1.5, "{} {}", imbalance(&deaf), imbalance(&with));
}

#[test]
fn a_flapping_zone_costs_nothing_and_is_kept_out() {
    let report = result("flapping-zone");
    assert!(report.failure_ratio() <= 0.005, "{}", report.failure_ratio());
    assert!(share(&report, "us-east/a", 80.0, 140.0) < 1.0, "damped");
}

#[test]
fn a_cold_zone_is_not_overloaded_by_its_return() {
    let report = result("cold-failback");
    assert_eq!((report.failures, report.oscillations), (0, 1));
    assert!(share(&report, "us-east/a", 100.0, 120.0) > 99.0);
}

/// The scenario is hard enough: what ramps prevent does happen without them.
#[test]
fn without_ramps_a_cold_zone_falls_over() {
    let mut sudden = scenario("cold-failback");
    sudden.policy.ramp_s = Some(0.001);
    sudden.policy.ramp_jitter_s = Some(0.0);
    let (sudden, gentle) = (run(&sudden), result("cold-failback"));
    assert!(sudden.p99_ms > gentle.p99_ms * 1.5, "{} {}", sudden.p99_ms, gentle.p99_ms);
}

#[test]
fn a_region_that_returns_has_its_traffic_after_half_of_a_ramp() {
    let report = result("region-return");
    assert_eq!(report.failures, 0);
    let region = |from, until| share(&report, "us-east/a", from, until) + share(&report, "us-east/b", from, until);
    assert!(share(&report, "eu-west/a", 22.0, 40.0) > 99.0);
    // A quarter of the ramp, less a mean jitter: each zone takes a sixth.
    assert!((20.0..45.0).contains(&region(47.0, 49.0)), "{}", region(47.0, 49.0));
    // Half of the ramp, and the whole jitter.
    assert!(region(62.0, 65.0) > 99.0, "{}", region(62.0, 65.0));
    assert!(share(&report, "us-east/a", 62.0, 65.0) < 80.0, "the nearer zone alone is not there yet");
    assert!(share(&report, "us-east/a", 80.0, 90.0) > 99.9);
}

#[test]
fn a_dependency_that_is_down_is_not_hammered() {
    let report = result("dependency-down");
    let (requests, offered) = report
        .seconds
        .iter()
        .filter(|second| (30..90).contains(&second.t))
        .fold((0, 0), |(requests, offered), second| (requests + second.requests, offered + second.offered));
    assert!(f64::from(offered) <= 1.2 * f64::from(requests), "{offered} attempts for {requests} requests");
    assert!(report.recovery_ms.expect("it recovers") <= 5_000.0);
}

#[test]
fn two_equal_localities_share_a_load_without_swinging() {
    let report = result("equal-localities");
    assert_eq!((report.failures, report.oscillations), (0, 0));
    assert!(share(&report, "us-east/a", 0.0, 60.0) > 99.9, "what the near zone can bear stays there");
    let (late, end) = (share(&report, "us-east/a", 180.0, 200.0), share(&report, "us-east/a", 220.0, 240.0));
    assert!((40.0..70.0).contains(&end) && (late - end).abs() < 2.0, "{late} {end}");
}

#[test]
fn stale_peers_still_serve() {
    let report = result("stale-peers");
    assert_eq!(report.failures, 0);
    assert!(share(&report, "us-east/a", 10.0, 60.0) > 99.9, "a healthy own zone needs no evidence of others");
    assert!(share(&report, "us-east/a", 61.0, 90.0) < 0.1);
    assert!(share(&report, "eu-west/a", 61.0, 90.0) > 10.0 && share(&report, "ap-south/a", 61.0, 90.0) > 10.0);
    assert!(share(&report, "us-east/a", 135.0, 150.0) > 99.0);
}

#[test]
fn equal_seeds_give_equal_reports() {
    for name in ["zone-kill", "stale-peers", "grey-zone"] {
        let json = |seed| serde_json::to_string(&run(&Scenario { seed, ..scenario(name) })).expect("JSON");
        let (first, again, other) = (json(7), json(7), json(8));
        assert!(first == again, "{name} differs from itself");
        assert!(first != other, "{name} ignores its seed");
    }
}

#[test]
fn the_report_has_the_fields_of_the_contract() {
    let report = serde_json::to_value(result("zone-kill")).expect("JSON");
    let keys = |value: &serde_json::Value| -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    let fields = [
        "seed",
        "requests",
        "failures",
        "offered_ratio",
        "p50_ms",
        "p99_ms",
        "p999_ms",
        "imbalance",
        "shift_ms",
        "oscillations",
        "shares",
        "baseline",
    ];
    assert!(fields.iter().all(|field| keys(&report).contains(*field)), "{:?}", keys(&report));
    assert!(["t", "locality", "share"].iter().all(|field| keys(&report["shares"][0]).contains(*field)));
    assert!(["name", "p99_ms", "imbalance"].iter().all(|field| keys(&report["baseline"]).contains(*field)));
    assert_eq!(report["baseline"]["name"], "global-jsq2");
}

/// `UPDATE=1 cargo test -p eastway-simulation plots` draws them anew, as `eastway simulate --plot` does.
#[test]
fn the_plots_of_the_documentation_are_current() {
    for (name, title) in [
        ("zone-kill", "A zone dies at 20 s and returns at 50 s"),
        ("cold-failback", "A zone returns cold: a third of its speed from 40 s to 60 s"),
        ("region-return", "A region of two zones dies at 20 s and returns at 40 s"),
        ("equal-localities", "A load that the near zone cannot bear, from 60 s on"),
    ] {
        let svg = plot::svg(&run(&scenario(name)), title);
        keep_current(&root().join(format!("docs/plots/{name}.svg")), &svg).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_reference_of_scenarios_is_current() {
    let (file, tables) = (root().join("docs/simulation.md"), tables_of::<Scenario>());
    keep_part_current(&file, "scenario", &tables).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_scenario_is_tested_here() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios.rs")).expect("this file");
    let files = fs::read_dir(root().join("tests/simulations")).expect("the folder");
    let names: Vec<String> = files
        .map(|file| file.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.len(), 9, "{names:?}");
    for name in names {
        assert!(text.contains(&format!("result(\"{name}\")")), "{name}");
    }
}
