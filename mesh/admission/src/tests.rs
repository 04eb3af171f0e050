use eastway_core::resource::{Mesh, Protocol};

use super::*;

/// What passes for a bundle: nothing is verified with it.
const CA: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

/// A folder with files, and a bundle that peers may name.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    fs::write(folder.path().join("ca.crt"), CA).expect("written");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

const SERVICE: &str = "apiVersion: eastway.dev/v1\nkind: Service\nmetadata: { name: payments, namespace: shop }\nspec:\n  export: ['*']\n";
const PEER: &str = "apiVersion: eastway.dev/v1\nkind: Peer\nmetadata: { name: eu-west }\nspec:\n  gateways: [\"gw.eu-west.example:15443\"]\n  trustBundle: ca.crt\n  imports: [shop/*]\n";

fn shown(folder: &tempfile::TempDir) -> Vec<String> {
    let problems = load(&[folder.path().to_owned()]).expect_err("invalid");
    let prefix = format!("{}/", folder.path().display());
    problems.to_string().lines().map(|line| line.replace(&prefix, "")).collect()
}

#[test]
fn files_and_folders_in_order_with_several_documents() {
    let folder = folder(&[
        ("b.yaml", &format!("{SERVICE}---\n{PEER}")),
        ("a.yml", &SERVICE.replace("payments", "cart")),
        (".hidden.yaml", "not: a resource\n"),
        ("notes.txt", "not YAML: ["),
    ]);
    let loaded = load(&[folder.path().to_owned()]).expect("valid");
    let places: Vec<_> =
        loaded.iter().map(|r| (r.source.file().file_name().expect("a name").to_owned(), r.source.line(""))).collect();
    assert_eq!(places, [("a.yml".into(), 1), ("b.yaml".into(), 1), ("b.yaml".into(), 7)]);
    let Resource::Peer(peer) = &loaded[2].resource else { panic!("a peer") };
    assert_eq!(peer.spec.trust_bundle, CA);
    // A path to a file reads that file alone; nothing to read is no mistake.
    assert_eq!(load(&[folder.path().join("a.yml")]).expect("valid").len(), 1);
    assert_eq!(load(&[]).expect("valid"), []);
}

#[test]
fn names_are_declared_once_over_all_files() {
    let folder =
        folder(&[("a.yaml", SERVICE), ("b.yaml", &format!("{}---\n{SERVICE}", SERVICE.replace("shop", "bank")))]);
    let found = shown(&folder);
    assert_eq!(found, ["b.yaml:7: metadata.name: Service shop/payments is declared twice: first at a.yaml:1"]);
}

#[test]
fn problems_of_all_documents_and_files_at_once() {
    let folder = folder(&[
        (
            "a.yaml",
            "apiVersion: eastway.dev/v2\nkind: Service\nmetadata: { name: Pay, namespace: shop }\nspec: {}\n---\nkind: Servce\n",
        ),
        (
            "b.yaml",
            "kind: Peer\napiVersion: eastway.dev/v1\nmetadata: { name: eu }\nspec: { gateways: [], trustBundle: none.crt, import: [] }\n",
        ),
        ("c.yaml", "a: [\n"),
    ]);
    let found = shown(&folder);
    for (index, part) in [
        "a.yaml:1: apiVersion: unknown version `eastway.dev/v2`; this program knows `eastway.dev/v1`",
        "a.yaml:3: metadata.name: `Pay` is not a name",
        "a.yaml:6: kind: unknown kind `Servce`; did you mean `Service`?",
        "b.yaml:4: spec.import: unknown key `import`; did you mean `imports`?",
        "c.yaml:",
    ]
    .iter()
    .enumerate()
    {
        assert!(found[index].starts_with(part), "{part}\n--\n{found:#?}");
    }
}

