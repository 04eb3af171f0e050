use std::fs;

use eastway_documents::reference::{keep_current, keep_part_current, schema_of, tables_of, unread_fields};
use eastway_runtime::sections::LogLevel;

use super::*;

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

const IDENTITY: &str = "identity: { certificate: id/a.crt, key: id/a.key, bundle: id/ca.crt }\n";
const GATEWAYS: &str = "gateways: [{ discovery: '10.0.0.1:15010', tunnel: '10.0.0.1:15443' }]\n";
const CALLER: &str = "cluster: us-east\nzone: a\nworkload: { name: web-1, namespace: shop }\n";
const SERVER: &str = "cluster: us-east\nzone: a\nworkload: { name: pay-1, namespace: shop, service: payments }\ninbound: { listen: '10.0.0.9:15008', app: '127.0.0.1:8080' }\n";

/// Loads `text` from a folder that has the files of [`IDENTITY`].
fn load_text(text: &str) -> Result<Config, Problems> {
    let folder = tempfile::tempdir().expect("folder");
    fs::create_dir(folder.path().join("id")).expect("created");
    for name in ["a.crt", "a.key", "ca.crt"] {
        fs::write(folder.path().join("id").join(name), "x").expect("written");
    }
    let file = folder.path().join("sidecar.yaml");
    fs::write(&file, text).expect("written");
    Config::load(&file)
}

/// The problems of `text`, without the folder.
fn problems(text: &str) -> Vec<String> {
    let problems = load_text(text).expect_err("invalid");
    let short =
        |problem: &eastway_documents::Problem| format!("{}: {}: {}", problem.line, problem.path, problem.message);
    problems.iter().map(short).collect()
}

#[test]
fn a_mere_caller_needs_little() {
    let config = load_text(&format!("{CALLER}{IDENTITY}{GATEWAYS}")).expect("valid");
    assert_eq!((config.inbound, config.health, config.state), (None, None, None));
    assert_eq!(config.outbound.proxy, "127.0.0.1:15080".parse().expect("an address"));
    assert_eq!(config.suffix, "mesh.internal");
    assert!(config.identity.key.ends_with("id/a.key") && config.identity.key.is_absolute());
}

#[test]
fn a_listener_leads_to_one_service_and_listens_on_this_machine_only() {
    let with = |listener: &str| {
        load_text(&format!("{CALLER}{IDENTITY}{GATEWAYS}outbound:\n  listeners:\n    - {{ {listener} }}\n"))
    };
    let config =
        with("listen: '127.0.0.1:5432', service: shop/orders-db, port: 5432, cluster: eu-west").expect("valid");
    let names: Vec<_> = config.outbound.listeners.iter().map(|l| l.target.to_text("mesh.internal")).collect();
    assert_eq!(names, ["orders-db.shop.eu-west.mesh.internal:5432"]);
    for (listener, path, part) in [
        ("listen: '10.0.0.1:5432', service: shop/db, port: 5432", "listen", "not a loopback address"),
        ("listen: '127.0.0.1:15080', service: shop/db, port: 5432", "listen", "conflicts"),
        ("listen: '127.0.0.1:5432', service: db, port: 5432", "service", "db"),
        ("listen: '127.0.0.1:5432', service: shop/db, port: 0", "port", "no port 0"),
        ("listen: '127.0.0.1:5432', service: shop/db, port: 1, cluster: Bad_Name", "cluster", "Bad_Name"),
    ] {
        let found = with(listener).expect_err("invalid");
        let told = found.iter().any(|p| p.path.contains(path) && p.message.contains(part));
        assert!(told || found.iter().any(|p| p.message.contains(part)), "{listener}: {found}");
    }
}

