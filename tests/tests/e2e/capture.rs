//! Capture: the host leads connections to names to the sidecar, and keeps callers from going around it. Each test has a network of
//! its own, and sets its rules there. Needs root.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use eastway_tests::apart;
use eastway_tests::apps::App;
use eastway_tests::lab::{Lab, LabNode, StoreKind, reaches};
use eastway_tests::process::{eastway, required};
use eastway_tests::wire::Wire;
use eastway_tests::{check, client, eventually};

const NAME: &str = "payments.shop.mesh.internal";
const PREFIX: &str = "fd00:ea57::";

/// Two clusters with payments in each, and a caller's sidecar in us-east whose names' addresses are captured.
struct Captured {
    lab: Lab,
    storefront: LabNode,
}

impl Captured {
    /// On a network of its own; `capture` is what else the configuration says of it.
    fn start(capture: &str) -> Self {
        apart::network();
        let mut lab = Lab::new();
        lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
        lab.payments("us-east", "a", "payments-1");
        lab.payments("eu-west", "a", "payments-2");
        let ip = lab.host();
        let storefront = LabNode { name: "us-east-captured".to_owned(), ip };
        let dns = format!(
            "dns: {{ listen: '{ip}:53', upstreams: ['127.0.0.1:9'], addresses: captured, prefix: '{PREFIX}' }}"
        );
        lab.configure("us-east", "a", &storefront, "storefront", &format!("{dns}\ncapture: {{ {capture} }}\n"));
        lab.start_role("sidecar", &storefront.name);
        lab.wait_ready(&storefront);
        reaches(storefront.proxy(), "us-east/a");
        eventually("eu-west is known to offer it", || {
            let answer = client::get(storefront.proxy(), "http://payments.shop.eu-west.mesh.internal/")?;
            check(answer.status == 200, || format!("{answer:?}"))
        });
        Self { lab, storefront }
    }

    /// `eastway sidecar capture ...` for the storefront.
    fn capture(&self, arguments: &[&str]) -> Output {
        capture(&self.lab.path(&format!("{}.yaml", self.storefront.name)), arguments)
    }

    /// The same; it must end well. What it prints.
    fn captures(&self, arguments: &[&str]) -> String {
        said(&self.capture(arguments))
    }

    /// Runs a program by `user`, which is told of no proxy and looks names up at the sidecar.
    fn run(&self, user: &str, package: &str, arguments: &[&str]) -> Output {
        let (program, arguments) = arguments.split_first().expect("a program");
        let program = required(program, package).display().to_string();
        let by = ["--reuid", user, "--regid", user, "--clear-groups", &program];
        let all: Vec<&str> = by.iter().chain(arguments).copied().collect();
        apart::resolving(self.storefront.ip, "", self.lab.folder(), &required("setpriv", "util-linux"), &all)
    }

    /// Who answers curl.
    fn zone(&self, user: &str, more: &[&str]) -> Result<String, String> {
        let arguments: Vec<&str> = ["curl", "-sS", "--fail", "--max-time", "5"].iter().chain(more).copied().collect();
        let output = self.run(user, "curl", &arguments);
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|_| format!("{output:?}"))?;
        Ok(answer["zone"].as_str().unwrap_or_default().to_owned())
    }
}

fn capture(config: &Path, arguments: &[&str]) -> Output {
    let (verb, more) = arguments.split_first().expect("a verb");
    let mut command = Command::new(eastway());
    command.args(["sidecar", "capture", verb, "--config"]).arg(config).args(more);
    command.output().expect("it starts")
}

fn said(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{words}");
    printed
}

fn ip(arguments: &str) {
    let output = Command::new(required("ip", "iproute2")).args(arguments.split(' ')).output().expect("it starts");
    said(&output);
}

/// A user that everybody has, and nobody else here is.
const NOBODY: &str = "65534";

