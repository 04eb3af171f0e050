use serde_json::{Value, json};

use super::*;
use crate::situation::{Loss, LossError, Question};

fn scenario(priorities: Value) -> Scenario {
    parse(json!({ "priorities": priorities }))
}

fn parse(value: Value) -> Scenario {
    serde_json::from_value(value).expect("a scenario")
}

fn locality(name: &str, hosts: u32, healthy: u32) -> Value {
    json!({ "name": name, "hosts": hosts, "healthy": healthy })
}

fn divided(scenario: &Scenario) -> Value {
    serde_json::to_value(scenario.situation().divide()).expect("JSON")
}

fn asked(scenario: &Scenario, loss: &str, load: f64) -> Value {
    let loss = loss.parse().expect("a loss");
    serde_json::to_value(scenario.situation().what_if(&[loss], load).expect("known")).expect("JSON")
}

/// The example of the format's description, to the letter.
#[test]
fn the_written_example() {
    let scenario = parse(json!({
        "mode": "native",
        "overprovisioning": 1.4,
        "panic_threshold": 50,
        "priorities": [
            { "localities": [{ "name": "us-east/a", "hosts": 10, "healthy": 7, "degraded": 0, "excluded": 0, "soft": 0,
                          "weight": 1, "capacity": 10, "utilisation": 0.5 }] },
            { "localities": [{ "name": "us-east/b", "hosts": 10, "healthy": 10 }] },
        ],
    }));
    assert_eq!(scenario.problems(), []);
    assert_eq!(
        serde_json::to_string(&scenario.situation().divide()).expect("JSON"),
        r#"{"normalized_total_availability":100,"priorities":[{"healthy_load":98,"degraded_load":0,"panic":false,"localities":[{"name":"us-east/a","share":98}]},{"healthy_load":2,"degraded_load":0,"panic":false,"localities":[{"name":"us-east/b","share":2}]}]}"#
    );
}

#[test]
fn what_is_left_out_has_its_default() {
    let scenario = scenario(json!([{ "localities": [locality("a", 4, 4)] }]));
    assert_eq!((scenario.mode, scenario.overprovisioning, scenario.panic_threshold), (Mode::Native, 1.4, 50.0));
    let situation = scenario.situation();
    let input = situation.priorities[0][0].counted.input;
    assert_eq!((input.weight, input.capacity, input.utilisation, input.soft), (1.0, 4.0, None, 0.0));
}

#[test]
fn two_decimals_in_the_native_mode_and_whole_numbers_in_the_compatible_one() {
    let priorities = json!([{ "localities": [locality("a", 3, 1)] }, { "localities": [locality("b", 3, 1)] }, { "localities": [locality("c", 3, 1)] }]);
    let native = scenario(priorities.clone());
    assert_eq!(divided(&native)["priorities"][0]["localities"][0]["share"], json!(46.67));
    let compatible = parse(json!({ "mode": "envoy", "priorities": priorities }));
    let shares: Vec<Value> =
        (0..3).map(|t| divided(&compatible)["priorities"][t]["localities"][0]["share"].clone()).collect();
    assert_eq!(shares, [json!(46), json!(46), json!(8)]);
}

#[test]
fn hosts_of_a_priorities_localities_are_summed_in_the_compatible_mode() {
    let priorities = json!([
        { "localities": [locality("a", 2, 2), locality("b", 2, 0)] },
        { "localities": [locality("c", 3, 2), locality("d", 1, 0)] },
    ]);
    let answer = divided(&parse(json!({ "mode": "envoy", "priorities": priorities })));
    assert_eq!(answer["priorities"][0]["healthy_load"], json!(70));
    assert_eq!(answer["priorities"][0]["localities"][0]["share"], json!(70));
    assert_eq!(answer["priorities"][0]["localities"][1]["share"], json!(0));
    assert_eq!(answer["priorities"][1]["healthy_load"], json!(30));
}

