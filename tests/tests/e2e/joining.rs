//! Do clusters become peers by a token, by nothing else, and only as long as both want it?

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eastway_core::SpiffeId;
use eastway_identity::{Ca, Identity, IdentityFiles, IssueOptions, Overwrite, introducing_client};
use eastway_server::JOIN_ALPN;
use eastway_tests::caller::Caller;
use eastway_tests::lab::{Lab, LabNode, PAYMENTS, PAYMENTS_SPEC, StoreKind, reaches, service, trust_domain};
use eastway_tests::{check, eventually};
use eastway_transport::{Io, tcp, tls};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::applied::{Told, eastway};

/// Clusters that declare no peers, each with its gateway.
fn strangers(names: &[&str]) -> Lab {
    let mut lab = Lab::new();
    for name in names {
        lab.plan(name, StoreKind::Embedded, "").declare(name, &[service("payments", PAYMENTS_SPEC)]);
        lab.start_gateway(name);
    }
    lab
}

/// A token of the cluster, which imports what the other one has in the namespace shop.
fn token(of: &LabNode, ttl: &str) -> String {
    let told = eastway(&["peer", "token", "--ttl", ttl, "--imports", "shop/*", "--export-hint", "shop/*"], of, "");
    assert!(told.code == Some(0) && told.errors.contains("peer join TOKEN --imports 'shop/*'"), "{told:?}");
    let token = told.out.trim_end();
    assert!(token.starts_with("eastway-peer-1.") && !token.contains(char::is_whitespace), "{told:?}");
    token.to_owned()
}

fn join(by: &LabNode, token: &str) -> Told {
    eastway(&["peer", "join", "-", "--imports", "shop/*"], by, token)
}

fn joined(by: &LabNode, token: &str) {
    let told = join(by, token);
    assert!(told.code == Some(0) && told.out.contains("is a peer now"), "{told:?}");
    assert!(told.out.contains("\nimported of it: shop/*\n"), "{told:?}");
}

