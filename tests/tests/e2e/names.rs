//! Names of the mesh by DNS: clients that know nothing of it call services by name, and nothing is set but the resolver.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Output;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eastway_tests::apps::{App, Connection};
use eastway_tests::lab::{Lab, LabNode, PAYMENTS_SPEC, StoreKind, reaches, service};
use eastway_tests::process::{eastway, required};
use eastway_tests::wire::Wire;
use eastway_tests::{apart, check, client, eventually};

const NAME: &str = "payments.shop.mesh.internal";

/// Two clusters, and a caller's sidecar in us-east that answers for names.
struct Named {
    lab: Lab,
    storefront: LabNode,
}

impl Named {
    /// Payments runs in both clusters. `upstreams` are the servers for other names.
    fn start(upstreams: &[SocketAddr]) -> Self {
        if upstreams.is_empty() {
            apart::network();
        }
        let mut lab = Lab::new();
        lab.clusters(&["us-east", "eu-west"], StoreKind::Embedded);
        lab.payments("us-east", "a", "payments-1");
        lab.payments("eu-west", "a", "payments-2");
        let storefront = Self::storefront(&mut lab, upstreams);
        reaches(storefront.proxy(), "us-east/a");
        eventually("eu-west is known to offer it", || {
            let answer = client::get(storefront.proxy(), "http://payments.shop.eu-west.mesh.internal/")?;
            check(answer.status == 200, || format!("{answer:?}"))
        });
        Self { lab, storefront }
    }

    /// A caller's sidecar that answers for names at port 53.
    fn storefront(lab: &mut Lab, upstreams: &[SocketAddr]) -> LabNode {
        let ip = lab.host();
        let node = LabNode { name: format!("us-east-named-{}", ip.octets()[3]), ip };
        let upstreams: Vec<String> = upstreams.iter().map(|server| format!("'{server}'")).collect();
        let upstreams = if upstreams.is_empty() { "'127.0.0.1:9'".to_owned() } else { upstreams.join(", ") };
        let dns = format!("dns: {{ listen: '{ip}:53', upstreams: [{upstreams}] }}\n");
        lab.configure("us-east", "a", &node, "storefront", &dns);
        lab.start_role("sidecar", &node.name);
        lab.wait_ready(&node);
        node
    }

    fn run(&self, package: &str, arguments: &[&str]) -> Output {
        let (program, arguments) = arguments.split_first().expect("a program");
        apart::resolving(self.storefront.ip, "", self.lab.folder(), &required(program, package), arguments)
    }