#[test]
fn a_panic_of_the_native_mode_uses_soft_marked_hosts_and_the_excluded_count_nowhere() {
    let soft = json!({ "name": "a", "hosts": 10, "healthy": 1, "soft": 9 });
    let answer = divided(&scenario(json!([{ "localities": [soft] }])));
    assert_eq!(
        (&answer["priorities"][0]["panic"], &answer["normalized_total_availability"]),
        (&json!(true), &json!(14))
    );
    assert_eq!(answer["priorities"][0]["localities"][0]["share"], json!(100));
    let warming = json!({ "name": "a", "hosts": 10, "healthy": 2, "excluded": 8 });
    assert_eq!(divided(&scenario(json!([{ "localities": [warming] }])))["normalized_total_availability"], json!(100));
}

#[test]
fn its_parameters_are_those_of_the_formulas() {
    let ejected = json!({ "name": "a", "hosts": 10, "healthy": 3, "soft": 7 });
    let priorities = json!([{ "localities": [ejected] }, { "localities": [locality("b", 10, 3)] }]);
    let first = |name: &str, value: f64| {
        let answer = divided(&parse(json!({ name: value, "priorities": priorities })));
        (answer["priorities"][0]["panic"].clone(), answer["priorities"][0]["healthy_load"].clone())
    };
    assert_eq!(first("panic_threshold", 31.0), (json!(true), json!(100)));
    assert_eq!(first("panic_threshold", 30.0), (json!(false), json!(50)));
    assert_eq!(first("overprovisioning", 2.0), (json!(false), json!(60)));
}

#[test]
fn no_hosts_at_all_is_a_valid_question() {
    let answer =
        divided(&scenario(json!([{ "localities": [locality("a", 0, 0)] }, { "localities": [locality("b", 2, 2)] }])));
    assert_eq!(answer["priorities"][1]["localities"][0]["share"], json!(100));
    let nothing = divided(&scenario(json!([{ "localities": [locality("a", 0, 0)] }])));
    assert_eq!(
        (&nothing["normalized_total_availability"], &nothing["priorities"][0]["healthy_load"]),
        (&json!(0), &json!(0))
    );
    let envoys = divided(&parse(json!({ "mode": "envoy", "priorities": [{ "localities": [locality("a", 0, 0)] }] })));
    assert_eq!(envoys["priorities"][0]["healthy_load"], json!(100));
    assert_eq!(
        envoys["priorities"][0]["localities"][0]["share"],
        json!(0),
        "the load of a level where nobody is reaches nobody"
    );
}

#[test]
fn what_if_tells_the_utilisation_of_what_is_left_and_warns_where_it_lacks() {
    let priorities = json!([
        { "localities": [{ "name": "us-east/a", "hosts": 10, "healthy": 10, "capacity": 100, "utilisation": 0.6 }] },
        { "localities": [{ "name": "us-east/b", "hosts": 10, "healthy": 5, "capacity": 100, "utilisation": 0.2 }] },
        { "localities": [{ "name": "eu-west/a", "hosts": 4, "healthy": 4, "capacity": 400, "utilisation": 0.1 }] },
    ]);
    let scenario = scenario(priorities);
    // 60 + 20 + 40 requests at once; b keeps 70 % of the traffic with half of its 100 places.
    let answer = asked(&scenario, "locality=us-east/a", 1.0);
    assert_eq!(
        answer["priorities"][0]["localities"][0],
        json!({ "name": "us-east/a", "share": 0, "utilisation": null })
    );
    assert_eq!(
        answer["priorities"][1]["localities"][0],
        json!({ "name": "us-east/b", "share": 70, "utilisation": 1.68 })
    );
    assert_eq!(
        answer["priorities"][2]["localities"][0],
        json!({ "name": "eu-west/a", "share": 30, "utilisation": 0.09 })
    );
    let warnings = answer["warnings"].as_array().expect("a list");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].as_str().expect("text").contains("us-east/b lacks capacity"), "{warnings:?}");
    // At a third of the traffic there is room.
    let answer = asked(&scenario, "zone=us-east/a", 0.33);
    assert_eq!(answer["warnings"], json!([]));
    assert_eq!(answer["priorities"][1]["localities"][0]["utilisation"], json!(0.5544));
}