/// The peers of a gateway's cluster: name, origin, state.
fn peers(of: &LabNode) -> Vec<(String, String, String)> {
    let told = eastway(&["peer", "list", "-o", "json"], of, "");
    let peers: Value = serde_json::from_str(&told.out).unwrap_or_else(|error| panic!("{error}: {told:?}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = peers.as_array().expect("a list").iter();
    all.map(|peer| (text(&peer["cluster"]), text(&peer["origin"]), text(&peer["state"]))).collect()
}

fn row(cluster: &str, origin: &str, state: &str) -> (String, String, String) {
    (cluster.to_owned(), origin.to_owned(), state.to_owned())
}

fn become_peers(of: &LabNode, expected: &[(String, String, String)]) {
    eventually(&format!("{} has its peers", of.name), || {
        let peers = peers(of);
        check(peers == expected, || format!("{peers:?}"))
    });
}

/// What the files say that clusters are configured by.
fn files(lab: &Lab, clusters: &[&str]) -> Vec<Vec<u8>> {
    let names = clusters.iter().flat_map(|name| [format!("{name}-resources.yaml"), format!("{name}-gateway.yaml")]);
    names.map(|name| std::fs::read(lab.path(&name)).expect("written by the lab")).collect()
}

#[test]
fn clusters_become_peers_by_a_token_under_traffic_and_a_third_changes_no_file_of_the_others() {
    let mut lab = strangers(&["us-east", "eu-west"]);
    let (us, eu) = (lab.gateway("us-east"), lab.gateway("eu-west"));
    let near = lab.payments("us-east", "a", "payments-1");
    lab.payments("eu-west", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "us-east/a");
    let caller = Caller::start(storefront.proxy(), PAYMENTS);
    let before = files(&lab, &["us-east", "eu-west"]);

    joined(&eu, &token(&us, "1h"));
    become_peers(&us, &[row("eu-west", "token", "up")]);
    become_peers(&eu, &[row("us-east", "token", "up")]);
    let elsewhere = lab.storefront("eu-west", "b");
    eventually("us-east has what eu-west offers", || {
        let told = eastway(&["services"], &us, "");
        check(told.out.contains("eu-west"), || format!("{told:?}"))
    });
    caller.answers(20);
    lab.kill_workload(&near);
    reaches(storefront.proxy(), "eu-west/a");
    let tally = caller.finish_without_failure();
    assert!(tally.zones.contains_key("us-east/a") && tally.zones.contains_key("eu-west/a"), "{:?}", tally.zones);
    lab.restart_workload("us-east", "a", &near);
    reaches(storefront.proxy(), "us-east/a");
    reaches(elsewhere.proxy(), "eu-west/a");

    // The third: two commands, and nothing that belongs to the others is touched but by them.
    lab.plan("ap-south", StoreKind::Embedded, "").declare("ap-south", &[]);
    let ap = lab.start_gateway("ap-south");
    joined(&ap, &token(&us, "10m"));
    let far = lab.storefront("ap-south", "a");
    reaches(far.proxy(), "us-east/a");
    assert_eq!(peers(&eu).len(), 1);
    assert_eq!(files(&lab, &["us-east", "eu-west"]), before);

    // It is kept: a gateway that starts again has its peers.
    lab.kill(&eu.name);
    lab.start_gateway("eu-west");
    become_peers(&eu, &[row("us-east", "token", "up")]);
}

#[test]
fn a_token_that_is_cut_off_used_expired_withdrawn_or_of_another_ca_is_refused_with_what_to_do() {
    let mut lab = strangers(&["us-east", "eu-west", "ap-south"]);
    let (us, eu, ap) = (lab.gateway("us-east"), lab.gateway("eu-west"), lab.gateway("ap-south"));
    let refused = |by: &LabNode, token: &str, words: &str| {
        let told = join(by, token);
        assert!(told.code == Some(1) && told.errors.contains(words), "{words}: {told:?}");
        assert!(!told.errors.contains("panicked"), "{told:?}");
    };
    let first = token(&us, "1h");
    refused(&eu, &first[..first.len() - 20], "this token is not whole");
    refused(&eu, "hunter2", "this is no token");
    refused(&us, &first, "this cluster itself");
    assert!(peers(&us).is_empty() && peers(&eu).is_empty(), "nothing of that did anything");

    // The clock decides, and it is the issuer's.
    let brief = token(&us, "1s");
    let made = now();
    eventually("it has expired", || check(now() > made + Duration::from_secs(1), || "not yet".to_owned()));
    refused(&eu, &brief, "the token has expired");

    joined(&eu, &first);
    joined(&eu, &first);
    refused(&ap, &first, "the cluster eu-west has joined with it");
    assert_eq!(peers(&us).len(), 1);
    let log = lab.process(&us.name).log();
    assert!(log.contains("nobody joined by a token"), "{log}");
    assert!(!log.contains(&first[20..60]) && !lab.process(&eu.name).log().contains(&first[20..60]), "logged");

    let withdrawn = token(&us, "1h");
    let told = eastway(&["peer", "token", "--withdraw"], &us, "");
    assert!(told.code == Some(0) && told.out.contains("tokens ended"), "{told:?}");
    refused(&ap, &withdrawn, "it takes no token: all have expired or were withdrawn");

    // Another cluster stands at the address, with a CA of its own for the same name.
    let stolen = token(&us, "1h");
    lab.kill(&us.name);
    let another = Ca::create(&trust_domain("us-east"), Duration::from_secs(3_600)).expect("a CA");
    another.save(&lab.path("us-east-ca"), Overwrite::Force).expect("the lab's folder is writable");
    let id = SpiffeId::gateway(&trust_domain("us-east"), "gateway-1");
    lab.certify_with("us-east", &us.name, &another, &id, &IssueOptions::default());
    lab.start_gateway("us-east");
    refused(&ap, &stolen, "has another CA than the token says");
    lab.kill(&us.name);
    refused(&ap, &stolen, "Connection refused");
    assert!(peers(&ap).is_empty());
}

#[expect(clippy::disallowed_methods, reason = "tokens are valid by the wall clock")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

#[test]
fn a_peer_that_was_removed_is_told_so_says_it_in_status_and_may_join_again() {
    let mut lab = strangers(&["us-east", "eu-west"]);
    let (us, eu) = (lab.gateway("us-east"), lab.gateway("eu-west"));
    lab.payments("us-east", "a", "payments-1");
    joined(&eu, &token(&us, "1h"));
    let storefront = lab.storefront("eu-west", "a");
    reaches(storefront.proxy(), "us-east/a");

    let told = eastway(&["peer", "remove", "eu-west"], &us, "");
    assert!(told.code == Some(0) && told.out.starts_with("Peer eu-west deleted\n"), "{told:?}");
    eventually("eu-west says that it is refused", || {
        let told = eastway(&["status", "-o", "json"], &eu, "");
        check(told.code == Some(1) && told.out.contains("\"peer_refuses\""), || format!("{told:?}"))
    });
    eventually("it serves nothing any more", || {
        let answer = eastway_tests::client::get(storefront.proxy(), PAYMENTS)?;
        check(answer.status == 503, || format!("{answer:?}"))
    });
    let told = eastway(&["peer", "list"], &eu, "");
    assert!(told.out.contains("REFUSES"), "{told:?}");
    let told = eastway(&["peer", "remove", "us-east"], &eu, "");
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(peers(&eu).is_empty() && peers(&us).is_empty());
    let told = eastway(&["peer", "remove", "us-east"], &eu, "");
    assert!(told.code == Some(1) && told.errors.contains("`us-east` is no peer of this cluster"), "{told:?}");

    joined(&eu, &token(&us, "1h"));
    reaches(storefront.proxy(), "us-east/a");

    // What a file declares is ended there.
    eastway(&["peer", "remove", "us-east"], &eu, "");
    lab.declare("eu-west", &[lab.peer("us-east", "imports: ['shop/*']")]);
    lab.process(&eu.name).signal("HUP");
    eventually("the file counts", || {
        let told = eastway(&["peer", "remove", "us-east"], &eu, "");
        let refused = told.code == Some(1) && told.errors.contains("us-east is declared by");
        check(refused && told.errors.contains("eu-west-resources.yaml:1"), || format!("{told:?}"))
    });
    reaches(storefront.proxy(), "us-east/a");
}

/// What a stranger hears at the gateway: the bytes until it is hung up on, or why there is no session.
fn introduce(lab: &Lab, cluster: &str, name: &str, to: &LabNode) -> Result<Vec<u8>, String> {
    let files = IdentityFiles {
        certificate: lab.identities(cluster).join(format!("{name}.crt")),
        key: lab.identities(cluster).join(format!("{name}.key")),
        bundle: lab.path(&format!("{cluster}-ca")).join("ca.crt"),
    };
    let identity = Identity::load(&files).expect("an identity");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let tcp = tcp::dial(to.at(15443), &tcp::DialOptions::default()).await.map_err(|error| error.to_string())?;
        let tls = introducing_client(&identity, &[JOIN_ALPN]);
        let mut io = tls::connect(Io::from(tcp), tls).await.map_err(|error| format!("{error:?}"))?;
        let mut heard = Vec::new();
        match io.read_to_end(&mut heard).await {
            Err(error) if heard.is_empty() => Err(error.to_string()),
            _ => Ok(heard),
        }
    })
}

