use eastway_core::view::ZoneSummary;
use eastway_core::{Health, ZoneId};
use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn endpoint(id: u8, health: Health) -> Arc<EndpointView> {
    Arc::new(EndpointView {
        id: EndpointId::new(format!("e{id:03}")),
        zone: "a".into(),
        address: ([127, 0, 0, id], 80).into(),
        weight: 1.0,
        health,
        incarnation: 1,
        capacity: 0,
        labels: Default::default(),
        load: None,
    })
}

fn remote(zone: &str, ready: u32, returned_ago: Option<Duration>) -> RemoteZone {
    let summary = ZoneSummary { total: 9, ready, returned_ago, ..ZoneSummary::default() };
    RemoteZone { zone: ZoneId::new("eu-west", zone), accounts: Default::default(), summary }
}

fn view(endpoints: Vec<Arc<EndpointView>>, remote: Vec<RemoteZone>) -> ServiceView {
    let name = ServiceName::new("shop", "payments");
    ServiceView { name, spec: ServiceSpec::default(), endpoints, remote, returned: BTreeMap::new() }
}

#[test]
fn an_age_grows_with_its_holder() {
    let received = Timestamp::from_millis(10_000);
    let mut view = view(vec![], vec![remote("a", 1, Some(Duration::from_secs(2)))]);
    view.returned = BTreeMap::from([("b".into(), Duration::from_secs(5))]);
    let facts = ServiceFacts::from_view(view.clone(), received);
    assert_eq!(facts.at(received, MINUTE), view);

    let later = facts.at(received + Duration::from_secs(30), MINUTE);
    assert_eq!(later.remote[0].summary.returned_ago, Some(Duration::from_secs(32)));
    assert_eq!(later.returned["b"], Duration::from_secs(35));

    let much_later = facts.at(received + Duration::from_secs(100), MINUTE);
    assert_eq!((much_later.remote[0].summary.returned_ago, much_later.returned.len()), (None, 0));
}

#[test]
fn equal_states_have_no_difference() {
    let facts = ServiceFacts::from_view(view(vec![endpoint(1, Health::Ready)], vec![]), Timestamp::ZERO);
    assert_eq!(facts.delta_to(&facts.clone()), None);
}

#[test]
fn a_health_flip_sends_one_endpoint() {
    let old =
        ServiceFacts::from_view(view((0..50).map(|i| endpoint(i, Health::Ready)).collect(), vec![]), Timestamp::ZERO);
    let mut new = old.clone();
    new.endpoints[7] = endpoint(7, Health::Down);
    let delta = old.delta_to(&new).expect("differs");
    assert_eq!((delta.upsert.len(), delta.remove.len(), delta.remote), (1, 0, None));
}

fn facts() -> impl Strategy<Value = ServiceFacts> {
    let health = prop::sample::select(&Health::ALL[..]);
    let endpoints = prop::collection::btree_map(0u8..12, health, 0..8);
    let zones = prop::collection::btree_map(prop::sample::select(&["a", "b", "c"][..]), (0u32..3, any::<bool>()), 0..3);
    (endpoints, zones, prop::option::of(0u64..5)).prop_map(|(endpoints, zones, returned)| {
        let endpoints = endpoints.into_iter().map(|(id, health)| endpoint(id, health)).collect();
        let ago = |returned: bool| returned.then_some(Duration::from_secs(1));
        let zones = zones.into_iter().map(|(zone, (ready, returned))| remote(zone, ready, ago(returned))).collect();
        let mut view = view(endpoints, zones);
        view.returned = returned.map(|s| ("a".into(), Duration::from_secs(s))).into_iter().collect();
        ServiceFacts::from_view(view, Timestamp::from_millis(60_000))
    })
}

proptest! {
    #[test]
    fn applying_the_difference_leads_to_the_other_state(old in facts(), new in facts()) {
        let mut state = old.clone();
        match old.delta_to(&new) {
            Some(delta) => state.apply(delta),
            None => prop_assert_eq!(&old, &new),
        }
        prop_assert_eq!(state, new);
    }
}

#[test]
fn a_service_of_any_size_is_told_in_messages_of_bounded_size() {
    let large = |id: u8| {
        let labels = Arc::new([("note".to_owned(), "x".repeat(1_000))].into_iter().collect());
        Arc::new(EndpointView { labels, ..(*endpoint(id, Health::Ready)).clone() })
    };
    let whole = ServiceFacts::from_view(view((0..50).map(large).collect(), vec![]), Timestamp::ZERO);
    let mut told = whole.first_part(5_000).expect("too large for one");
    assert!(!told.endpoints.is_empty() && told.endpoints.len() < 6, "{}", told.endpoints.len());
    let mut messages = 1;
    while let Some(mut delta) = told.delta_to(&whole) {
        delta.cut(5_000);
        assert!(delta.upsert.len() < 6, "{}", delta.upsert.len());
        told.apply(delta);
        messages += 1;
    }
    assert_eq!((told == whole, messages), (true, 13));
    assert_eq!(whole.first_part(1 << 20), None);
    assert!(whole.first_part(1).is_some_and(|part| part.endpoints.len() == 1), "one that is too large goes alone");
}
