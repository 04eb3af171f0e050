//! The checker notices what it is there for, and forgives what the design does.

use super::super::model::Window;
use super::super::observer::Endpoint;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn host(role: Role, number: usize) -> Host {
    Cluster::ALL[0].hosts(role)[number - 1]
}

/// A request of a ledger for payments, which `name` answers.
fn request(name: &str, path: &str) -> Request {
    Request {
        caller: host(Role::Workload, 3),
        target: Target { service: "payments", cluster: None },
        path: "/7".to_owned(),
        sent: SECOND * 40,
        done: SECOND * 41,
        outcome: Outcome::Answered { service: "payments".to_owned(), name: name.to_owned(), path: path.to_owned() },
    }
}

fn failed() -> Request {
    Request { outcome: Outcome::Failed("503".to_owned()), ..request("", "") }
}

fn window(what: What, from: u64, to: u64) -> Timeline {
    let [from, to] = [from, to].map(Duration::from_secs);
    Timeline(vec![Window { what, from, to }])
}

fn judged(all: &[Request], timeline: &Timeline) -> (Tally, Vec<String>) {
    let mut violations = Vec::new();
    (requests(all, timeline, &mut violations), violations)
}

#[test]
fn an_answer_of_another_service_cluster_or_request_is_a_violation() {
    let only_far = Target { service: "payments", cluster: Some(Cluster::ALL[1]) };
    for (request, wrong) in [
        (request("us-east-payments-a", "/7"), false),
        (request("eu-west-payments-b", "/7"), false),
        (request("us-east-payments-a", "/8"), true),
        (request("us-east-ledger-a", "/7"), true),
        (request("nobody", "/7"), true),
        (Request { target: only_far, ..request("eu-west-payments-a", "/7") }, false),
        (Request { target: only_far, ..request("us-east-payments-a", "/7") }, true),
        (Request { target: Target { service: "ledger", cluster: None }, ..request("us-east-payments-a", "/7") }, true),
    ] {
        let (_, violations) = judged(std::slice::from_ref(&request), &Timeline::default());
        assert_eq!(!violations.is_empty(), wrong, "{request:?} {violations:?}");
    }
}

#[test]
fn failures_count_while_the_target_can_be_reached_and_one_of_two_thousand_is_forgiven() {
    let mut all = vec![request("us-east-payments-a", "/7"); ONE_IN - 1];
    all.push(failed());
    let (tally, violations) = judged(&all, &Timeline::default());
    assert_eq!((tally, violations.len()), (Tally { sent: ONE_IN, counted: ONE_IN, failed: 1 }, 0), "{violations:?}");
    all.push(failed());
    assert_eq!(judged(&all, &Timeline::default()).1.len(), 3, "a sentence, and each of both");

    let away = window(What::Kill(host(Role::Workload, 3)), 38, 45);
    assert_eq!(judged(&[failed()], &away), (Tally { sent: 1, counted: 0, failed: 0 }, vec![]));
    // That one of two endpoints is gone excuses nothing.
    let one_less = window(What::Kill(host(Role::Workload, 1)), 38, 45);
    assert_eq!(judged(&[failed()], &one_less).0.failed, 1);
}

fn said(epoch: u64, version: (u64, u64)) -> Said {
    let ready = || Endpoint { health: "ready".to_owned(), why: String::new(), incarnation: 1 };
    let endpoints = host(Role::Gateway, 1).cluster.hosts(Role::Workload).into_iter();
    Said {
        epoch,
        versions: [(("eu-west".to_owned(), "gateway-1".to_owned()), version)].into(),
        endpoints: endpoints.map(|host| (host.to_string(), ready())).collect(),
        ready: BTreeMap::new(),
    }
}

fn watched(all: Vec<Said>, timeline: &Timeline) -> Vec<String> {
    let all = all.into_iter().zip(40..).map(|(said, at)| {
        let at = Duration::from_secs(at);
        Observation { gateway: host(Role::Gateway, 1), asked: at, answered: at, said }
    });
    let mut violations = Vec::new();
    observations(&all.collect::<Vec<_>>(), timeline, &mut violations);
    violations
}