/// Calls by name, over IPv4 and IPv6, with every client, in one cluster and across; then the rules go, and come again.
fn names_are_called(capture: &str) {
    let captured = Captured::start(capture);
    assert!(captured.captures(&["show"]).starts_with("not installed"));
    captured.captures(&["install"]);
    captured.captures(&["install"]);
    assert!(captured.captures(&["show"]).starts_with("installed, as configured"), "{}", captured.captures(&["show"]));
    assert_eq!(captured.captures(&["check"]).trim(), "all is well");
    for (name, zone) in [(NAME, "us-east/a"), ("payments.shop.eu-west.mesh.internal", "eu-west/a")] {
        let url = format!("http://{name}/");
        for family in ["-4", "-6"] {
            assert_eq!(captured.zone(NOBODY, &[family, &url]).as_deref(), Ok(zone), "{name} {family}");
        }
        let python = format!("import urllib.request as r; print(r.urlopen('{url}', timeout=5).read().decode())");
        for (package, program) in
            [("wget", &["wget", "-q", "-T", "5", "-O", "-", &url][..]), ("python3", &["python3", "-c", &python])]
        {
            let answer = said(&captured.run("0", package, program));
            assert!(answer.contains(zone), "{program:?}: {answer}");
        }
    }
    // What stands behind no name, and a port that the service has not, are refused and not waited for.
    let payments = said(&captured.run("0", "bind9-dnsutils", &["dig", "+short", NAME]));
    let undeclared = format!("{}:4321", payments.trim());
    // Nor does the sidecar's own listener stand for anybody.
    for address in ["240.0.0.7:80", "[fd00:ea57::7]:80", &undeclared, "127.0.0.1:15001", "[::1]:15001"] {
        // The reset may come before its client has noticed that it is connected.
        if let Ok(mut wire) = Wire::try_to(address.parse().expect("an address")) {
            assert_eq!(wire.rest().0, b"", "{address}");
        }
    }

    captured.captures(&["remove"]);
    assert!(captured.captures(&["remove"]).contains("nothing was installed"));
    assert!(captured.zone(NOBODY, &[&format!("http://{NAME}/")]).is_err());
    let check = captured.capture(&["check"]);
    assert_eq!(check.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&check.stdout).contains("there is no table `inet eastway`"), "{check:?}");
    captured.captures(&["install"]);
    assert_eq!(captured.zone(NOBODY, &[&format!("http://{NAME}/")]).as_deref(), Ok("us-east/a"));
}

#[test]
fn names_are_called_by_whoever_knows_nothing_of_a_mesh_as_the_kernel_redirects_them() {
    names_are_called("");
}

#[test]
fn names_are_called_by_whoever_knows_nothing_of_a_mesh_with_their_destinations_left_as_they_are() {
    names_are_called("via: tproxy");
}