#[test]
fn who_is_no_peer_is_heard_only_while_there_is_a_token_and_hung_up_on_when_it_says_nothing() {
    let lab = strangers(&["us-east", "eu-west"]);
    let (us, eu) = (lab.gateway("us-east"), lab.gateway("eu-west"));
    let refused = introduce(&lab, "eu-west", &eu.name, &us).expect_err("there is no token");
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    let token = token(&us, "1h");
    let heard = introduce(&lab, "eu-west", &eu.name, &us).expect("introduced");
    assert!(!heard.is_empty() && heard.len() < 4096, "its CA, which is no secret: {} bytes", heard.len());
    lab.certify("eu-west", "posing", "eu-west", &SpiffeId::workload(&trust_domain("eu-west"), "shop", "storefront"));
    introduce(&lab, "eu-west", "posing", &us).expect_err("a workload is no gateway");
    joined(&eu, &token);
}

/// The addresses of `cluster` that the gateway is connected to and that answer.
fn up(of: &LabNode, cluster: &str) -> Result<Vec<String>, String> {
    let told = eastway(&["peers", "-o", "json"], of, "");
    let peers: Value = serde_json::from_str(&told.out).map_err(|error| format!("{error}: {told:?}"))?;
    let peer = peers.as_array().into_iter().flatten().find(|peer| peer["cluster"] == cluster);
    let paths = peer.and_then(|peer| peer["paths"].as_array()).ok_or_else(|| format!("{told:?}"))?;
    let up = paths.iter().filter(|path| path["state"] == "up").filter_map(|path| path["address"].as_str());
    let mut up: Vec<String> = up.map(str::to_owned).collect();
    up.sort_unstable();
    Ok(up)
}

fn reaches_at(of: &LabNode, cluster: &str, gateways: &[&LabNode]) {
    let mut expected: Vec<String> = gateways.iter().map(|gateway| gateway.at(15443).to_string()).collect();
    expected.sort_unstable();
    eventually(&format!("{} is connected to {expected:?}", of.name), || {
        let up = up(of, cluster)?;
        check(up == expected, || format!("{up:?}"))
    });
}

#[test]
fn gateways_of_a_peer_that_are_added_or_move_are_followed() {
    let mut lab = strangers(&["us-east"]);
    lab.plan("eu-west", StoreKind::Etcd, "").declare("eu-west", &[service("payments", PAYMENTS_SPEC)]);
    let (us, eu) = (lab.gateway("us-east"), lab.start_gateway("eu-west"));
    joined(&eu, &token(&us, "1h"));
    reaches_at(&us, "eu-west", &[&eu]);

    // The only gateway of a cluster moves: nobody but itself can say so.
    let former = us;
    let us = lab.move_gateway("us-east");
    assert_ne!(us.ip, former.ip);
    reaches_at(&eu, "us-east", &[&us]);

    let second = lab.start_sibling("eu-west");
    reaches_at(&us, "eu-west", &[&eu, &second]);
    reaches_at(&second, "us-east", &[&us]);

    // One of two moves: the other says so, too.
    let moved = lab.move_gateway("eu-west");
    reaches_at(&us, "eu-west", &[&moved, &second]);
    reaches_at(&moved, "us-east", &[&us]);
    lab.payments("eu-west", "a", "payments-1");
    let storefront = lab.storefront("us-east", "a");
    reaches(storefront.proxy(), "eu-west/a");
}
