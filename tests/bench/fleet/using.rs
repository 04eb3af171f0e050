//! What a sidecar's memory grows by when it calls services.

use eastway_tests::lab::{Lab, LabNode, StoreKind, service};
use eastway_tests::{check, client, eventually};

use super::report::Report;

/// Services, and endpoints of each.
const SIZE: (usize, usize) = (20, 2);
/// Calls of each service.
const CALLS: usize = 50;
/// The goal, in MiB.
const GROWTH: f64 = 2.0;

/// Measures it; `whole`, or only to see that it runs.
pub(super) fn measure(report: &mut Report, whole: bool) {
    let (services, endpoints) = if whole { SIZE } else { (1, 1) };
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, "");
    let name = |number: usize| format!("service-{number}");
    let declared: Vec<String> = (0..services).map(|number| service(&name(number), "ports: [{ port: 80 }]")).collect();
    lab.declare("us-east", &declared);
    lab.start_gateway("us-east");
    for number in 0..services {
        for endpoint in 0..endpoints {
            let ip = lab.host();
            lab.workload("us-east", "a", &format!("{}-{endpoint}", name(number)), &name(number), ip);
        }
    }
    let storefront = lab.storefront("us-east", "a");
    let idle = resident(&mut lab, &storefront);
    for number in 0..services {
        let url = format!("http://{}.shop.mesh.internal/", name(number));
        eventually(&format!("{url} answers"), || {
            let answer = client::get(storefront.proxy(), &url)?;
            check(answer.status == 200, || format!("{answer:?}"))
        });
        for _ in 0..CALLS {
            assert_eq!(client::get(storefront.proxy(), &url).expect("an answer").status, 200, "{url}");
        }
    }
    let growth = (resident(&mut lab, &storefront) - idle) / 1024.0;
    report.tell("an idle sidecar", idle / 1024.0, "MiB");
    let what = format!("the same after calling {services} services of {endpoints} endpoints each: more");
    report.at_most(&what, growth, "MiB", GROWTH);
}

/// The resident memory of the node's process, in KiB, without what is mapped from files: that is its code, as far as it ran.
pub(super) fn resident(lab: &mut Lab, node: &LabNode) -> f64 {
    let status = format!("/proc/{}/status", lab.process(&node.name).pid());
    let status = std::fs::read_to_string(status).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a size");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}