    /// What a program prints that calls a service by name; it must end well.
    fn prints(&self, package: &str, arguments: &[&str]) -> String {
        let output = self.run(package, arguments);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {words}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What dig says, in its own words; with `more` of its options.
    fn dig(&self, more: &[&str]) -> String {
        dig(self.storefront.ip, more)
    }

    /// The address of a name.
    fn address(&self, name: &str) -> Ipv4Addr {
        address(self.storefront.ip, name)
    }
}

fn dig(server: Ipv4Addr, more: &[&str]) -> String {
    let dig = required("dig", "bind9-dnsutils");
    let mut command = std::process::Command::new(dig);
    let server = format!("@{server}");
    command.args(["+noall", "+comments", "+answer", "+authority", "+additional", "+tries=1", "+time=4", &server]);
    let output = command.args(more).output().expect("it starts");
    // It aligns its columns by tabs and spaces.
    let lines = String::from_utf8_lossy(&output.stdout);
    lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

fn address(server: Ipv4Addr, name: &str) -> Ipv4Addr {
    eventually(&format!("{name} has an address"), || {
        let said = dig(server, &["+short", name]);
        said.trim().parse().map_err(|_| format!("{said} {}", dig(server, &[name])))
    })
}

/// Who answered, as the sample application says.
fn zone(answer: &str) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_str(answer).ok()?;
    Some(answer["zone"].as_str()?.to_owned())
}

#[test]
fn clients_that_nobody_here_wrote_call_services_by_name_with_nothing_set() {
    let named = Named::start(&[]);
    for (host, from) in [
        ("payments.shop.mesh.internal", "us-east/a"),
        ("payments.shop.eu-west.mesh.internal", "eu-west/a"),
        ("payments.shop.us-east.mesh.internal", "us-east/a"),
        ("payments.shop.svc.clusterset.local", "us-east/a"),
        ("Payments.Shop.Mesh.Internal.", "us-east/a"),
    ] {
        let url = format!("http://{host}/");
        let python = format!("import urllib.request as r; print(r.urlopen('{url}', timeout=5).read().decode())");
        for (package, program) in [
            ("curl", &["curl", "-sS", "--fail", "--max-time", "5", &url][..]),
            ("wget", &["wget", "-q", "-T", "5", "-O", "-", &url]),
            ("python3", &["python3", "-c", &python]),
        ] {
            let answer = named.prints(package, program);
            assert_eq!(zone(&answer).as_deref(), Some(from), "{program:?}: {answer}");
        }
    }
    let gone = named.run("curl", &["curl", "-sS", "--max-time", "5", "http://nobody.shop.mesh.internal/"]);
    assert_eq!(gone.status.code(), Some(6), "could not resolve host: {gone:?}");
}

#[test]
fn a_search_domain_makes_names_short_and_they_are_answered_for_all_the_same() {
    let nobody = Upstream::start();
    let named = Named::start(&[nobody.address]);
    let curl = required("curl", "curl");
    let run = |url: &str| {
        let arguments = ["-sS", "--fail", "--max-time", "5", url];
        apart::resolving(named.storefront.ip, "search mesh.internal", named.lab.folder(), &curl, &arguments)
    };
    let answer = run("http://payments.shop.eu-west/");
    assert_eq!(zone(&String::from_utf8_lossy(&answer.stdout)).as_deref(), Some("eu-west/a"), "{answer:?}");
}

#[test]
fn answers_are_as_the_protocol_wants_them() {
    let named = Named::start(&[]);
    let has = |said: &str, all: &[&str]| {
        for word in all {
            assert!(said.contains(word), "{word} in {said}");
        }
    };
    let address = named.address(NAME);
    assert_eq!(address.octets()[0], 127);
    assert!((64..128).contains(&address.octets()[1]), "{address}");
    // Case is kept, as who mixes it to detect forgeries wants; over TCP and with EDNS it is the same.
    for way in ["+notcp", "+tcp", "+noedns", "+edns=0"] {
        let said = named.dig(&[way, "pAyMeNtS.sHoP.mesh.INTERNAL"]);
        has(
            &said,
            &["status: NOERROR", "flags: qr aa rd ra", "pAyMeNtS.sHoP.mesh.INTERNAL. 5 IN A", &address.to_string()],
        );
    }
    has(&named.dig(&["+edns=1", "+noednsneg", NAME]), &["status: BADVERS"]);
    // It has no other addresses, which is not that it does not exist.
    for kind in ["AAAA", "TXT", "HTTPS", "MX"] {
        let said = named.dig(&[NAME, kind]);
        has(&said, &["status: NOERROR", "ANSWER: 0", "mesh.internal. 1 IN SOA"]);
    }
    for above in ["mesh.internal", "shop.mesh.internal", "eu-west.mesh.internal", "shop.eu-west.mesh.internal"] {
        has(&named.dig(&[above]), &["status: NOERROR", "ANSWER: 0", "SOA"]);
    }
    for nothing in [
        "nobody.shop.mesh.internal",
        "payments.shop.mars.mesh.internal",
        "a.b.c.d.mesh.internal",
        "payments.shop.mesh.internal.corp.example",
    ] {
        has(&named.dig(&[nothing]), &["status: NXDOMAIN", "SOA"]);
    }
    let ports = named.dig(&["payments.shop.eu-west.mesh.internal", "SRV"]);
    has(
        &ports,
        &["SRV 0 1 80 payments.shop.eu-west.mesh.internal.", "SRV 0 1 9000 payments.shop.eu-west.mesh.internal."],
    );
    has(&ports, &["ADDITIONAL", "payments.shop.eu-west.mesh.internal. 5 IN A 127."]);
    let tcp = named.dig(&["_tcp._tcp.payments.shop.mesh.internal", "SRV"]);
    has(&tcp, &["ANSWER: 1", "SRV 0 1 9000 payments.shop.mesh.internal."]);
    has(&named.dig(&["mesh.internal", "AXFR", "+tcp"]), &["Transfer failed"]);
}

#[test]
fn whatever_a_port_speaks_is_served_at_the_names_address() {
    apart::network();
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, "");
    lab.declare("us-east", &[service("payments", PAYMENTS_SPEC)]);
    lab.start_gateway("us-east");
    let ip = lab.host();
    // A server that speaks first, as databases do.
    let _app = App::start((ip, 8080).into(), |mut connection| {
        connection.wire.send("who is there?\n");
        if let Ok(line) = connection.wire.until("\n") {
            connection.wire.send(format!("hello, {line}"));
        }
    });
    lab.beside("us-east", "a", ip, "");
    let storefront = Named::storefront(&mut lab, &[]);
    let address = address(storefront.ip, NAME);
    eventually("the server speaks first", || {
        let mut wire = Wire::try_to((address, 9000).into()).map_err(|error| error.to_string())?;
        let greeting = wire.until("\n")?;
        wire.send("a client\n");
        let (rest, _) = wire.rest();
        let said = String::from_utf8_lossy(&rest).into_owned();
        check(greeting == "who is there?\n" && said == "hello, a client\n", || format!("{greeting}{said}"))
    });
    // No such port: nobody listens there.
    assert!(Wire::try_to((address, 9001).into()).is_err());
}