#[test]
fn what_is_captured_can_be_and_has_an_effect() {
    let told = |server: &str, more: &str| problems(&format!("{server}{IDENTITY}{GATEWAYS}{more}"));
    let names = "dns: { listen: '127.0.0.1:53', addresses: captured }\n";
    let load = |server: &str, more: &str| load_text(&format!("{server}{IDENTITY}{GATEWAYS}{more}"));
    let config = load(SERVER, &format!("{names}capture: {{ inbound: {{}} }}\n")).expect("valid");
    let capture = config.capture.expect("given");
    assert_eq!(capture.listen, "127.0.0.1:15001".parse().ok());
    assert_eq!(capture.inbound.map(|inbound| (inbound.mode, inbound.ports)), Some((InboundMode::Strict, vec![8080])));
    for (server, more, part) in [
        (CALLER, names.to_owned(), "dns.addresses: names' addresses are to be captured, which needs `capture`"),
        (CALLER, "capture: {}\n".to_owned(), "capture: has no effect"),
        (CALLER, "capture: { unknown: deny }\n".to_owned(), "capture.unknown: `deny` would refuse the sidecar's own"),
        (
            CALLER,
            "capture: { inbound: {} }\n".to_owned(),
            "capture.inbound: has no effect: the workload serves nothing",
        ),
        (SERVER, "capture: { inbound: { ports: [15008] } }\n".to_owned(), "15008 is the port of inbound.listen"),
        (
            SERVER,
            "capture: { inbound: { mode: permissive, listen: '127.0.0.1:15006' } }\n".to_owned(),
            "capture.inbound.listen: a loopback address is not reached",
        ),
        (CALLER, format!("{names}capture: {{ table: 'a b' }}\n"), "capture.table: `a b` is no name of a table"),
        (CALLER, format!("{names}capture: {{ only: {{ users: ['a;b'] }} }}\n"), "`a;b` is no user or group"),
        (CALLER, format!("{names}capture: {{ user: a, only: {{ users: [a] }} }}\n"), "`a` is the sidecar's own user"),
        (
            CALLER,
            format!("{names}capture: {{ only: {{ cgroups: ['../a'] }} }}\n"),
            "`../a` is no path of a control group",
        ),
        (CALLER, format!("{names}capture: {{ exclude: {{ addresses: ['10.0.0.0/33'] }} }}\n"), "0 to 32 expected"),
        (
            CALLER,
            format!("{names}capture: {{ exclude: {{ addresses: [here] }} }}\n"),
            "`here` is no address or network",
        ),
        (CALLER, format!("{names}capture: {{ exclude: {{ ports: [0] }} }}\n"), "there is no port 0"),
        (CALLER, "dns: { prefix: 'fd00::' }\n".to_owned(), "dns.prefix: has no effect with `addresses: loopback`"),
        (
            CALLER,
            "dns: { addresses: captured, prefix: 'fd00::1' }\ncapture: {}\n".to_owned(),
            "dns.prefix: `fd00::1` is not the first address of a /96",
        ),
    ] {
        let told = told(server, &more);
        assert!(told.iter().any(|problem| problem.contains(part)), "{more}: {told:?}");
    }
}

#[test]
fn defaults_are_those_of_the_design() {
    let config = load_text(&format!("{SERVER}{IDENTITY}{GATEWAYS}")).expect("valid");
    let millis = Duration::from_millis;
    let timeouts = Timeouts {
        connect: millis(250),
        stream_open: millis(1_000),
        request: millis(15_000),
        idle: millis(300_000),
        failback: millis(30_000),
        discovery: millis(1_000),
        drain: millis(30_000),
        tcp_user: millis(1_000),
        tcp_keepalive: millis(1_000),
        ping_after: millis(200),
        ping_timeout: millis(250),
        header: millis(10_000),
        continue_after: Duration::from_secs(1),
        handshake: millis(5_000),
    };
    assert_eq!(config.timeouts, timeouts);
    let limits = config.limits;
    assert_eq!((limits.workers, limits.attempts, limits.unsent_attempts), (1, 2, 4));
    assert_eq!((limits.kept_body, limits.held_response, limits.header_bytes), (65_536, 16_384, 65_536));
    assert_eq!((limits.requests, limits.subscriptions), (1_024, 1_000));
    let health = config.health.expect("a server is probed");
    assert_eq!((health.kind, health.target), (HealthKind::Tcp, "127.0.0.1:8080".parse().expect("an address")));
    assert_eq!(config.inbound.expect("given").protocol, AppProtocol::Auto);
    assert_eq!((config.workload.weight, config.workload.capacity), (1.0, 0));
    assert_eq!((config.telemetry.otlp, config.telemetry.log.level), (None, LogLevel::Info));
}