#[test]
fn rules_that_somebody_changed_or_that_are_not_ours_are_told_and_the_latter_left_alone() {
    let captured = Captured::start("");
    let nft = |rules: &str| said(&Command::new(required("nft", "nftables")).arg(rules).output().expect("it starts"));
    captured.captures(&["install"]);
    nft("add rule inet eastway eastway_taken tcp dport 99 accept");
    assert!(captured.captures(&["show"]).contains("changed by hand"));
    captured.captures(&["install"]);
    assert!(captured.captures(&["show"]).starts_with("installed, as configured"));
    let config = captured.lab.path(&format!("{}.yaml", captured.storefront.name));
    let text = std::fs::read_to_string(&config).expect("written");
    std::fs::write(&config, text.replace("capture: {  }", "capture: { exclude: { ports: [81] } }")).expect("writable");
    assert!(captured.captures(&["show"]).contains("another configuration"));
    captured.captures(&["remove"]);
    nft("add table inet eastway");
    let refused = captured.capture(&["install"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not ours"), "{refused:?}");
    assert!(!captured.capture(&["remove"]).status.success());
    nft("list table inet eastway");
    assert!(
        captured.captures(&["install", "--dry-run"]).contains("ip -4 route replace 240.0.0.0/4 dev lo src 127.0.0.1")
    );
}

#[test]
fn whose_connections_are_captured_can_be_said_by_user_group_and_control_group_and_without_it_they_go_where_they_go() {
    let captured = Captured::start(&format!("only: {{ users: ['{NOBODY}'] }}, exclude: {{ groups: ['4242'] }}"));
    captured.captures(&["install"]);
    let url = format!("http://{NAME}/");
    assert_eq!(captured.zone(NOBODY, &[&url]).as_deref(), Ok("us-east/a"));
    assert!(captured.zone("4343", &[&url]).is_err(), "another user's lead nowhere");
    let nobody =
        ["--reuid", NOBODY, "--regid", "4242", "--clear-groups", "curl", "-sS", "--fail", "--max-time", "5", &url];
    let setpriv = required("setpriv", "util-linux");
    let excluded = apart::resolving(captured.storefront.ip, "", captured.lab.folder(), &setpriv, &nobody);
    assert!(!excluded.status.success(), "{excluded:?}");

    let config = captured.lab.path(&format!("{}.yaml", captured.storefront.name));
    let text = std::fs::read_to_string(&config).expect("written");
    let group = format!("eastway-test-{}/app", std::process::id());
    let only = format!("only: {{ cgroups: ['{group}'] }}");
    std::fs::write(&config, text.replace(&format!("only: {{ users: ['{NOBODY}'] }}"), &only)).expect("writable");
    // nft(8) looks for it where it is by custom, which is not where it is on every machine.
    let (folder, eastway) = (format!("/sys/fs/cgroup/{group}"), eastway().display());
    let script = format!(
        "mount -t cgroup2 none /sys/fs/cgroup && mkdir -p {folder} && {eastway} sidecar capture install --config {}
         (echo 0 > {folder}/cgroup.procs && exec curl -sS --fail --max-time 5 {url})
         curl -sS --fail --max-time 5 {url} || echo left alone
         rmdir {folder} {}",
        config.display(),
        folder.trim_end_matches("/app"),
    );
    let script = ["sh", "-c", &script];
    let output = captured.run("0", "bash", &script);
    let printed = said(&output);
    assert!(printed.contains("us-east/a") && printed.ends_with("left alone\n"), "{output:?}");
}

/// Another host: a network namespace behind a cable, at 192.0.2.2, where this one is 192.0.2.1.
struct OtherHost {
    child: Child,
}

impl OtherHost {
    fn start() -> Self {
        let mut command = Command::new(required("unshare", "util-linux"));
        // It ends when its input does.
        command.args(["--net", "sh", "-c", "echo there; read _"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("it is there");
        ip(&format!("link add here type veth peer name there netns {}", child.id()));
        ip("addr add 192.0.2.1/24 dev here");
        ip("link set here up");
        let host = Self { child };
        for command in ["ip addr add 192.0.2.2/24 dev there", "ip link set there up", "ip link set lo up"] {
            said(&host.run(&command.split(' ').collect::<Vec<_>>()));
        }
        host
    }

    /// Runs a program there.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(required("nsenter", "util-linux"));
        command.args(["--net", "--target", &self.child.id().to_string(), "--"]).args(arguments);
        command.output().expect("it starts")
    }

    fn curl(&self, url: &str) -> Output {
        self.run(&["curl", "-sS", "--fail", "--max-time", "5", "--noproxy", "*", url])
    }
}

impl Drop for OtherHost {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A payments workload whose application takes connections from everywhere, and how its host captures.
fn exposed(capture: &str) -> (App, Lab, LabNode, PathBuf, OtherHost) {
    apart::network();
    let app = application();
    let other = OtherHost::start();
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Embedded);
    let ip = lab.host();
    let node = LabNode { name: "us-east-exposed".to_owned(), ip };
    let more = format!(
        "  service: payments\ninbound: {{ listen: '{ip}:15008', app: '127.0.0.1:8080' }}\nhealth: {{ tcp: {{}}, interval: 200ms }}\n{capture}"
    );
    let config = lab.configure("us-east", "a", &node, "payments", &more);
    lab.start_role("sidecar", &node.name);
    lab.wait_ready(&node);
    (app, lab, node, config, other)
}

fn application() -> App {
    App::start(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)), |mut connection| {
        if connection.request().is_some() {
            connection.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nyes");
        }
    })
}

#[test]
fn an_application_that_listens_everywhere_is_found_by_check_and_reached_through_its_sidecar_only_once_that_is_captured()
{
    let (_app, mut lab, _, config, other) = exposed("");
    let around = || other.curl("http://192.0.2.1:8080/");
    assert_eq!(said(&around()), "yes", "nothing is captured yet");
    let set = |capture: &str| {
        let text = std::fs::read_to_string(&config).expect("written");
        let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("capture:")).collect();
        std::fs::write(&config, format!("{}\n{capture}\n", without.join("\n"))).expect("writable");
    };
    set("capture: { unknown: deny, user: '4242' }");
    let found = capture(&config, &["check", "-o", "json"]);
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).expect("JSON");
    let kinds: Vec<&str> = found.as_array().expect("a list").iter().filter_map(|p| p["kind"].as_str()).collect();
    assert_eq!(kinds, ["not_installed", "reachable_around"], "{found}");
    set("capture: { inbound: { mode: strict } }");
    said(&capture(&config, &["install"]));
    let refused = around();
    assert_eq!(refused.status.code(), Some(7), "{refused:?}");
    assert_eq!(said(&capture(&config, &["check"])).trim(), "all is well");
    let storefront = lab.storefront("us-east", "a");
    eventually("it is reached through its sidecar", || {
        let answer = client::get(storefront.proxy(), "http://payments.shop.mesh.internal/")?;
        check(answer.body == b"yes", || format!("{answer:?}"))
    });
    // A sidecar that is not there leaves the rules as they are.
    lab.kill("us-east-exposed");
    assert!(!around().status.success());
    said(&capture(&config, &["remove"]));
    assert_eq!(said(&around()), "yes");
}