#[test]
fn an_unknown_utilisation_stays_unknown_and_availability_is_what_can_be_said() {
    let priorities = json!([{ "localities": [locality("us-east/a", 10, 10), locality("us-east/b", 10, 10)] }]);
    let scenario = scenario(priorities);
    let answer = asked(&scenario, "locality=us-east/a", 1.3);
    assert_eq!(
        answer["priorities"][0]["localities"][1],
        json!({ "name": "us-east/b", "share": 100, "utilisation": null })
    );
    assert!(answer["warnings"][0].as_str().expect("a warning").contains("70 %"), "{answer}");
    assert_eq!(
        answer["warnings"][1],
        json!("cannot tell whether us-east/b can take it: utilisation of us-east/a, us-east/b is unknown")
    );
    let nothing = asked(&scenario, "cluster=us-east", 1.0);
    assert!(nothing["warnings"][0].as_str().expect("a warning").contains("nothing is left"), "{nothing}");
}

/// In a panic soft hosts take all of the traffic, though nothing counts as available.
#[test]
fn something_is_left_where_soft_hosts_are() {
    for mode in ["native", "envoy"] {
        let soft = json!({ "name": "us-east/b", "hosts": 10, "healthy": 0, "soft": 10 });
        let priorities = json!([{ "localities": [locality("us-east/a", 10, 10)] }, { "localities": [soft] }]);
        let scenario = parse(json!({ "mode": mode, "priorities": priorities }));
        let answer = asked(&scenario, "locality=us-east/a", 1.0);
        assert_eq!(answer["normalized_total_availability"], json!(0));
        assert!(!answer["warnings"].to_string().contains("nothing is left"), "{mode}: {answer}");
        let answer = asked(&scenario, "cluster=us-east", 1.0);
        let warning = json!(["nothing is left that can serve: every request would fail"]);
        assert_eq!(answer["warnings"], warning, "{mode}");
    }
}

#[test]
fn one_locality_that_does_not_say_how_busy_it_is_leaves_the_answer_open() {
    let known = |name: &str| json!({ "name": name, "hosts": 4, "healthy": 4, "utilisation": 0.3 });
    let scenario = scenario(
        json!([{ "localities": [known("us-east/a")] }, { "localities": [known("us-east/b"), locality("c", 4, 4)] }]),
    );
    let answer = asked(&scenario, "locality=us-east/a", 1.0);
    let warning = json!(["cannot tell whether us-east/b, c can take it: utilisation of c is unknown"]);
    assert_eq!(answer["warnings"], warning);
    let situation = scenario.situation();
    let warnings = |load| situation.what_if(&[], load).expect("an answer").warnings.expect("a list");
    assert_eq!(warnings(1.0), [""; 0], "as it is now");
    assert_eq!(warnings(2.0), ["cannot tell whether us-east/a can take it: utilisation of c is unknown"]);
}

/// Every level panics, and load follows the number of hosts; but what is lost can be picked by nobody.
#[test]
fn what_is_lost_gets_nothing_though_every_level_panics() {
    let priorities = json!([{ "localities": [locality("a", 10, 10)] }, { "localities": [locality("b", 10, 4)] }]);
    let answer = asked(&parse(json!({ "mode": "envoy", "priorities": priorities })), "locality=a", 1.0);
    assert_eq!((&answer["priorities"][0]["panic"], &answer["priorities"][1]["panic"]), (&json!(true), &json!(true)));
    assert_eq!(
        (&answer["priorities"][0]["healthy_load"], &answer["priorities"][1]["healthy_load"]),
        (&json!(50), &json!(50))
    );
    let shares = [0, 1].map(|priority| answer["priorities"][priority]["localities"][0]["share"].clone());
    assert_eq!(shares, [json!(0), json!(100)]);
}