/// A port of which nobody says what is spoken there: the application says so by what it does.
struct Undeclared {
    lab: Lab,
    storefront: LabNode,
    address: SocketAddr,
}

impl Undeclared {
    /// Payments, and `ledger`, at port 7000 of whose names anything may be spoken.
    fn start(handle: impl Fn(Connection) + Send + Sync + 'static) -> (Self, App) {
        apart::network();
        let mut lab = Lab::new();
        lab.plan("us-east", StoreKind::Embedded, "");
        let spec = "ports: [{ port: 80 }, { port: 7000, protocol: auto }]";
        lab.declare("us-east", &[service("payments", spec), service("ledger", spec)]);
        lab.start_gateway("us-east");
        let ip = lab.host();
        let app = App::start((ip, 8080).into(), handle);
        lab.beside("us-east", "a", ip, "");
        let storefront = Named::storefront(&mut lab, &[]);
        let address = (address(storefront.ip, NAME), 7000).into();
        (Self { lab, storefront, address }, app)
    }

    /// What was found to be spoken at the port.
    fn found(&self) -> serde_json::Value {
        let status = client::get(self.storefront.at(15000), "/status").expect("an answer").json();
        let ports = status["names"][0]["ports"].as_array().expect("ports").clone();
        ports.into_iter().find(|port| port["port"] == 7000).expect("the port")["found"].clone()
    }

    /// Sends `say` once the service takes connections, and what comes.
    fn said(&self, say: &str) -> String {
        eventually("the service answers", || {
            let mut wire = Wire::try_to(self.address).map_err(|error| error.to_string())?;
            wire.send(say);
            let (came, end) = wire.rest();
            check(!came.is_empty(), || format!("{end:?}"))?;
            Ok(String::from_utf8_lossy(&came).into_owned())
        })
    }
}

fn answering(mut connection: Connection) {
    while let Some(head) = connection.request() {
        let source = head.lines().find(|line| line.starts_with("eastway-source")).unwrap_or("nobody").to_owned();
        connection.wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{source}", source.len()));
    }
}

#[test]
fn http_is_found_where_nobody_declares_it_and_callers_are_who_they_are_whatever_they_do() {
    let (undeclared, _app) = Undeclared::start(answering);
    let request = format!("GET / HTTP/1.1\r\nhost: {NAME}:7000\r\neastway-source: forged\r\nconnection: close\r\n\r\n");
    let answer = undeclared.said(&request);
    let verified = "eastway-source: spiffe://us-east.mesh.internal/ns/shop/sa/storefront";
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(verified), "{answer}");
    assert_eq!(undeclared.found(), "http");
    // A client that waits to be taken for something else, and one that opens a stream of bytes.
    let mut wire = Wire::to(undeclared.address);
    assert!(!wire.is_readable_within(Duration::from_millis(300)));
    wire.send(&request);
    let (came, _) = wire.rest();
    assert!(String::from_utf8_lossy(&came).ends_with(verified), "{}", String::from_utf8_lossy(&came));
    assert_eq!(undeclared.found(), "serverFirst", "as far as anybody could tell");
    let mut wire = Wire::to(undeclared.storefront.proxy());
    wire.send(format!("CONNECT {NAME}:7000 HTTP/1.1\r\nhost: {NAME}:7000\r\n\r\n"));
    assert!(wire.head().starts_with("HTTP/1.1 200"));
    wire.send(&request);
    let (came, _) = wire.rest();
    assert!(String::from_utf8_lossy(&came).ends_with(verified), "{}", String::from_utf8_lossy(&came));
}

#[test]
fn a_server_that_speaks_first_is_not_held_up_where_nobody_declares_it() {
    let (undeclared, _app) = Undeclared::start(|mut connection| {
        connection.wire.send("who is there?\n");
        if let Ok(line) = connection.wire.until("\n") {
            connection.wire.send(format!("hello, {line}"));
        }
    });
    for _ in 0..2 {
        let mut wire = eventually("it takes a connection", || {
            let mut wire = Wire::try_to(undeclared.address).map_err(|error| error.to_string())?;
            check(wire.until("\n")? == "who is there?\n", || "something else".to_owned()).map(|()| wire)
        });
        wire.send("a client\n");
        assert_eq!(wire.until("\n").as_deref(), Ok("hello, a client\n"));
    }
    assert_eq!(undeclared.found(), "serverFirst");
}