#[test]
fn everything_can_be_said() {
    let rest = "\
health: { grpc: { service: pay.Payments, port: 9090 }, interval: 500ms, timeout: 200ms, healthyAfter: 2, unhealthyAfter: 3 }
admin: { listen: '127.0.0.1:0' }
metrics: { listen: '[::1]:15020' }
state: state
suffix: corp.example
timeouts: { request: 1m 30s, drain: 0s }
limits: { workers: 4, keptBody: 0 }
telemetry: { otlp: { endpoint: 'http://collector:4317', queue: 10 }, sampling: 1, log: { level: debug, format: text }, accessLog: { path: access.jsonl } }
";
    let config = load_text(&format!("{SERVER}{IDENTITY}{GATEWAYS}{rest}")).expect("valid");
    let health = config.health.expect("given");
    assert_eq!(health.kind, HealthKind::Grpc { service: "pay.Payments".to_owned() });
    assert_eq!(health.target, "127.0.0.1:9090".parse().expect("an address"));
    assert_eq!((health.healthy_after, health.unhealthy_after), (2, 3));
    assert_eq!((config.timeouts.request, config.timeouts.drain), (Duration::from_secs(90), Duration::ZERO));
    assert_eq!((config.limits.workers, config.limits.kept_body), (4, 0));
    let otlp = config.telemetry.otlp.expect("given");
    assert_eq!((otlp.sampling, otlp.queue, otlp.timeout), (1.0, 10, Duration::from_secs(10)));
    assert!(!config.telemetry.log.json && config.telemetry.log.level == LogLevel::Debug);
    assert!(config.telemetry.access_log.is_some_and(|path| path.ends_with("access.jsonl")));
    assert!(config.state.is_some_and(|path| path.ends_with("state")));
}

#[test]
fn problems_of_shape_come_together() {
    let text = "cluster: 7\nzone: a\nworklod: { name: a }\nidentity: { certificate: a, key: b }\ngateways: []\ntimeouts: { conect: 1s, request: 15 }\nlimits: { workers: 0, subscriptions: 2001 }\n";
    assert_eq!(
        problems(text),
        [
            "1: cluster: expected a text, found the number 7; put it in quotes",
            "1: workload: missing: The workload beside the sidecar",
            "3: worklod: unknown key `worklod`; did you mean `workload`?",
            "4: identity.bundle: missing: The CA certificates of the own trust domain",
            "5: gateways: at least 1 expected, found 0",
            "6: timeouts.conect: unknown key `conect`; did you mean `connect`?",
            "6: timeouts.request: expected a duration such as 250ms, 30s or 5m, found the number 15",
            "7: limits.workers: 0 is out of range: from 1 to 64",
            // Its gateway would refuse what is beyond, again and again.
            "7: limits.subscriptions: 2001 is out of range: from 1 to 2000",
        ]
    );
}