/// Callers in plain text are served, counted and told.
fn plain_callers_are_listed(via: &str) {
    let (_app, _lab, node, config, other) = exposed(&format!("capture: {{ {via} inbound: {{ mode: permissive }} }}\n"));
    said(&capture(&config, &["install"]));
    for _ in 0..3 {
        assert_eq!(said(&other.curl("http://192.0.2.1:8080/")), "yes");
    }
    let status = client::get(node.at(15000), "/status").expect("an answer").json();
    assert_eq!(status["plaintext"][0]["from"], "192.0.2.2", "{status}");
    assert_eq!((&status["plaintext"][0]["port"], &status["plaintext"][0]["connections"]), (&8080.into(), &3.into()));
    assert_eq!(status["problems"][0]["kind"], "plaintext_callers", "{status}");
    assert_eq!(node.metric("eastway_plaintext_connections_total", &[]), Ok(3.0));
    let told =
        Command::new(eastway()).args(["status", "--admin", &node.at(15000).to_string()]).output().expect("it starts");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("192.0.2.2 (port 8080, 3 times)"), "{told}");
    assert!(said(&capture(&config, &["check"])).contains("takes callers in plain text"));
    // Nobody is served at the sidecar's own port.
    assert!(!other.curl("http://192.0.2.1:15006/").status.success());
}

#[test]
fn callers_in_plain_text_are_let_through_and_listed_while_that_is_permitted() {
    plain_callers_are_listed("");
}

#[test]
fn callers_in_plain_text_are_let_through_with_their_destination_left_as_it_is() {
    plain_callers_are_listed("via: tproxy,");
}

#[test]
fn what_is_no_name_of_the_mesh_is_refused_where_that_is_wanted_and_what_is_excluded_is_not() {
    let captured = Captured::start("unknown: deny, user: '0', exclude: { ports: [81] }");
    let other = OtherHost::start();
    let curl = |port: u16| {
        let url = format!("http://192.0.2.2:{port}/");
        let output = captured.run(NOBODY, "curl", &["curl", "-sS", "--max-time", "5", &url]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    captured.captures(&["install"]);
    assert_eq!(captured.zone(NOBODY, &[&format!("http://{NAME}/")]).as_deref(), Ok("us-east/a"));
    // Both are refused: nobody listens there. But only one of them is asked.
    let asked = || {
        let nstat = other.run(&["cat", "/proc/net/snmp"]);
        let text = said(&nstat);
        let tcp: Vec<&str> = text.lines().filter(|line| line.starts_with("Tcp:")).collect();
        let column = tcp[0].split(' ').position(|name| name == "OutRsts").expect("Linux has it");
        tcp[1].split(' ').nth(column).expect("as many").parse::<u64>().expect("a number")
    };
    let before = asked();
    assert_eq!(curl(80).0, Some(7));
    assert_eq!(asked(), before, "the host itself refused it");
    assert_eq!(curl(81).0, Some(7));
    assert_eq!(asked(), before + 1, "excluded: the other host refused it");
    // The sidecar's own user goes where it wants.
    let root =
        Command::new("curl").args(["-sS", "--max-time", "5", "http://192.0.2.2:80/"]).output().expect("it starts");
    assert_eq!((root.status.code(), asked()), (Some(7), before + 2));
    assert!(captured.captures(&["show"]).contains("counter packets 1"), "{}", captured.captures(&["show"]));
}