#[test]
fn what_is_neither_http_nor_tls_passes_where_nobody_declares_it() {
    let (undeclared, _app) = Undeclared::start(|mut connection| {
        if let Ok(line) = connection.wire.until("\r\n") {
            connection.wire.send(format!("you said {line}"));
        }
    });
    assert_eq!(undeclared.said("*1\r\n$4\r\nPING\r\n"), "you said *1\r\n");
    assert_eq!(undeclared.found(), "opaque");
}

#[test]
fn tls_is_passed_through_untouched_to_the_service_that_it_names() {
    let first = |name: &'static str| {
        move |mut connection: Connection| {
            // A handshake record, of the client's making: its bytes are as they were sent.
            if let Ok(head) = connection.wire.exactly(5) {
                let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
                let rest = connection.wire.exactly(length).unwrap_or_default();
                let hello = String::from_utf8_lossy(&rest).into_owned();
                let asked = ["ledger.shop", "payments.shop"].into_iter().find(|asked| hello.contains(asked));
                connection.note(&format!("{name} is asked for {}", asked.unwrap_or("nobody")));
            }
        }
    };
    let (mut undeclared, payments) = Undeclared::start(first("payments"));
    let ip = undeclared.lab.host();
    let ledger = App::start((ip, 8080).into(), first("ledger"));
    undeclared.lab.workload_of("us-east", "a", "ledger", ip);
    let asks = |name: &str, app: &App, seen: &str| {
        let url = format!("https://{name}:7000/");
        let to = format!("{name}:7000:{}", undeclared.address.ip());
        eventually("the service is asked", || {
            let curl = ["curl", "-sS", "-k", "--noproxy", "*", "--max-time", "5", "--resolve", &to, &url];
            let mut command = std::process::Command::new(required("curl", "curl"));
            let _ = command.args(&curl[1..]).output().expect("it starts");
            check(app.seen().iter().any(|line| line == seen), || format!("{:?}", app.seen()))
        });
    };
    asks(NAME, &payments, "payments is asked for payments.shop");
    assert_eq!(undeclared.found(), "tls");
    // The same address, and another name in the handshake.
    asks("ledger.shop.mesh.internal", &ledger, "ledger is asked for ledger.shop");
}

#[test]
fn a_name_has_one_address_everywhere_and_keeps_it_through_restarts_and_without_a_gateway() {
    let Named { mut lab, storefront } = Named::start(&[]);
    let names = [NAME, "payments.shop.eu-west.mesh.internal", "payments.shop.us-east.mesh.internal"];
    let known = |node: &LabNode| names.map(|name| address(node.ip, name));
    let first = known(&storefront);
    assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2], "{first:?}");
    let another = Named::storefront(&mut lab, &[]);
    assert_eq!(known(&another), first);
    lab.take(&another.name).terminate();

    // A client that has looked it up once and for all.
    let calls = |lab: &Lab, when: &str| {
        eventually(when, || {
            let url = format!("http://{}/", first[0]);
            let answer = client::get((first[0], 80).into(), &url)?;
            check(answer.status == 200, || format!("{answer:?} in {}", lab.folder().display()))
        });
    };
    calls(&lab, "at the address");
    let gateway = lab.gateway("us-east");
    lab.take(&gateway.name).terminate();
    lab.start_role("gateway", &gateway.name);
    lab.wait_ready(&gateway);
    assert_eq!(known(&storefront), first);

    lab.take(&gateway.name).terminate();
    assert_eq!(known(&storefront), first);
    calls(&lab, "without a gateway");
    lab.take(&storefront.name).terminate();
    lab.start_role("sidecar", &storefront.name);
    // Nobody asks for the name: the client has the address.
    calls(&lab, "after a restart without a gateway");
    assert_eq!(known(&storefront), first);
}

#[test]
fn a_service_that_is_offered_is_found_within_a_second_and_one_without_endpoints_says_why() {
    apart::network();
    let mut lab = Lab::new();
    lab.plan("us-east", StoreKind::Embedded, "");
    lab.declare("us-east", &[]);
    let gateway = lab.start_gateway("us-east");
    let storefront = Named::storefront(&mut lab, &[]);
    let ledger = "ledger.shop.mesh.internal";
    assert!(dig(storefront.ip, &[ledger]).contains("NXDOMAIN"));
    lab.declare("us-east", &[service("ledger", "ports: [{ port: 80 }]")]);
    lab.process(&gateway.name).signal("HUP");
    let address = address(storefront.ip, ledger);
    let answer = client::get((address, 80).into(), &format!("http://{ledger}/")).expect("an answer");
    assert_eq!((answer.status, answer.reason()), (503, Some("no_ready_endpoint")), "{answer:?}");
}