#[test]
fn what_a_file_calls_unhealthy_is_picked_in_the_panic_of_the_compatible_mode() {
    let priorities =
        json!([{ "localities": [locality("a", 5, 0)] }, { "localities": [locality("b", 3, 0), locality("c", 2, 0)] }]);
    let shares = |threshold: u32| {
        let scenario = parse(json!({ "mode": "envoy", "panic_threshold": threshold, "priorities": priorities }));
        let answer = divided(&scenario);
        [(0, 0), (1, 0), (1, 1)]
            .map(|(priority, locality)| answer["priorities"][priority]["localities"][locality]["share"].clone())
    };
    assert_eq!(shares(50), [json!(50), json!(30), json!(20)]);
    assert_eq!(shares(0), [json!(100), json!(0), json!(0)], "without a panic the first level gets all");
}

#[test]
fn percents_are_as_short_as_they_can_be() {
    let told = [0, 100, 8_750, 8_705, 8_755].map(|share| crate::situation::Percent(share).to_string());
    assert_eq!(told, ["0", "1", "87.5", "87.05", "87.55"]);
}

#[test]
fn a_loss_must_be_of_something() {
    let situation = scenario(json!([{ "localities": [locality("us-east/a", 1, 1)] }])).situation();
    let error = situation.what_if(&[Loss::Locality("us-east/z".to_owned())], 1.0).expect_err("unknown");
    assert_eq!(error.to_string(), "nothing is lost by locality=us-east/z: there are us-east/a");
    let error = situation.what_if(&[Loss::Region("us-east".to_owned())], 1.0).expect_err("no regions");
    assert!(error.to_string().contains("a scenario says of no locality in which region it is"), "{error}");
    for text in ["us-east/a", "locality=", "pod=x"] {
        assert_eq!(text.parse::<Loss>(), Err(LossError::Malformed(text.to_owned())));
    }
    let parameters = [("from", "x/y"), ("lose", "zone=us-east/a"), ("lose", "region=eu"), ("load", "1.3")];
    let question = Question::from_parameters(parameters).expect("a question");
    assert_eq!((question.losses.len(), question.load), (2, 1.3));
    for load in ["-1", "lots", "inf"] {
        assert_eq!(Question::from_parameters([("load", load)]), Err(LossError::Load(load.to_owned())));
    }
    let region = Loss::Region("eu".to_owned());
    assert_eq!(region.to_string().parse(), Ok(region));
}

#[test]
fn parts_that_exceed_the_whole_and_names_used_twice_are_problems() {
    let bad = json!({ "name": "a", "hosts": 2, "healthy": 2, "soft": 1 });
    let found = scenario(json!([{ "localities": [bad, locality("b", 1, 1)] }, { "localities": [locality("b", 1, 1), locality("", 1, 1)] }]))
        .problems();
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        ["priorities[0].localities[0].hosts", "priorities[1].localities[0].name", "priorities[1].localities[1].name"]
    );
    for unknown in
        [json!({ "priorities": [], "mod": "native" }), json!({ "priorities": [{ "localities": [], "weight": 1 }] })]
    {
        assert!(serde_json::from_value::<Scenario>(unknown).is_err());
    }
}

fn with(name: &str, more: Value) -> Value {
    let mut locality = locality(name, 10, 10);
    locality.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    locality
}

fn priorities(localities: &[Value]) -> Value {
    localities.iter().map(|locality| json!({ "localities": [locality] })).collect()
}

