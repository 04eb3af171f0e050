//! What is decided about sessions without a connection.

use std::collections::BTreeMap;

use eastway_core::resource::ClusterMeta;
use eastway_core::view::{PathState, PeerView, Staleness};

use super::*;

#[test]
fn another_gateway_is_asked_if_the_tunnel_of_the_first_failed_and_the_same_one_only_if_it_was_quick() {
    for reason in [Reason::StreamOpenTimeout, Reason::TunnelLost] {
        assert!(goes_on(reason, true) && !goes_on(reason, false), "{reason}");
    }
    for reason in [Reason::Draining, Reason::PathDown, Reason::Overloaded, Reason::GatewayUnreachable] {
        assert!(goes_on(reason, true) && goes_on(reason, false), "{reason}");
    }
    for reason in [Reason::NoReadyEndpoint, Reason::UnknownService, Reason::NotExported, Reason::ConnectTimeout] {
        assert!(!goes_on(reason, true), "{reason} would be the same through any gateway");
    }
}

#[tokio::test]
async fn an_opening_that_dies_counts_no_longer_and_wakes_those_who_wait() {
    let sessions = Rc::new(LocalitySessions::default());
    let waiting = sessions.changed.notified();
    sessions.pool.borrow_mut().begin();
    let opening = SessionOpening::counted(Rc::clone(&sessions));
    assert!(sessions.pool.borrow().is_opening());
    let local = tokio::task::LocalSet::new();
    let task = local.spawn_local(async move {
        let _opening = opening;
        panic!("the task died");
    });
    assert!(local.run_until(task).await.is_err());
    timeout(Duration::from_secs(10), waiting).await.expect("woken");
    assert!(!sessions.pool.borrow().is_opening());
}

#[test]
fn localities_that_nobody_uses_are_forgotten() {
    let sessions = Sessions::new(1, 0);
    let locality = |service: &str| sessions.locality(&ServiceName::new("shop", service), &ZoneId::new("eu-west", "a"));
    let used = locality("used");
    for number in 0..100 {
        locality(&number.to_string());
    }
    assert_eq!(sessions.services.borrow().len(), 2, "the used one, and the last");
    assert!(Rc::ptr_eq(&used, &locality("used")));
}

#[test]
fn what_is_done_with_another_cluster_may_take_three_round_trips_longer() {
    let cluster = |name: &str| ClusterMeta {
        name: name.to_owned(),
        uid: String::new(),
        region: name.to_owned(),
        trust_domain: format!("{name}.mesh.internal"),
        zones: BTreeMap::new(),
    };
    let peer = |name, min_rtt| PeerView {
        cluster: cluster(name),
        trust_bundle: Vec::new(),
        path: PathState::Up,
        min_rtt,
        staleness: Staleness::Fresh,
    };
    let rtt = Duration::from_millis(280);
    let peers = vec![peer("ap-south", Some(rtt)), peer("eu-west", None)];
    let mesh = MeshView { cluster: cluster("us-east"), peers };
    let [far, not_measured, unknown] = ["ap-south", "eu-west", "sa-east"].map(|name| way_there(&mesh, name));
    assert_eq!((far, not_measured, unknown), (3 * rtt, Duration::ZERO, Duration::ZERO));
}