#[test]
fn problems_of_meaning_come_together_with_their_lines() {
    let text = "\
cluster: US_East
zone: a
workload:
  name: pay-1
  namespace: shop
  service: payments
inbound:
  listen: 0.0.0.0:15008
  app: localhost:8080
identity:
  certificate: id/none.crt
  key: id
  bundle: id/ca.crt
gateways:
  - discovery: 10.0.0.1:15010
    tunnel: 10.0.0.1:15010
outbound:
  proxy: 0.0.0.0:15080
admin:
  listen: 127.0.0.1:15080
health:
  http: { path: healthz }
  command: [\"true\"]
timeouts:
  request: 0s
  drain: never
limits:
  attempts: 5
telemetry:
  sampling: 0.5
";
    let expected = [
        (1, "cluster", "is not a name"),
        (8, "inbound.listen", "add `workload.address`"),
        (9, "inbound.app", "is not an address"),
        (11, "identity.certificate", "cannot read"),
        (12, "identity.key", "it is a folder"),
        (16, "gateways[0].tunnel", "the same as `discovery`"),
        (18, "outbound.proxy", "not a loopback address"),
        (20, "admin.listen", "conflicts with outbound.proxy"),
        (21, "health", "only one of http, command"),
        (22, "health.http.path", "not a path"),
        (25, "timeouts.request", "out of range"),
        (26, "timeouts.drain", "not a duration"),
        (27, "limits.unsentAttempts", "less than `attempts`"),
        (30, "telemetry.sampling", "no effect without `telemetry.otlp`"),
    ];
    let found = load_text(text).expect_err("invalid");
    assert_eq!(found.len(), expected.len(), "{found}");
    for (problem, (line, path, part)) in found.iter().zip(expected) {
        assert_eq!((problem.line, problem.path.as_str()), (line, path), "{problem}");
        assert!(problem.message.contains(part), "{problem}");
    }
}

#[test]
fn what_has_no_effect_on_a_mere_caller_is_refused() {
    let workload =
        "workload: { name: a, namespace: b, weight: 2, capacity: 3, labels: { x: y }, address: '10.0.0.1:1' }\n";
    let rest = "inbound: { listen: '10.0.0.9:15008', app: '127.0.0.1:8080' }\nhealth: {}\n";
    let found = problems(&format!("cluster: c\nzone: a\n{workload}{rest}{IDENTITY}{GATEWAYS}"));
    let paths: Vec<&str> = found.iter().filter_map(|line| line.split(": ").nth(1)).collect();
    let expected = ["workload.weight", "workload.capacity", "workload.labels", "workload.address", "inbound", "health"];
    assert_eq!(paths, expected);
    assert!(found.iter().all(|line| line.contains("has no effect")), "{found:?}");
}

#[test]
fn a_server_needs_its_inbound_side_and_an_application_of_its_own() {
    let lonely = SERVER.lines().filter(|line| !line.starts_with("inbound")).collect::<Vec<_>>().join("\n");
    let found = problems(&format!("{lonely}\n{IDENTITY}{GATEWAYS}"));
    assert_eq!(found, ["3: workload.service: needs `inbound`: nobody could reach the service"]);
    let circle = SERVER.replace("127.0.0.1:8080", "10.0.0.9:15008");
    let found = problems(&format!("{circle}{IDENTITY}{GATEWAYS}"));
    assert_eq!(found, ["4: inbound.app: `10.0.0.9:15008` is inbound.listen, not the application"]);
    let wide = SERVER
        .replace("10.0.0.9:15008", "0.0.0.0:15008")
        .replace("payments }", "payments, address: '10.0.0.9:15008' }");
    load_text(&format!("{wide}{IDENTITY}{GATEWAYS}")).expect("an address is advertised");
}

#[test]
fn probes_are_checked() {
    for (health, part) in [
        ("{ grpc: { service: SERVICE } }", "health.grpc.service: longer than"),
        ("{ command: [] }", "health.command: needs at least the program"),
        ("{ http: { path: '/a b' } }", "health.http.path: `/a b` is not a path"),
        ("{ interval: 1ms }", "health.interval: `1ms` is out of range"),
        ("{ http: { path: /x, port: 0 } }", "health.http.port: 0 is out of range: from 1 to 65535"),
    ] {
        let health = health.replace("SERVICE", &"x".repeat(128));
        let found = problems(&format!("{SERVER}{IDENTITY}{GATEWAYS}health: {health}\n"));
        assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
    }
}

#[test]
fn duplicate_keys_and_aliases_are_problems() {
    let found = problems(&format!("{CALLER}{IDENTITY}{GATEWAYS}zone: b\nsuffix: &s corp.example\nstate: *s\n"));
    assert_eq!(
        found,
        [
            "6: zone: given twice: first on line 2",
            "7: suffix: anchors and aliases are not supported: write the value where it is used",
            "8: state: anchors and aliases are not supported: write the value where it is used",
        ]
    );
}

/// The examples, with stand-ins for the certificates that their walk makes.
#[test]
fn the_examples_are_valid() {
    let folder = tempfile::tempdir().expect("folder");
    let mut found = 0;
    for cluster in ["us-east", "eu-west"] {
        let home = folder.path().join(cluster);
        for name in [
            "ca/ca.crt",
            "identities/payments.crt",
            "identities/payments.key",
            "identities/storefront.crt",
            "identities/storefront.key",
        ] {
            fs::create_dir_all(home.join(name).parent().expect("a folder")).expect("created");
            fs::write(home.join(name), "x").expect("written");
        }
        for name in ["storefront.yaml", "payments.yaml"] {
            let Ok(text) = fs::read_to_string(root().join("examples/two-clusters").join(cluster).join(name)) else {
                continue;
            };
            fs::write(home.join(name), text).expect("written");
            Config::load(&home.join(name)).unwrap_or_else(|problems| panic!("{cluster}/{name}:\n{problems}"));
            found += 1;
        }
    }
    assert_eq!(found, 2);
}

#[test]
fn every_setting_is_read_by_somebody() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let unread = unread_fields(&own.join("config.rs"), &[&own, &root().join("cli/src")]).expect("readable");
    assert_eq!(unread, [""; 0], "settings without effect");
}

#[test]
fn the_reference_and_the_schema_are_current() {
    let schema = schema_of::<RawConfig>("Configuration of an Eastway sidecar");
    keep_current(&root().join("docs/schema/sidecar.json"), &schema).expect("current");
    keep_part_current(&root().join("docs/configuration.md"), "sidecar", &tables_of::<RawConfig>()).expect("current");
}

/// The sidecar's file in the introduction of the reference.
#[test]
fn the_example_of_the_reference_is_valid() {
    let text = fs::read_to_string(root().join("docs/configuration.md")).expect("readable");
    let example =
        text.split("```yaml\n# sidecar.yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("there");
    load_text(&example.replace("/etc/eastway/", "id/")).expect("valid");
}
