//! How soon what changes in a cluster is known to all of its sidecars.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use eastway_server::resources::{Change, NamedText};
use eastway_server::store::EmbeddedStore;
use eastway_tests::lab::{Lab, PAYMENTS_SPEC, StoreKind, service};

use super::callers::{Caller, all, flips, ready, storm};
use super::crowd::{account, authority, gateway, listen, register, workload};
use super::percentile;
use super::report::Report;

const CALLERS: usize = 100;
const ENDPOINTS: usize = 20;
const ROUNDS: usize = 100;
/// Within a cluster; `whole`, or only to see that it runs.
pub(super) async fn within(report: &mut Report, whole: bool) {
    let rounds = if whole { ROUNDS } else { 1 };
    let folder = tempfile::tempdir().expect("a folder");
    let store = EmbeddedStore::open(folder.path()).await.expect("a store");
    let ca = authority();
    let gateways = [gateway(&ca, store.clone(), "gw-1").await, gateway(&ca, store.clone(), "gw-2").await];

    let served = account(&ca, "payments");
    let (address, _) = listen().await;
    let mut workloads = Vec::new();
    for at in 0..ENDPOINTS {
        workloads.push(register(&served, gateways[at % 2].1, workload("payments", at, address)).await);
    }
    let calling = account(&ca, "storefront");
    let mut callers = Vec::new();
    for at in 0..CALLERS {
        callers.push(Caller::start("us-east", &calling, gateways[at % 2].1).await);
    }
    all(&callers, |view| ready(view) == ENDPOINTS).await;

    let mut applied = Vec::new();
    for round in 0..rounds {
        let attempts = 2 + (round % 8) as u32;
        let text = format!(
            "apiVersion: eastway.dev/v1\nkind: Service\nmetadata: {{ name: payments, namespace: shop }}\nspec: {{ retries: {{ attempts: {attempts} }} }}\n"
        );
        let texts = vec![NamedText { file: "bench".to_owned(), text }];
        let change = Change::Apply { texts, beside: BTreeMap::new(), prune: false };
        let began = Instant::now();
        gateways[round % 2].0.apply(&change, "bench", false).await.expect("applied");
        all(&callers, |view| view.spec.policy.retries.attempts == Some(attempts)).await;
        applied.push(began.elapsed());
    }
    // Health goes from gateway to gateway on connections that this bench has not: its own gateway's callers are asked.
    let near: Vec<Caller> = callers.iter().step_by(2).cloned().collect();
    // One endpoint's changes pass at once ten in a row, its registration among them; beyond that one in a second.
    let quiet = flips(&workloads, &near, rounds.min(ENDPOINTS / 2 * 4)).await;
    let stormy = storm(&ca, gateways[0].1, address, whole).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let amid = flips(&workloads, &near, rounds.min(ENDPOINTS / 2 * 8)).await;
    let mut known = |name: String, times: &[Duration], goal: f64| {
        report.tell(&format!("{name}, p50"), percentile(times, 0.5), "ms");
        report.at_most(&format!("{name}, p99"), percentile(times, 0.99), "ms", goal);
    };
    known(format!("apply, until the last of {CALLERS} sidecars at two gateways acts on it"), &applied, 200.0);
    let near = near.len();
    known(format!("an endpoint's health, until the last of {near} sidecars at its gateway knows"), &quiet, 20.0);
    known(format!("the same while {} other endpoints change every second", stormy.len()), &amid, 20.0);
    drop((callers, workloads, stormy));
}

/// Across two clusters with the gateways of production, each with a storm of its own.
pub(super) async fn across(report: &mut Report, whole: bool) {
    let rounds = if whole { ROUNDS } else { 1 };
    let mut lab = Lab::new();
    for cluster in ["us-east", "eu-west"] {
        lab.plan(cluster, StoreKind::Embedded, "");
    }
    for (cluster, peer) in [("us-east", "eu-west"), ("eu-west", "us-east")] {
        let storms = (0..100).map(|number| service(&format!("storm-{number}"), "export: ['*']"));
        let declared = [service("payments", PAYMENTS_SPEC), lab.peer(peer, "imports: ['shop/*']")];
        lab.declare(cluster, &storms.chain(declared).collect::<Vec<_>>());
    }
    let [here, there] = ["us-east", "eu-west"].map(|cluster| lab.start_gateway(cluster).at(15010));
    let (address, _) = listen().await;
    let mut workloads = Vec::new();
    let served = account(lab.authority("eu-west"), "payments");
    for at in 0..ENDPOINTS {
        workloads.push(register(&served, there, workload("payments", at, address)).await);
    }
    let calling = account(lab.authority("us-east"), "storefront");
    let mut callers = Vec::new();
    for _ in 0..CALLERS / 2 {
        callers.push(Caller::start("us-east", &calling, here).await);
    }
    all(&callers, |view| ready(view) == ENDPOINTS).await;
    let stormy = [
        storm(lab.authority("us-east"), here, address, whole).await,
        storm(lab.authority("eu-west"), there, address, whole).await,
    ];
    tokio::time::sleep(Duration::from_secs(8)).await;
    let times = flips(&workloads, &callers, rounds.min(ENDPOINTS / 2 * 8)).await;
    let (count, each) = (callers.len(), stormy[0].len());
    let what = format!(
        "an endpoint's health, until the last of {count} sidecars in another cluster knows, while {each} others change every second in each"
    );
    report.tell(&format!("{what}, p50"), percentile(&times, 0.5), "ms");
    report.at_most(&format!("{what}, p99"), percentile(&times, 0.99), "ms", 25.0);
}
