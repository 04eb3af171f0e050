//! What is decided about sessions without a connection.

use super::*;

#[test]
fn another_gateway_is_asked_if_the_tunnel_of_the_first_failed_and_the_same_one_only_if_it_was_quick() {
    for reason in [Reason::StreamOpenTimeout, Reason::TunnelLost, Reason::GatewayUnreachable] {
        assert!(goes_on(reason, true) && !goes_on(reason, false), "{reason}");
    }
    for reason in [Reason::Draining, Reason::PathDown, Reason::Overloaded] {
        assert!(goes_on(reason, true) && goes_on(reason, false), "{reason}");
    }
    for reason in [Reason::NoReadyEndpoint, Reason::UnknownService, Reason::NotExported, Reason::ConnectTimeout] {
        assert!(!goes_on(reason, true), "{reason} would be the same through any gateway");
    }
}

#[test]
fn who_replaces_a_session_avoids_the_endpoints_of_those_that_stay_and_no_other() {
    let open = ["a", "b"].map(EndpointId::new);
    let avoided = |old| avoided(open.iter(), old);
    assert_eq!(avoided(Some(0)), [EndpointId::new("b")], "of two endpoints, a alone is distinct from b");
    assert_eq!(avoided(Some(1)), [EndpointId::new("a")]);
    assert_eq!(avoided(None), open, "one that is added leads to a third");
}
