//! What a steady caller sees while zones and regions die and return: nothing.

use eastway_tests::caller::Caller;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, StoreKind, app_name, reaches};
use eastway_tests::{check, client, eventually};

/// Both regions of the demo in small: payments once in us-east/a, us-east/b and eu-west/a, called from us-east/a.
struct Regions {
    lab: Lab,
    near: LabNode,
    same_region: LabNode,
    storefront: LabNode,
}

impl Regions {
    fn start() -> Self {
        let mut lab = Lab::new();
        lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
        let near = lab.payments("us-east", "a", "payments-1");
        let same_region = lab.payments("us-east", "b", "payments-2");
        lab.payments("eu-west", "a", "payments-1");
        let storefront = lab.storefront("us-east", "a");
        reaches(storefront.proxy(), "us-east/a");
        // Only what the caller has seen ready can take over without a gap.
        for cluster in ["us-east", "eu-west"] {
            let url = format!("http://payments.shop.{cluster}.mesh.internal/");
            eventually(&url, || {
                let answer = client::get(storefront.proxy(), &url)?;
                check(answer.status == 200, || format!("{answer:?}"))
            });
        }
        Self { lab, near, same_region, storefront }
    }
}

#[test]
fn a_zone_and_then_a_region_die_and_return_and_no_request_is_lost() {
    let Regions { mut lab, near, same_region, storefront } = Regions::start();
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(50);
    lab.kill_workload(&near);
    reaches(storefront.proxy(), "us-east/b");
    caller.answers(50);
    lab.kill_workload(&same_region);
    reaches(storefront.proxy(), "eu-west/a");
    caller.answers(50);
    lab.restart_workload("us-east", "a", &near);
    reaches(storefront.proxy(), "us-east/a");
    lab.restart_workload("us-east", "b", &same_region);
    caller.answers(100);
    let tally = caller.finish_without_failure();
    assert_eq!(tally.zones.len(), 3, "every place answered at its time: {tally:?}");
}

/// A payments workload that is probed once a second, as by default: its callers see that it fails before its gateway does.
fn leisurely(lab: &mut Lab, cluster: &str, name: &str) -> LabNode {
    let node = LabNode { name: format!("{cluster}-{name}"), ip: lab.host() };
    let (inbound, app) = (node.inbound(), node.app());
    let probed = "health: { http: { path: /healthz } }";
    let serving = format!("  service: payments\ninbound: {{ listen: '{inbound}', app: '{app}' }}\n{probed}\n");
    lab.configure(cluster, "a", &node, "payments", &serving);
    lab.restart_workload(cluster, "a", &node);
    node
}

#[test]
fn callers_that_only_post_are_served_again_when_the_only_endpoint_or_both_were_down_for_seconds() {
    // Down for four seconds at the caller's pace.
    const DOWN: usize = 200;
    for cluster in ["eu-west", "us-east"] {
        let mut lab = Lab::new();
        lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
        let first = leisurely(&mut lab, cluster, "payments-1");
        let storefront = lab.storefront("us-east", "a");
        let caller = Caller::posting(storefront.proxy(), PAYMENTS);
        caller.answers(50);
        lab.kill(&app_name(&first));
        caller.fails(DOWN);
        lab.start_app(cluster, "a", &first);
        caller.answers(50);
        lab.kill(&first.name);
        caller.fails(DOWN);
        lab.start_role("sidecar", &first.name);
        caller.answers(50);
        let second = leisurely(&mut lab, cluster, "payments-2");
        caller.answers(100);
        let both = [&first, &second];
        both.iter().for_each(|node| lab.kill(&app_name(node)));
        caller.fails(DOWN);
        both.iter().for_each(|node| lab.start_app(cluster, "a", node));
        caller.answers(100);
    }
}

#[test]
fn an_application_that_fails_its_probes_gets_no_more_requests() {
    let Regions { lab: _lab, near, storefront, .. } = Regions::start();
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(20);
    tell(&near, "fail");
    reaches(storefront.proxy(), "us-east/b");
    let served = || caller.tally().zones.get("us-east/a").copied();
    eventually("the unready application is not called any more", || {
        let before = served();
        caller.answers(25);
        check(served() == before, || format!("{:?}", caller.tally()))
    });
    tell(&near, "pass");
    reaches(storefront.proxy(), "us-east/a");
    caller.finish_without_failure();
}

/// Has the application of a node answer its probes from now on with that verdict.
fn tell(node: &LabNode, verdict: &str) {
    let told = client::send(node.app(), "POST", &format!("http://app/health/{verdict}"), &[], b"");
    assert_eq!(told.expect("an answer").status, 200);
}

#[test]
fn an_application_alone_dies_and_its_sidecar_says_so() {
    let Regions { mut lab, near, storefront, .. } = Regions::start();
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    caller.answers(20);
    lab.kill(&app_name(&near));
    reaches(storefront.proxy(), "us-east/b");
    caller.answers(50);
    caller.finish_without_failure();
}