#[test]
fn what_peers_must_not_say() {
    let folder = folder(&[(
        "a.yaml",
        "apiVersion: eastway.dev/v1\nkind: Peer\nmetadata: { name: eu-west, namespace: shop }\nspec:\n  gateways:\n    - 10.0.0.1\n    - gw:1\n    - gw:1\n  trustDomain: UPPER\n  trustBundle: none.crt\n  imports: [shop, '*/x', 'shop/*', 'shop/*']\n",
    )]);
    let found = shown(&folder);
    for part in [
        ":3: metadata.namespace: a Peer is in no namespace",
        ":6: spec.gateways[0]: `10.0.0.1` is not HOST:PORT",
        ":8: spec.gateways[2]: `gw:1` is listed twice",
        ":9: spec.trustDomain: `UPPER` is not a trust domain",
        ":10: spec.trustBundle: `none.crt` cannot be read",
        ":11: spec.imports[0]: `shop` is not",
        ":11: spec.imports[1]: `*/x` is not",
        ":11: spec.imports[3]: `shop/*` is listed twice",
    ] {
        assert!(found.iter().any(|line| line.contains(part)), "{part}\n--\n{found:#?}");
    }
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn what_services_must_not_say() {
    let folder = folder(&[(
        "a.yaml",
        "apiVersion: eastway.dev/v1\nkind: Service\nmetadata: { name: a, namespace: b }\nspec:\n  ports: [{ port: 80 }, { port: 80 }, { port: 0 }]\n  accounts: [Bad]\n  export: [eu_west, a, a]\n  failover: [x, x]\n  localityWeights:\n    us-east: 1\n    us-east/a: -1\n",
    )]);
    let found = shown(&folder);
    for part in [
        ":5: spec.ports[1].port: port 80 is listed twice",
        ":5: spec.ports[2].port: 0 is no port",
        ":6: spec.accounts[0]: `Bad` is not a name",
        ":7: spec.export[0]: `eu_west` is not a name",
        ":7: spec.export[2]: `a` is listed twice",
        ":8: spec.failover[1]: `x` is listed twice",
        ":10: spec.localityWeights.us-east: `us-east` is not CLUSTER/ZONE",
        ":11: spec.localityWeights[\"us-east/a\"]: -1 is not a weight",
    ] {
        assert!(found.iter().any(|line| line.contains(part)), "{part}\n--\n{found:#?}");
    }
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn what_is_said_of_calls_must_make_sense_and_have_an_effect() {
    let folder = folder(&[(
        "a.yaml",
        "apiVersion: eastway.dev/v1\nkind: Service\nmetadata: { name: a, namespace: b }\nspec:\n  balancing:\n    mode: envoy\n    algorithm: random\n    ramp: 10 parsecs\n    latencyVeto: 3\n    residency: [eu, eu, E U]\n  localityWeights: { us-east/a: 2 }\n  breaker:\n    endpoint: { trigger: latency, quantile: 0.9, limit: 0s, window: 1h, minRequests: 20 }\n    baseEjection: 10s\n    maxEjection: 5s\n  retries: { attempts: 1, backoff: 2m, perTry: 2h }\n  timeouts: { request: 2d }\n",
    )]);
    let found = shown(&folder);
    for part in [
        ":8: spec.balancing.ramp: `10 parsecs` is not a duration",
        ":9: spec.balancing.latencyVeto: it has no effect",
        ":10: spec.balancing.residency[1]: `eu` is listed twice",
        ":10: spec.balancing.residency[2]: `E U` is not a name",
        ":11: spec.localityWeights: it has no effect",
        ":13: spec.breaker.endpoint.limit: `0s` is out of range: from 1ms to 10m",
        ":13: spec.breaker.endpoint.window: `1h` is out of range: from 100ms to 10m",
        ":15: spec.breaker.maxEjection: it is shorter",
        ":16: spec.retries.backoff: `2m` is out of range",
        ":16: spec.retries.perTry: `2h` is out of range",
        ":17: spec.timeouts.request: `2d` is out of range",
    ] {
        assert!(found.iter().any(|line| line.contains(part)), "{part}\n--\n{found:#?}");
    }
    assert_eq!(found.len(), 11, "{found:#?}");
}

#[test]
fn a_trigger_takes_only_what_belongs_to_it() {
    let folder = folder(&[(
        "a.yaml",
        "apiVersion: eastway.dev/v1\nkind: Service\nmetadata: { name: a, namespace: b }\nspec:\n  breaker:\n    endpoint: { trigger: consecutive, failures: 5, window: 10s }\n    locality: { trigger: cussum }\n  balancing: { overprovisioning: 0.5, algoritm: random }\n",
    )]);
    let found = shown(&folder);
    for part in [
        ":6: spec.breaker.endpoint.window: unknown key `window`",
        ":7: spec.breaker.locality.trigger: unknown trigger `cussum`; did you mean `cusum`?",
        ":8: spec.balancing.overprovisioning: 0.5 is out of range: from 1 to 10",
        ":8: spec.balancing.algoritm: unknown key `algoritm`; did you mean `algorithm`?",
    ] {
        assert!(found.iter().any(|line| line.contains(part)), "{part}\n--\n{found:#?}");
    }
    assert_eq!(found.len(), 4, "{found:#?}");
}

#[test]
fn what_is_said_of_calls_is_read() {
    let folder = folder(&[(
        "a.yaml",
        &SERVICE.replace(
            "  export: ['*']\n",
            "  balancing: { algorithm: leastRequest, residency: [eu-west-1] }\n  breaker: { locality: { trigger: errorRate, ratio: 0.5, window: 10s, minRequests: 100 } }\n  limits: { maxConnections: 8 }\n  retries: { attempts: 3, perTry: 500ms }\n",
        ),
    )]);
    let loaded = load(&[folder.path().to_owned()]).expect("valid");
    let Resource::Service(service) = &loaded[0].resource else { panic!("a service") };
    let policy = service.spec.policy(&Mesh::default());
    assert_eq!(policy.balancing.algorithm, Some(eastway_core::policy::Algorithm::LeastRequest));
    assert_eq!(policy.balancing.residency.as_deref(), Some(&["eu-west-1".to_owned()][..]));
    assert_eq!(
        (policy.retries.attempts, policy.retries.per_try),
        (Some(3), Some(std::time::Duration::from_millis(500)))
    );
    assert_eq!(policy.limits.max_connections, Some(8));
    assert!(matches!(
        policy.breaker.locality,
        Some(eastway_core::policy::BreakerTrigger::ErrorRate { min_requests: 100, .. })
    ));
}

#[test]
fn resources_written_for_an_earlier_release_say_the_same() {
    let policy = |text: &str| {
        let folder = folder(&[("a.yaml", &SERVICE.replace("  export: ['*']\n", text))]);
        let loaded = load(&[folder.path().to_owned()]).expect("valid");
        let Resource::Service(service) = &loaded[0].resource else { panic!("a service") };
        service.spec.policy(&Mesh::default())
    };
    let earlier = "  balancing: { mode: compatible }\n  breaker: { lane: { trigger: consecutive, failures: 9 } }\n"; // former names
    let present = "  balancing: { mode: envoy }\n  breaker: { locality: { trigger: consecutive, failures: 9 } }\n";
    assert_eq!(policy(earlier), policy(present));
    assert!(policy(earlier).breaker.locality.is_some());
}

#[test]
fn two_peers_cannot_share_a_trust_domain() {
    let second = PEER
        .replace("name: eu-west", "name: eu-north")
        .replace("spec:\n", "spec:\n  trustDomain: eu-west.mesh.internal\n");
    let folder = folder(&[("a.yaml", &format!("{PEER}---\n{second}"))]);
    let found = shown(&folder);
    assert_eq!(
        found,
        ["a.yaml:13: spec.trustDomain: `eu-west.mesh.internal` is the trust domain of the peer `eu-west` already"]
    );
}

#[test]
fn missing_paths_are_problems() {
    let folder = folder(&[]);
    let missing = folder.path().join("none.yaml");
    let problems = load(std::slice::from_ref(&missing)).expect_err("missing");
    assert!(problems.to_string().starts_with(&format!("{}: cannot be read: ", missing.display())), "{problems}");
}

#[test]
fn the_defaults_of_a_port() {
    let folder = folder(&[(
        "a.yaml",
        &SERVICE.replace("  export: ['*']", "  ports: [{ port: 90 }, { port: 91, protocol: tcp }]"),
    )]);
    let loaded = load(&[folder.path().to_owned()]).expect("valid");
    let Resource::Service(service) = &loaded[0].resource else { panic!("a service") };
    let protocols: Vec<Protocol> = service.spec.ports.iter().map(|port| port.protocol).collect();
    assert_eq!(protocols, [Protocol::Http, Protocol::Tcp]);
}

#[test]
fn a_bundle_is_part_of_its_document_or_a_file_beside_it() {
    let inline =
        PEER.replace("trustBundle: ca.crt", &format!("trustBundle: |\n    {}", CA.trim().replace('\n', "\n    ")));
    let nowhere = |_: &Source, path: &str| Err(io::Error::other(format!("nothing beside it, and no {path}")));
    let texts = |text: &str| [Text { file: "a.yaml".into(), text: text.to_owned() }];
    let declared = read(&texts(&inline), &nowhere).expect("valid");
    let Resource::Peer(peer) = &declared[0].resource else { panic!("a peer") };
    assert_eq!(peer.spec.trust_bundle, CA.trim());
    for (text, told) in [
        (PEER.to_owned(), "`ca.crt` cannot be read: nothing beside it, and no ca.crt"),
        (inline.replace("MAA=", "M*A="), "is not PEM with certificates"),
        (inline.replace("CERTIFICATE", "PUBLIC KEY"), "holds no certificate"),
    ] {
        let problems = read(&texts(&text), &nowhere).expect_err("no bundle").to_string();
        assert!(problems.starts_with("a.yaml:6: spec.trustBundle: ") && problems.contains(told), "{problems}");
    }
}

#[test]
fn what_this_version_does_nothing_with_is_refused_by_name() {
    for (kind, spec) in [
        ("Route", "{ service: shop/pay, rules: [{ destinations: [{ service: shop/pay-v2, weight: 1 }] }] }"),
        ("AccessPolicy", "{ service: shop/pay, allow: [{ clusters: [eu-west], methods: [GET] }] }"),
        ("Shift", "{ away: zone=us-east/a, until: \"2026-03-01T09:30:00Z\" }"),
        ("Drill", "{ lose: zone=us-east/a, mode: blackhole, for: 5m }"),
    ] {
        let text = format!("apiVersion: eastway.dev/v1\nkind: {kind}\nmetadata: {{ name: a }}\nspec: {spec}\n");
        let folder = folder(&[("a.yaml", &text)]);
        let found = shown(&folder);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].starts_with(&format!("a.yaml:2: kind: this version knows {kind} and does nothing with it")),
            "{found:#?}"
        );
    }
}