#[test]
fn the_compatible_mode_tells_degraded_loads_and_what_is_available() {
    let mut scenario = scenario(priorities(&[
        json!({ "name": "a", "hosts": 5, "healthy": 0, "degraded": 1 }),
        json!({ "name": "b", "hosts": 5, "healthy": 0, "degraded": 5 }),
        json!({ "name": "c", "hosts": 5, "healthy": 1 }),
    ]));
    scenario.mode = Mode::Envoy;
    let answer = divided(&scenario);
    assert_eq!(answer["normalized_total_availability"], 100);
    let loads: Vec<_> =
        (0..3).map(|i| (&answer["priorities"][i]["healthy_load"], &answer["priorities"][i]["degraded_load"])).collect();
    assert_eq!(json!(loads), json!([[0, 28], [0, 44], [28, 0]]));
    let mut scenario =
        parse(json!({ "mode": "envoy", "panic_threshold": 0, "priorities": priorities(&[locality("a", 10, 2)]) }));
    assert_eq!(divided(&scenario)["normalized_total_availability"], 28);
    scenario.mode = Mode::Native;
    assert_eq!(divided(&scenario)["normalized_total_availability"], 28);
}

#[test]
fn a_warning_begins_beyond_the_capacity() {
    let half = json!({ "capacity": 10, "utilisation": 0.5 });
    let scenario = scenario(priorities(&[with("us/a", half.clone()), with("us/b", half)]));
    let answer = asked(&scenario, "locality=us/a", 1.0);
    assert_eq!(
        (&answer["priorities"][1]["localities"][0]["utilisation"], &answer["warnings"]),
        (&json!(1.0), &json!([]))
    );
    let answer = asked(&scenario, "locality=us/a", 2.0);
    let warning = answer["warnings"][0].as_str().expect("a warning");
    assert!(warning.starts_with("us/b lacks capacity") && warning.contains(" 200 % "), "{warning}");
}

#[test]
fn what_is_lost_has_no_part_left_whatever_it_was() {
    let worn = json!({ "healthy": 5, "degraded": 5, "utilisation": 0.1 });
    for mode in [Mode::Envoy, Mode::Native] {
        let mut scenario = scenario(priorities(&[with("us/a", worn.clone()), with("us/b", worn.clone())]));
        scenario.mode = mode;
        let answer = asked(&scenario, "locality=us/a", 1.0);
        assert_eq!(answer["priorities"][0]["localities"][0]["share"], json!(0), "{mode:?}");
        // Two tenths of ten, over all ten: what is degraded serves.
        assert_eq!(answer["priorities"][1]["localities"][0]["utilisation"], json!(0.2), "{mode:?}");
    }
    // How busy it was holds nothing of its priority back.
    let busy = with("us/a", json!({ "utilisation": 2.0 }));
    let idle = with("us/b", json!({ "utilisation": 0.1 }));
    let scenario = scenario(
        json!([{ "localities": [busy, idle] }, { "localities": [with("eu/a", json!({ "utilisation": 0.1 }))] }]),
    );
    let answer = asked(&scenario, "locality=us/a", 0.1);
    assert_eq!(answer["priorities"][0]["localities"][1]["share"], json!(70));
}

#[test]
fn degraded_hosts_are_something_that_is_left() {
    let degraded = json!({ "healthy": 0, "degraded": 10, "utilisation": 0.1 });
    let scenario = scenario(priorities(&[with("us/a", json!({ "utilisation": 0.1 })), with("us/b", degraded)]));
    assert_eq!(asked(&scenario, "locality=us/a", 1.0)["warnings"], json!([]));
}

#[test]
fn localities_without_hosts_or_without_load_add_nothing_to_the_load() {
    let empty = json!({ "name": "us/none", "hosts": 0, "healthy": 0 });
    let idle = with("us/idle", json!({ "utilisation": 0.0 }));
    let busy = with("us/busy", json!({ "utilisation": 0.5 }));
    let scenario = scenario(priorities(&[empty, busy, idle]));
    assert_eq!(scenario.situation().loaded(), ["us/busy"]);
    let answer = asked(&scenario, "locality=us/busy", 1.0);
    assert_eq!(answer["priorities"][2]["localities"][0]["utilisation"], json!(0.5));
}
