use std::fs;

use eastway_documents::reference::{keep_current, keep_part_current, schema_of, tables_of, unread_fields};

use super::*;

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What passes for a bundle: nothing is verified with it.
const CA: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

const GATEWAY: &str = "\
cluster: us-east
region: us-east-1
gateway: gw-1
zones: { a: { latitude: 38.13, longitude: -78.45 }, b: {} }
identity: { certificate: a.crt, key: a.key, bundle: ca.crt }
";
const EMBEDDED: &str = "store: { embedded: { path: state } }\n";

/// A folder with the files that [`GATEWAY`] names, and others.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    for (name, text) in [("a.crt", "x"), ("a.key", "x"), ("ca.crt", CA)].iter().chain(files) {
        fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

fn load_in(folder: &tempfile::TempDir, text: &str) -> Result<Config, Problems> {
    let file = folder.path().join("gateway.yaml");
    fs::write(&file, text).expect("written");
    Config::load(&file)
}

/// The problems of `text`, by file name instead of path.
fn problems(files: &[(&str, &str)], text: &str) -> Vec<String> {
    let folder = folder(files);
    let problems = load_in(&folder, text).expect_err("invalid");
    let prefix = format!("{}/", folder.path().display());
    problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

#[test]
fn bounds_of_peers_and_accounts_reach_the_server() {
    let text = "peering: { gateways: 2, zones: 3, ports: 4, accounts: 5, endpoints: 6000, entries: 7000, tokens: 0 }\nregistration: { perAccount: 8 }\n";
    let config = load_in(&folder(&[]), &format!("{GATEWAY}{EMBEDDED}{text}")).expect("valid");
    let registry = crate::federation::options(&config).registry;
    assert_eq!((registry.peer, registry.max_per_account), (config.peering.clone(), 8));
    assert_eq!(crate::federation::options(&config).joining.max_tokens, 0);
    assert_ne!(config.peering, PeerBounds::default());
    let defaults = load_in(&folder(&[]), &format!("{GATEWAY}{EMBEDDED}")).expect("valid");
    assert_eq!(crate::federation::options(&defaults).registry.peer, PeerBounds::default());
}

#[test]
fn a_small_file_and_the_defaults() {
    let config = load_in(&folder(&[]), &format!("{GATEWAY}{EMBEDDED}")).expect("valid");
    assert_eq!(config.trust_domain, "us-east.mesh.internal");
    assert_eq!(config.peering, PeerBounds::default());
    assert_eq!(config.zones["a"], Some(Coordinates { latitude: 38.13, longitude: -78.45 }));
    assert_eq!(config.zones["b"], None);
    let Store::Embedded { path } = &config.store else { panic!("embedded") };
    assert!(path.is_absolute() && path.ends_with("state"));
    for (address, expected) in [
        (config.tunnel.listen, "0.0.0.0:15443"),
        (config.discovery, "0.0.0.0:15010"),
        (config.admin, "127.0.0.1:15000"),
        (config.metrics, "0.0.0.0:15020"),
    ] {
        assert_eq!(address, expected.parse().expect("an address"));
    }
    let millis = Duration::from_millis;
    let timeouts = Timeouts {
        connect: millis(250),
        stream_open: millis(1_000),
        idle: millis(300_000),
        drain: millis(30_000),
        tcp_user: millis(1_000),
        tcp_keepalive: millis(1_000),
        header: millis(10_000),
        session: millis(10_000),
        collect: millis(60_000),
        handshake: millis(5_000),
    };
    assert_eq!(config.timeouts, timeouts);
    assert_eq!((config.limits.workers, config.limits.streams), (1, 4_096));
    assert_eq!(config.load_resources().expect("none is fine").0, []);
}

#[test]
fn etcd_with_and_without_tls() {
    let folder = folder(&[("password", "secret\n")]);
    let plain = "store: { etcd: { endpoints: ['http://127.0.0.1:2379'] } }\n";
    let Store::Etcd(etcd) = load_in(&folder, &format!("{GATEWAY}{plain}")).expect("valid").store else {
        panic!("etcd")
    };
    assert_eq!((etcd.endpoints.len(), etcd.user, etcd.tls, etcd.prefix.as_str()), (1, None, None, ""));
    let full = "\
store:
  etcd:
    endpoints: ['https://e1:2379', 'https://e2:2379']
    username: eastway
    passwordFile: password
    tls: { ca: ca.crt, certificate: a.crt, key: a.key, serverName: etcd.example }
    prefix: /test
";
    let Store::Etcd(etcd) = load_in(&folder, &format!("{GATEWAY}{full}")).expect("valid").store else { panic!("etcd") };
    assert_eq!(etcd.user.expect("given").password_file, folder.path().join("password"));
    let tls = etcd.tls.expect("given");
    assert_eq!(tls.identity, Some((folder.path().join("a.crt"), folder.path().join("a.key"))));
    assert_eq!((tls.server_name.as_deref(), etcd.prefix.as_str()), (Some("etcd.example"), "/test"));
}

#[test]
fn tunnels_go_over_quic_first_and_otherwise_as_it_is_said() {
    let transports = |said: &str| {
        let text = format!("{GATEWAY}{EMBEDDED}{said}");
        load_in(&folder(&[]), &text).expect("valid").tunnel.transports
    };
    assert_eq!(transports(""), [Transport::Quic, Transport::Tcp]);
    assert_eq!(transports("tunnel: { transports: [tcp, quic] }\n"), [Transport::Tcp, Transport::Quic]);
    assert_eq!(transports("tunnel: { transports: [tcp] }\n"), [Transport::Tcp]);
    for (said, expected) in [
        ("[]", "tunnel.transports: at least 1 expected"),
        ("[quic, quic]", "tunnel.transports: name each of `quic` and `tcp` at most once"),
        ("[udp]", "tunnel.transports[0]: "),
    ] {
        let found = problems(&[], &format!("{GATEWAY}{EMBEDDED}tunnel: {{ transports: {said} }}\n"));
        assert!(found.len() == 1 && found[0].contains(expected), "{said}: {found:?}");
    }
}

#[test]
fn stores_that_cannot_be_used() {
    for (store, expected) in [
        ("{}", "store: expected exactly one of `embedded`, `etcd`"),
        ("{ embeded: { path: x } }", "store.embeded: unknown key `embeded`; did you mean `embedded`?"),
        ("{ embedded: { path: a.crt/x } }", "a.crt` is a file"),
        ("{ etcd: { endpoints: [] } }", "store.etcd.endpoints: at least 1 expected"),
        (
            "{ etcd: { endpoints: ['127.0.0.1:2379'] } }",
            "store.etcd.endpoints[0]: `127.0.0.1:2379` is not http://HOST:PORT or https://HOST:PORT",
        ),
        (
            "{ etcd: { endpoints: ['http://a:1', 'http://a:1'] } }",
            "store.etcd.endpoints[1]: `http://a:1` is listed twice",
        ),
        (
            "{ etcd: { endpoints: ['http://a:1', 'https://b:1'], tls: { ca: ca.crt } } }",
            "either all members are reached by https, or none",
        ),
        ("{ etcd: { endpoints: ['https://b:1'] } }", "store.etcd.tls: missing"),
        ("{ etcd: { endpoints: ['http://b:1'], tls: { ca: ca.crt } } }", "store.etcd.tls: has no effect"),
        ("{ etcd: { endpoints: ['http://b:1'], username: u } }", "store.etcd.username: needs `passwordFile`"),
        ("{ etcd: { endpoints: ['http://b:1'], passwordFile: ca.crt } }", "store.etcd.passwordFile: has no effect"),
        (
            "{ etcd: { endpoints: ['http://b:1'], username: u, passwordFile: none } }",
            "store.etcd.passwordFile: cannot read",
        ),
        (
            "{ etcd: { endpoints: ['https://b:1'], tls: { ca: ca.crt, certificate: a.crt } } }",
            "store.etcd.tls.certificate: needs `key`",
        ),
        (
            "{ etcd: { endpoints: ['https://b:1'], tls: { ca: ca.crt, key: a.key } } }",
            "store.etcd.tls.key: has no effect",
        ),
    ] {
        let found = problems(&[], &format!("{GATEWAY}store: {store}\n"));
        assert!(found.len() == 1 && found[0].contains(expected), "{store}: {found:?}");
    }
}

#[test]
fn all_problems_of_the_file_and_of_its_resources_at_once() {
    let text = "\
cluster: us-east
region: US
gateway: gw 1
zones:
  a: { latitude: 38 }
  B: {}
identity: { certificate: none.crt, key: a.key, bundle: ca.crt }
trustDomain: Bad
tunnel: { listen: '0.0.0.0:15010' }
discovery: { listen: '127.0.0.1:15010' }
admin: { listen: '10.0.0.1:15000' }
store: { embedded: { path: state } }
resources: [r.yaml, none.yaml]
suffix: -bad
registration: { networks: [10.0.0.0/8, 10.0.0.0/33] }
timeouts: { connect: 1h }
telemetry: { otlp: { endpoint: collector } }
";
    let resources = "apiVersion: eastway.dev/v1\nkind: Service\nmetadata: { name: a }\nspec: { exports: [] }\n";
    let found = problems(&[("r.yaml", resources)], text);
    let expected = [
        "gateway.yaml:2: region: `US` is not a name",
        "gateway.yaml:3: gateway: `gw 1` is not a name",
        "gateway.yaml:5: zones.a: `latitude` has no effect without `longitude`",
        "gateway.yaml:6: zones.B: `B` is not a name",
        "gateway.yaml:7: identity.certificate: cannot read",
        "gateway.yaml:8: trustDomain: `Bad` is not a trust domain",
        "gateway.yaml:10: discovery.listen: `127.0.0.1:15010` conflicts with tunnel.listen",
        "gateway.yaml:11: admin.listen: `10.0.0.1:15000` is not a loopback address",
        "gateway.yaml:14: suffix: `-bad` is not a domain",
        "gateway.yaml:15: registration.networks[1]: `10.0.0.0/33` is no network",
        "gateway.yaml:16: timeouts.connect: `1h` is out of range: from 1ms to 1m",
        "gateway.yaml:17: telemetry.otlp.endpoint: `collector` is not http://HOST:PORT",
        "none.yaml: cannot be read",
        "r.yaml:4: spec.exports: unknown key `exports`; did you mean `export`?",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{expected}\n--\n{found}");
    }
}

#[test]
fn resources_must_fit_the_cluster() {
    let resources = "\
apiVersion: eastway.dev/v1
kind: Peer
metadata: { name: us-east }
spec: { gateways: ['a:1'], trustBundle: ca.crt }
---
apiVersion: eastway.dev/v1
kind: Peer
metadata: { name: eu-west }
spec: { gateways: ['a:1'], trustBundle: ca.crt, trustDomain: us-east.mesh.internal, imports: ['shop/*'] }
---
apiVersion: eastway.dev/v1
kind: Service
metadata: { name: a, namespace: shop }
spec: { failover: [us-east], localityWeights: { us-east/c: 1, us-east/a: 2, eu-west/x: 1 } }
";
    let resources = resources.replace(
        "spec: { gateways: ['a:1'], trustBundle: ca.crt }\n",
        "spec: { gateways: ['a:1'], trustBundle: ca.crt, trustDomain: other }\n",
    );
    let found = problems(&[("r.yaml", &resources)], &format!("{GATEWAY}{EMBEDDED}resources: [r.yaml, r.yaml]\n"));
    let expected = [
        "gateway.yaml:7: resources[1]: ",
        "r.yaml:3: metadata.name: `us-east` is this cluster, not a peer of it",
        "r.yaml:9: spec.trustDomain: `us-east.mesh.internal` is the trust domain of this cluster itself",
        "r.yaml:14: spec.failover[0]: `us-east` is this cluster, which always comes first: remove it",
        "r.yaml:14: spec.localityWeights[\"us-east/c\"]: `us-east/c` is no zone of this cluster",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{expected}\n--\n{found}");
    }
}

#[test]
fn resources_are_read_again() {
    let service = "apiVersion: eastway.dev/v1\nkind: Service\nmetadata: { name: NAME, namespace: shop }\nspec: {}\n";
    let folder = folder(&[("r.yaml", &service.replace("NAME", "one"))]);
    let config = load_in(&folder, &format!("{GATEWAY}{EMBEDDED}resources: [r.yaml]\n")).expect("valid");
    assert_eq!(config.load_resources().expect("valid").0.len(), 1);
    let file = folder.path().join("r.yaml");
    fs::write(&file, format!("{}---\n{}", service.replace("NAME", "one"), service.replace("NAME", "two")))
        .expect("written");
    assert_eq!(config.load_resources().expect("valid").0.len(), 2);
    fs::write(&file, service.replace("NAME", "Bad")).expect("written");
    assert!(config.load_resources().is_err());
}

/// The examples, with stand-ins for the certificates that their walk makes.
#[test]
fn the_examples_are_valid() {
    let folder = tempfile::tempdir().expect("folder");
    let clusters = ["us-east", "eu-west"];
    for name in clusters {
        let home = folder.path().join(name);
        for file in ["ca/ca.crt", "identities/gateway.crt", "identities/gateway.key"] {
            fs::create_dir_all(home.join(file).parent().expect("a folder")).expect("created");
            fs::write(home.join(file), CA).expect("written");
        }
        for file in ["gateway.yaml", "resources.yaml"] {
            fs::copy(root().join("examples/two-clusters").join(name).join(file), home.join(file)).expect("copied");
        }
    }
    for name in clusters {
        let config = Config::load(&folder.path().join(name).join("gateway.yaml"));
        let config = config.unwrap_or_else(|problems| panic!("{name}:\n{problems}"));
        assert!(!config.load_resources().expect("valid").0.is_empty());
    }
}

#[test]
fn every_setting_is_read_by_somebody() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let unread = unread_fields(&own.join("config.rs"), &[&own, &root().join("cli/src")]).expect("readable");
    assert_eq!(unread, [""; 0], "settings without effect");
}

#[test]
fn the_reference_and_the_schema_are_current() {
    let schema = schema_of::<RawConfig>("Configuration of an Eastway gateway");
    keep_current(&root().join("docs/schema/gateway.json"), &schema).expect("current");
    keep_part_current(&root().join("docs/configuration.md"), "gateway", &tables_of::<RawConfig>()).expect("current");
}

/// The gateway's file and the resources in the introduction of the reference.
#[test]
fn the_examples_of_the_reference_are_valid() {
    let text = fs::read_to_string(root().join("docs/configuration.md")).expect("readable");
    let example = |name: &str| {
        let start = format!("```yaml\n# {name}\n");
        text.split(&start).nth(1).and_then(|rest| rest.split("```").next()).expect("there").replace("/etc/eastway/", "")
    };
    let folder = folder(&[
        ("gateway.crt", "x"),
        ("gateway.key", "x"),
        ("eu-west.crt", CA),
        ("resources.yaml", &example("resources.yaml")),
    ]);
    let config = load_in(&folder, &example("gateway.yaml")).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.load_resources().expect("valid").0.len(), 2);
}