/// A server for other names, which knows that everything below `example.com` is at 192.0.2.1, and what it was asked for.
struct Upstream {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    /// On a network of the test's own.
    fn start() -> Self {
        apart::network();
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (address, heard) = (socket.local_addr().expect("bound"), Arc::clone(&asked));
        std::thread::spawn(move || {
            let mut packet = [0; 1_500];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                let question = &packet[12..length];
                let (name, end) = name(question);
                let known = name.ends_with("example.com");
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                let mut answer = packet[..2].to_vec();
                // An answer or NXDOMAIN, recursion available; one question, one answer or none.
                answer.extend(if known {
                    [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]
                } else {
                    [0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0]
                });
                answer.extend(&question[..end + 4]);
                if known {
                    // The name as it was asked for, A, IN, for a minute.
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
                }
                let _ = socket.send_to(&answer, from);
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The name in a question, in lower case, and where it ends.
fn name(question: &[u8]) -> (String, usize) {
    let (mut labels, mut at) = (Vec::new(), 0);
    while question[at] > 0 {
        let length = usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..=at + length]).to_lowercase());
        at += length + 1;
    }
    (labels.join("."), at + 1)
}

#[test]
fn other_names_are_asked_of_other_servers_and_names_of_the_mesh_never_are() {
    let upstream = Upstream::start();
    // Nobody is at the first.
    let dead = (Ipv4Addr::new(127, 9, 9, 8), 53).into();
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Embedded);
    lab.payments("us-east", "a", "payments-1");
    let storefront = Named::storefront(&mut lab, &[dead, upstream.address]);
    address(storefront.ip, NAME);
    let asks = || {
        let said = dig(storefront.ip, &["www.example.com"]);
        assert!(said.contains("192.0.2.1") && said.contains("status: NOERROR"), "{said}");
    };
    asks();
    // Perhaps more than once, on a slow machine.
    let first = upstream.asked();
    assert!(!first.is_empty() && first.iter().all(|name| name == "www.example.com"), "{first:?}");
    asks();
    asks();
    assert_eq!(upstream.asked(), first, "kept for as long as it says");
    for name in [
        NAME,
        "nobody.shop.mesh.internal",
        "payments.shop.mesh.internal.corp.example",
        "a.b.svc.clusterset.local.cluster.local",
        "_http._tcp.payments.shop.mesh.internal",
        "shop.mesh.internal",
    ] {
        dig(storefront.ip, &[name]);
        dig(storefront.ip, &[name, "AAAA"]);
    }
    assert_eq!(upstream.asked(), first);
    // The gateway's absence is none of their business.
    let gateway = lab.gateway("us-east");
    lab.take(&gateway.name).terminate();
    assert!(dig(storefront.ip, &["other.example.com"]).contains("192.0.2.1"));
}

#[test]
fn the_hosts_resolver_is_set_to_ask_the_sidecar_and_back() {
    let upstream = Upstream::start();
    let named = Named::start(&[upstream.address]);
    let (node, folder) = (&named.storefront.name, named.lab.folder());
    let before = "# by hand\nnameserver 192.0.2.53\noptions timeout:1 attempts:1\n";
    let file = named.lab.write("resolv.conf", before);
    let (eastway, curl) = (eastway().display().to_string(), required("curl", "curl").display().to_string());
    let config = folder.join(format!("{node}.yaml"));
    let script = format!(
        "set -e; cp /etc/resolv.conf /tmp/before-$$; {eastway} sidecar dns install --config {}; {eastway} sidecar dns show; \
         {curl} -sS --fail --max-time 5 http://payments.shop.eu-west.mesh.internal/; \
         {eastway} sidecar dns remove; cmp /etc/resolv.conf /tmp/before-$$; test ! -e /etc/resolv.conf.before-eastway; \
         rm /tmp/before-$$; {eastway} sidecar dns show",
        config.display()
    );
    let output = apart::with_resolv_conf(&file, &script);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    for word in
        ["installed (resolv.conf)", &format!("nameserver {}", named.storefront.ip), "eu-west/a", "not installed"]
    {
        assert!(said.contains(word), "{word} in {said}");
    }
}