#[test]
fn a_version_that_goes_back_is_a_violation_unless_its_observer_has_just_started() {
    for (before, after, violations) in [
        (said(3, (5, 9)), said(3, (5, 9)), 0),
        (said(3, (5, 9)), said(3, (6, 1)), 0),
        (said(3, (5, 9)), said(3, (5, 8)), 1),
        (said(3, (5, 9)), said(3, (4, 10)), 1),
        (said(3, (5, 9)), said(4, (5, 1)), 0),
        (said(3, (5, 9)), said(2, (5, 9)), 1),
    ] {
        assert_eq!(watched(vec![before, after], &Timeline::default()).len(), violations);
    }
}

#[test]
fn an_endpoint_that_nothing_ails_is_neither_withdrawn_nor_down() {
    let [gateway, sibling] = [1, 2].map(|number| host(Role::Gateway, number));
    let (workload, name) = (host(Role::Workload, 1), host(Role::Workload, 1).to_string());
    let mut withdrawn = said(1, (1, 1));
    withdrawn.endpoints.remove(&name);
    let mut down = said(1, (1, 1));
    down.endpoints.get_mut(&name).expect("there").health = "down".to_owned();
    let cut = |from, to| What::Cut { from: vec![from], to: vec![to], both: false };
    for (what, excused) in [
        (What::Kill(sibling), false),
        (What::Kill(host(Role::Member, 1)), false),
        (What::Clock(workload, 1), false),
        (What::FullDisk(gateway), false),
        (cut(gateway, host(Role::Member, 1)), false),
        (cut(workload, host(Role::Workload, 2)), false),
        (What::Kill(workload), true),
        (What::Freeze(gateway), true),
        (cut(workload, sibling), true),
        (cut(sibling, workload), true),
        (What::Loss(vec![workload]), true),
    ] {
        for (from, to, within) in [(30, 35, true), (10, 20, false)] {
            let timeline = window(what.clone(), from, to);
            for said in [&withdrawn, &down] {
                let violations = watched(vec![said.clone()], &timeline);
                assert_eq!(violations.is_empty(), excused && within, "{what:?} {violations:?}");
            }
        }
    }
    assert_eq!(watched(vec![said(1, (1, 1))], &Timeline::default()), Vec::<String>::new());
}

/// What all gateways say when all is well.
fn well() -> BTreeMap<Host, Said> {
    let ready = Host::of(Role::Workload).into_iter().map(|host| {
        let place = (host.cluster.name().to_owned(), format!("shop/{}", host.service()), host.zone().to_owned());
        (place, 1)
    });
    let ready: BTreeMap<_, _> = ready.collect();
    let of = |gateway: Host| {
        let endpoints = gateway.cluster.hosts(Role::Workload).into_iter().map(|host| {
            (host.to_string(), Endpoint { health: "ready".to_owned(), why: String::new(), incarnation: 1 })
        });
        (gateway, Said { endpoints: endpoints.collect(), ready: ready.clone(), ..Said::default() })
    };
    Host::of(Role::Gateway).into_iter().map(of).collect()
}

#[test]
fn what_is_left_of_a_fault_is_told_whatever_it_is() {
    assert_eq!(healed(&well()), Vec::<String>::new());
    let (gateway, name) = (host(Role::Gateway, 1), host(Role::Workload, 1).to_string());
    let changes: [fn(&mut Said, &str); 5] = [
        |said, name| drop(said.endpoints.remove(name)),
        |said, name| said.endpoints.get_mut(name).expect("there").health = "down".to_owned(),
        |said, name| said.endpoints.get_mut(name).expect("there").incarnation = 2,
        |said, name| drop(said.endpoints.insert(format!("{name}-2"), said.endpoints[name].clone())),
        |said, _| drop(said.ready.pop_last()),
    ];
    for change in changes {
        let mut all = well();
        change(all.get_mut(&gateway).expect("there"), &name);
        assert!(!healed(&all).is_empty(), "{:?}", all[&gateway]);
    }
    let mut fewer = well();
    fewer.remove(&gateway);
    assert!(!healed(&fewer).is_empty());
}

#[test]
fn a_call_that_nobody_answers_is_told() {
    let caller = host(Role::Workload, 1);
    let ask = |target: Target| match target.service {
        "ledger" => Outcome::Failed("503".to_owned()),
        service => Outcome::Answered { service: service.to_owned(), name: String::new(), path: String::new() },
    };
    assert_eq!(unanswered(caller, ask).len(), 1 + Cluster::ALL.len());
}
