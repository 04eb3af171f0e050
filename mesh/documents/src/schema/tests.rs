use std::collections::BTreeMap;

use eastway_core::resource::Resource;
use serde::{Deserialize, Serialize};

use super::*;
use crate::yaml;
use eastway_core::text::{AddressText, DurationText};

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Sample {
    listen_on: Option<AddressText>,
    limit: DurationText,
    #[schemars(range(min = 1, max = 9))]
    count: Option<u8>,
    #[schemars(length(min = 1, max = 2))]
    names: Option<Vec<String>>,
    on: bool,
    zones: BTreeMap<String, Zone>,
    store: Option<Store>,
    #[schemars(extend("x-formerly" = "manner"))]
    mode: Mode,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Zone {
    /// Degrees north. Not south.
    latitude: f64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Store {
    Embedded(Path),
    Etcd(Path),
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Path {
    path: String,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Auto,
    /// With words.
    #[schemars(extend("x-formerly" = "http"))]
    Http1,
}

/// The faults, as `LINE PATH: MESSAGE`.
fn faults<T: JsonSchema>(text: &str) -> Vec<String> {
    let parsed = yaml::parse(text);
    assert_eq!(parsed.faults, [], "{text}");
    let found = check(&of::<T>(), &parsed.documents[0]);
    found.into_iter().map(|fault| format!("{} {}: {}", fault.line, fault.path, fault.message)).collect()
}

#[test]
fn what_fits_has_no_faults() {
    let text = "listenOn: 1.2.3.4:5\nlimit: 1s\ncount: 3\nnames: [a]\non: true\nzones: {a: {latitude: 1}}\nstore: {etcd: {path: p}}\nmode: http1\n";
    assert_eq!(faults::<Sample>(text), [""; 0]);
    assert_eq!(faults::<Sample>("listenOn:\nstore: ~\n"), [""; 0]);
}

#[test]
fn all_unknown_keys_at_once_with_what_was_meant() {
    let found =
        faults::<Sample>("listen_on: a\nlimits: 1s\nzones:\n  a:\n    latitude: 1\n    longitud: 2\nwhatever: 1\n");
    assert_eq!(
        found,
        [
            "1 listen_on: unknown key `listen_on`; did you mean `listenOn`?",
            "2 limits: unknown key `limits`; did you mean `limit`?",
            "6 zones.a.longitud: unknown key `longitud`; known: latitude",
            "7 whatever: unknown key `whatever`; known: count, limit, listenOn, mode, names, on, store, zones",
        ]
    );
}

#[test]
fn wrong_types_say_what_is_expected_and_what_was_found() {
    let found = faults::<Sample>("listenOn: 5\nlimit: 30\ncount: 1.5\nnames: a\non: 1\nzones: [1]\n");
    assert_eq!(
        found,
        [
            "1 listenOn: expected an address such as 127.0.0.1:8080 or [::1]:8080, found the number 5",
            "2 limit: expected a duration such as 250ms, 30s or 5m, found the number 30",
            "3 count: expected a whole number, found the number 1.5",
            "4 names: expected a list, found the text `a`",
            "5 on: expected true or false, found the number 1",
            "6 zones: expected a mapping, found a list",
        ]
    );
    assert_eq!(faults::<Sample>("names: [1]"), ["1 names[0]: expected a text, found the number 1; put it in quotes"]);
    assert_eq!(faults::<Sample>("zones:"), ["1 zones: expected a mapping, found nothing"]);
    assert_eq!(faults::<Sample>("- a"), ["1 : expected a mapping, found a list"]);
}

#[test]
fn ranges_lengths_and_missing_keys() {
    let found = faults::<Sample>("count: 10\nnames: []\nzones:\n  a: {}\n");
    assert_eq!(
        found,
        [
            "1 count: 10 is out of range: from 1 to 9",
            "2 names: at least 1 expected, found 0",
            "4 zones.a.latitude: missing: Degrees north",
        ]
    );
    assert_eq!(faults::<Sample>("names: [a, b, c]"), ["1 names: at most 2 expected, found 3"]);
}

#[test]
fn former_names_are_read_where_present_ones_are_missing() {
    let renamed = |text: &str| {
        let mut document = yaml::parse(text).documents.remove(0);
        rename_former(&of::<BTreeMap<String, Sample>>(), &mut document);
        document
    };
    assert_eq!(renamed("a: { manner: http }\nb: { on: true }\n"), renamed("a: { mode: http1 }\nb: { on: true }\n"));
    assert_eq!(renamed("a: { manner: auto }\n"), renamed("a: { mode: auto }\n"));
    let both = renamed("a: { manner: http, mode: auto }\n");
    let found = check(&of::<BTreeMap<String, Sample>>(), &both);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].message.contains("unknown key `manner`"), "{found:?}");
}

#[test]
fn choices_by_key() {
    for (text, expected) in [
        ("store: {}", "1 store: expected exactly one of `embedded`, `etcd`"),
        ("store: {embedded: {path: a}, etcd: {path: a}}", "1 store: expected exactly one of `embedded`, `etcd`"),
        ("store: {embeded: {path: a}}", "1 store.embeded: unknown key `embeded`; did you mean `embedded`?"),
        ("store: etcd", "1 store: expected a mapping with one of `embedded`, `etcd`, found the text `etcd`"),
        ("store: {etcd: {}}", "1 store.etcd.path: missing"),
        ("mode: htpt1", "1 mode: unknown value `htpt1`; did you mean `http1`?"),
        ("mode: x", "1 mode: unknown value `x`; known: auto, http1"),
        ("mode: 1", "1 mode: expected one of `auto`, `http1`, found the number 1"),
    ] {
        assert_eq!(faults::<Sample>(text), [expected], "{text}");
    }
}

#[test]
fn choices_by_tag() {
    let document =
        |kind: &str, spec: &str| format!("apiVersion: eastway.dev/v1\n{kind}\nmetadata: {{ name: a }}\nspec: {spec}\n");
    assert_eq!(faults::<Resource>(&document("kind: Service", "{}")), [""; 0]);
    assert_eq!(
        faults::<Resource>(&document("kind: Service", "{ exprot: ['*'] }")),
        ["4 spec.exprot: unknown key `exprot`; did you mean `export`?"]
    );
    assert_eq!(
        faults::<Resource>(&document("kind: Servise", "{}")),
        ["2 kind: unknown kind `Servise`; did you mean `Service`?"]
    );
    assert_eq!(
        faults::<Resource>(&document("# no kind", "{}")),
        ["1 kind: missing: one of `AccessPolicy`, `Drill`, `Mesh`, `Peer`, `Route`, `Service`, `Shift`"]
    );
    assert_eq!(faults::<Resource>("- a"), ["1 : expected a mapping, found a list"]);
}

/// A validator that others wrote says the same of each document, and serde takes what passes.
#[test]
fn other_validators_and_serde_agree() {
    let sample = jsonschema::validator_for(&of::<Sample>()).expect("a schema");
    let resource = jsonschema::validator_for(&of::<Resource>()).expect("a schema");
    let service = "apiVersion: eastway.dev/v1\nmetadata: {name: a}\n";
    let peer = "kind: Peer\nspec: {gateways: ['a:1'], trustBundle: b}\n";
    for text in [
        "count: 3",
        "count: 12",
        "count: x",
        "lmit: 1s",
        "zones: {a: {latitude: 1.5}}",
        "zones: {a: {}}",
        "store: {etcd: {path: a}}",
        "store: {}",
        "store: {etcd: {path: a}, embedded: {path: a}}",
        "mode: http1",
        "mode: no",
        "names: [a, b, c]",
    ] {
        let value = yaml::parse(text).documents[0].to_json();
        let passes = faults::<Sample>(text).is_empty();
        assert_eq!(passes, sample.is_valid(&value), "{text}");
        if passes {
            serde_json::from_value::<Sample>(value).expect(text);
        }
    }
    for rest in
        ["kind: Service\nspec: {}\n", "kind: Service\nspec: {x: 1}\n", "kind: X\nspec: {}\n", "spec: {}\n", peer]
    {
        let text = format!("{service}{rest}");
        let value = yaml::parse(&text).documents[0].to_json();
        let passes = faults::<Resource>(&text).is_empty();
        assert_eq!(passes, resource.is_valid(&value), "{text}");
        if passes {
            serde_json::from_value::<Resource>(value).expect(&text);
        }
    }
}

#[test]
fn what_a_later_release_adds_is_taken_out_and_the_rest_stays() {
    let later = serde_json::json!({
        "kind": "Service", "apiVersion": "eastway.dev/v1", "owner": "later",
        "metadata": { "name": "pay", "namespace": "shop", "labels": { "a": "b" } },
        "spec": {
            "ports": [{ "port": 80, "tls": true }],
            "localityWeights": { "us-east/a": 2.0 },
            "breaker": { "endpoint": { "trigger": "consecutive", "failures": 5, "since": "later" } },
            "mirrors": ["shop/pay-v2"],
        },
    });
    let mut pruned = later;
    prune(&of::<Resource>(), &mut pruned);
    let present = serde_json::json!({
        "kind": "Service", "apiVersion": "eastway.dev/v1",
        "metadata": { "name": "pay", "namespace": "shop" },
        "spec": {
            "ports": [{ "port": 80 }],
            "localityWeights": { "us-east/a": 2.0 },
            "breaker": { "endpoint": { "trigger": "consecutive", "failures": 5 } },
        },
    });
    assert_eq!(pruned, present);
    assert!(serde_json::from_value::<Resource>(pruned).is_ok());
}