#[test]
fn a_mesh_is_checked_as_a_service_is_and_has_one_name() {
    let text = "apiVersion: eastway.dev/v1\nkind: Mesh\nmetadata: { name: all, namespace: shop }\nspec:\n  balancing: { mode: envoy, ramp: 10s }\n  retries: { perTry: 2s }\n  timeouts: { request: 1s }\n";
    let folder = folder(&[("a.yaml", text)]);
    let found = shown(&folder);
    for part in [
        ":3: metadata.name: `all` is no name for it: there is one Mesh, `mesh`",
        ":3: metadata.namespace: a Mesh is in no namespace",
        ":5: spec.balancing.ramp: it has no effect with `mode: envoy`",
        ":6: spec.retries.perTry: it ends no attempt: `timeouts.request` ends the request after 1s",
    ] {
        assert!(found.iter().any(|line| line.contains(part)), "{part}\n--\n{found:#?}");
    }
    assert_eq!(found.len(), 4, "{found:#?}");
}

#[test]
fn a_document_stays_as_it_was_written_but_for_its_bundle_and_former_names() {
    let folder = folder(&[
        ("a.yaml", PEER),
        ("b.yaml", &SERVICE.replace("  export: ['*']\n", "  balancing: { mode: compatible }\n")), // a former name
    ]);
    let declared = load(&[folder.path().to_owned()]).expect("valid");
    let specs: Vec<_> = declared.iter().map(|one| one.document["spec"].clone()).collect();
    let peer =
        serde_json::json!({ "gateways": ["gw.eu-west.example:15443"], "trustBundle": CA, "imports": ["shop/*"] });
    assert_eq!(specs, [peer, serde_json::json!({ "balancing": { "mode": "envoy" } })]);
    for one in &declared {
        assert_eq!(Declared::stored(&one.document).expect("understood").resource, one.resource);
    }
}

#[test]
fn what_a_later_release_stored_is_understood_as_far_as_it_is_known() {
    let later = |kind: &str| {
        serde_json::json!({
            "kind": kind, "apiVersion": "eastway.dev/v1", "metadata": { "name": "payments", "namespace": "shop", "team": "a" },
            "spec": { "retries": { "attempts": 3, "hedge": "5ms" }, "mirror": ["shop/copy"] },
        })
    };
    let document = later("Service");
    let stored = Declared::stored(&document).expect("understood");
    let Resource::Service(service) = &stored.resource else { panic!("a service") };
    assert_eq!(service.spec.retries.attempts, Some(3));
    assert_eq!(stored.document, document, "nothing of it is lost");
    assert_eq!(Declared::stored(&later("Tunnel")), None);
}
