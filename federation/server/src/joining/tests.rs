//! Clusters that become peers by a token, over real TLS in memory: what completes, what is refused and with which words.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eastway_core::SpiffeId;
use eastway_identity::{Ca, Expected, client_config, introducing_client};
use eastway_proto::federation::v1::{Introduction, JoinRequest, JoinResponse, join_response};
use eastway_registry::Resources;
use eastway_transport::Io;
use tokio::time::Instant;

use super::*;
use crate::Server;
use crate::store::keys;
use crate::testing::{Gateway, Wan, eventually, identity};

fn new(ttl_seconds: u64) -> NewToken {
    NewToken { ttl_seconds, imports: vec!["shop/*".to_owned()], offers: vec!["bank/*".to_owned()] }
}

async fn token(of: &Gateway) -> String {
    of.running().joining().issue(&new(60), "ann").await.expect("issued").token
}

async fn join(by: &Gateway, token: &str) -> Result<Joined, NotJoined> {
    by.running().joining().join(token, Some(&["shop/*".to_owned()]), "bob").await
}

/// Clusters without peers, each with a gateway on one network.
async fn clusters<const N: usize>(names: [&'static str; N]) -> (Arc<Wan>, [Gateway; N]) {
    let wan = Arc::<Wan>::default();
    let mut all = Vec::new();
    for name in names {
        let gateway = wan.gateway(name, Resources::default()).await;
        gateway.run().await;
        all.push(gateway);
    }
    (wan, all.try_into().unwrap_or_else(|_| panic!("as many as names")))
}

fn peers(server: &Server) -> Vec<(String, Vec<String>)> {
    server.hub().read(|catalogue, _| {
        let peers = catalogue.resources().peers.iter();
        peers.map(|(name, policy)| (name.clone(), policy.peer.imports.clone())).collect()
    })
}

fn owner(server: &Server, name: &str) -> Option<String> {
    server.resources().into_iter().find(|one| one.id.name == name).map(|one| one.owner)
}

fn shop() -> Vec<String> {
    vec!["shop/*".to_owned()]
}

#[tokio::test(start_paused = true)]
async fn two_clusters_become_peers_by_a_token_and_a_third_changes_nothing_at_the_others() {
    let (_wan, [us, eu, ap]) = clusters(["us-east", "eu-west", "ap-south"]).await;
    let issued = us.running().joining().issue(&new(60), "ann").await.expect("issued");
    assert_eq!(issued.gateways, ["gw-1.us-east:15443"]);
    let joined = join(&eu, &issued.token).await.expect("joined");
    assert_eq!(
        (joined.cluster.as_str(), &joined.imports, &joined.offers),
        ("us-east", &shop(), &vec!["bank/*".to_owned()])
    );
    assert_eq!(peers(&us.running()), [("eu-west".to_owned(), shop())]);
    assert_eq!(peers(&eu.running()), [("us-east".to_owned(), shop())]);
    assert_eq!(owner(&us.running(), "eu-west").as_deref(), Some("token"));
    assert_eq!(owner(&eu.running(), "us-east").as_deref(), Some("token"));
    let generation = us.running().generations().pop().expect("one").by;
    assert_eq!(generation, "token of ann");

    let before = eu.running().resources().len();
    join(&ap, &token(&us).await).await.expect("joined");
    assert_eq!(peers(&us.running()).len(), 2);
    assert_eq!((eu.running().resources().len(), eu.running().generations().len()), (before, 1));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_good_for_one_cluster_which_may_repeat_it() {
    let (_wan, [us, eu, ap]) = clusters(["us-east", "eu-west", "ap-south"]).await;
    let token = token(&us).await;
    join(&eu, &token).await.expect("joined");
    // As if the answer had been lost, and what was stored here with it.
    eu.running().joining().remove("us-east", "bob").await.expect("removed");
    let joined = join(&eu, &token).await.expect("the same cluster completes");
    assert_eq!((joined.imports, peers(&us.running()).len()), (shop(), 1));
    let error = join(&ap, &token).await.expect_err("used").to_string();
    assert!(error.contains("eu-west has joined with it") && error.contains("make a new one by"), "{error}");
    assert!(peers(&ap.running()).is_empty() && peers(&us.running()).len() == 1);
    // Another cluster of the same name has another CA, and is another user.
    let (_elsewhere, [impostor]) = clusters(["eu-west"]).await;
    let bundle = bundle_hash(std::slice::from_ref(impostor.ca.certificate()));
    let error = known_as(us.running().hub(), ("eu-west", "eu-west.mesh.internal"), &bundle).expect_err("another CA");
    assert!(error.contains("eastway peer remove eu-west"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn one_of_two_that_use_a_token_at_once_joins() {
    let (_wan, [us, eu, ap]) = clusters(["us-east", "eu-west", "ap-south"]).await;
    let token = token(&us).await;
    let (one, two) = tokio::join!(join(&eu, &token), join(&ap, &token));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert_eq!(peers(&us.running()).len(), 1);
}

/// A wall clock that tests move; only this one uses it.
static CLOCK: AtomicU64 = AtomicU64::new(1_800_000_000_000);

fn clock() -> u64 {
    CLOCK.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_refused_by_the_issuers_clock_and_forgotten() {
    let wan = Arc::<Wan>::default();
    let mut us = wan.gateway("us-east", Resources::default()).await;
    us.options.wall_clock = clock;
    us.run().await;
    let eu = wan.gateway("eu-west", Resources::default()).await;
    eu.run().await;
    let (old, valid) = (token(&us).await, us.running().joining().issue(&new(3600), "ann").await.expect("issued"));
    assert!(us.running().joining().is_open());
    CLOCK.fetch_add(61_000, Ordering::Relaxed);
    let error = join(&eu, &old).await.expect_err("expired").to_string();
    assert!(error.contains("us-east refuses: the token has expired"), "{error}");
    assert!(
        error.contains("its clock and this gateway's differ by"),
        "the joiner's clock is that of the machine: {error}"
    );
    let stored = async || us.store.list(keys::TOKENS).await.expect("listed").entries.len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stored().await, 1, "what has expired goes");
    join(&eu, &valid.token).await.expect("joined");
    CLOCK.fetch_add(3_600_000, Ordering::Relaxed);
    assert!(!us.running().joining().is_open(), "nobody may introduce itself any more");
    let error = join(&eu, &valid.token).await.expect_err("closed").to_string();
    assert!(error.contains("no gateway of us-east could be asked: gw-1.us-east:15443 ("), "{error}");
}

#[tokio::test(start_paused = true)]
async fn tokens_are_bounded_in_number_and_time_and_can_be_withdrawn() {
    let (_wan, [us, eu]) = clusters(["us-east", "eu-west"]).await;
    let joining = us.running();
    let joining = joining.joining();
    for seconds in [0, 8 * 24 * 3600] {
        assert!(matches!(joining.issue(&new(seconds), "ann").await, Err(NotIssued::Ttl(_))), "{seconds}");
    }
    let odd = NewToken { imports: vec!["shop".to_owned()], ..new(60) };
    assert!(matches!(joining.issue(&odd, "ann").await, Err(NotIssued::Rule(rule)) if rule == "shop"));
    let mut last = String::new();
    for _ in 0..16 {
        last = token(&us).await;
    }
    assert!(matches!(joining.issue(&new(60), "ann").await, Err(NotIssued::TooMany(16))));
    for entry in us.store.list(keys::TOKENS).await.expect("listed").entries {
        let secret = text::Token::read(&last).expect("whole").secret;
        let text = format!("{} {}", entry.key, String::from_utf8_lossy(&entry.value));
        assert!(!text.contains(&data_encoding::HEXLOWER.encode(&*secret)), "the store holds a hash only");
    }
    assert_eq!(joining.withdraw().await.expect("withdrawn"), 16);
    assert!(!joining.is_open() && join(&eu, &last).await.is_err());
    token(&us).await;
    let error = join(&eu, &last).await.expect_err("withdrawn").to_string();
    assert!(error.contains("no such token is known here"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_with_another_ca_than_the_token_says_is_not_told_the_secret() {
    let (wan, [us, eu]) = clusters(["us-east", "eu-west"]).await;
    let token = token(&us).await;
    // Another cluster of the same name takes the address.
    let mut impostor = wan.gateway("us-east", Resources::default()).await;
    impostor.ca = Arc::new(Ca::create("us-east.mesh.internal", Duration::from_secs(3600)).expect("a CA"));
    impostor.run().await;
    impostor.running().joining().issue(&new(60), "eve").await.expect("issued");
    let error = join(&eu, &token).await.expect_err("an impostor").to_string();
    assert!(error.contains("has another CA than the token says"), "{error}");
    assert!(peers(&eu.running()).is_empty() && peers(&us.running()).is_empty());
    assert!(peers(&impostor.running()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_token_of_the_own_cluster_and_a_name_or_a_trust_domain_that_is_taken_are_refused() {
    let (_wan, [us, eu]) = clusters(["us-east", "eu-west"]).await;
    let error = join(&us, &token(&us).await).await.expect_err("itself").to_string();
    assert!(error.contains("this cluster itself"), "{error}");
    // us-east has an eu-west of another CA.
    let (other_wan, [other]) = clusters(["eu-west"]).await;
    drop(other_wan);
    let issued = token(&us).await;
    let (domain, ca) = ("eu-west.mesh.internal", other.ca.certificate().to_vec());
    let policy = |name: &str| {
        eastway_registry::PeerPolicy {
            peer: eastway_core::resource::Peer { gateways: vec!["nobody:1".to_owned()], ..Default::default() },
            trust_domain: domain.to_owned(),
            trust_bundle: vec![ca.clone()],
        }
        .named(name)
    };
    for (name, told) in [("eu-west", "has a peer eu-west with another CA already"), ("old-west", "is that of old-west")]
    {
        us.running().set_resources(Resources { peers: [policy(name)].into(), ..Resources::default() });
        let error = join(&eu, &issued).await.expect_err(name).to_string();
        assert!(error.contains(told) && error.contains("repeat this command with the same token"), "{error}");
    }
    us.running().set_resources(Resources::default());
    join(&eu, &issued).await.expect("what was refused has used nothing up");
}

trait Named {
    fn named(self, name: &str) -> (String, Self);
}

impl Named for eastway_registry::PeerPolicy {
    fn named(self, name: &str) -> (String, Self) {
        (name.to_owned(), self)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_without_a_token_or_by_another_than_was_shown_is_refused() {
    let (_wan, [us, eu]) = clusters(["us-east", "eu-west"]).await;
    let token = text::Token::read(&token(&us).await).expect("whole");
    let server = us.running();
    let shown = identity(&eu.ca, &SpiffeId::gateway("eu-west.mesh.internal", "gw-1"));
    let ask = async |change: &dyn Fn(&mut JoinRequest)| {
        let (near, far) = Io::pair(64 << 10);
        let answering = Arc::clone(&server);
        tokio::spawn(async move {
            let io = eastway_transport::tls::accept(far, answering.joining().tls()).await.expect("a handshake");
            answering.joining().serve(io).await;
        });
        let tls = introducing_client(&shown, &[JOIN_ALPN]);
        let mut io = eastway_transport::tls::connect(near, tls).await.expect("a session");
        let introduction: Introduction = wire::read(&mut io).await.expect("introduced");
        assert_eq!(introduction.cluster, "us-east");
        let mut request = JoinRequest {
            secret: token.secret.to_vec(),
            cluster: "eu-west".to_owned(),
            trust_domain: "eu-west.mesh.internal".to_owned(),
            trust_bundle: vec![eu.ca.certificate().to_vec()],
            gateways: vec!["10.2.0.1:15443".to_owned()],
        };
        change(&mut request);
        wire::write(&mut io, &request).await.expect("sent");
        match wire::read::<JoinResponse>(&mut io).await.expect("answered").outcome.expect("one") {
            join_response::Outcome::Joined(_) => None,
            join_response::Outcome::Refused(refused) => Some(refused.message),
        }
    };
    let foreign = Ca::create("eu-west.mesh.internal", Duration::from_secs(3600)).expect("a CA").certificate().to_vec();
    type Change<'a> = &'a dyn Fn(&mut JoinRequest);
    let cases: [(&str, Change<'_>, &str); 9] = [
        ("no token", &|request| request.secret = vec![7; 32], "no such token"),
        ("another CA", &|request| request.trust_bundle = vec![foreign.clone()], "not signed by a CA"),
        ("no CA", &|request| request.trust_bundle.clear(), "trust bundle cannot be used"),
        ("another domain", &|request| request.trust_domain = "us-east.mesh.internal".to_owned(), "cannot be used"),
        ("this cluster's name", &|request| request.cluster = "us-east".to_owned(), "is this cluster, not a peer"),
        ("no name", &|request| request.cluster = "../etc".to_owned(), "metadata.name"),
        ("no address", &|request| request.gateways.clear(), "0 addresses"),
        ("too many", &|request| request.gateways = vec!["a:1".to_owned(); 65], "65 addresses"),
        ("odd addresses", &|request| request.gateways = vec!["nowhere".to_owned()], "is not HOST:PORT"),
    ];
    for (what, change, told) in cases {
        let message = ask(change).await.unwrap_or_else(|| panic!("{what} joined"));
        assert!(message.contains(told), "{what}: {message}");
        assert!(peers(&server).is_empty(), "{what}");
    }
    assert_eq!(ask(&|_| {}).await, None, "nothing of that has used the token up");
}

#[tokio::test(start_paused = true)]
async fn an_exchange_is_bounded_in_time_and_carries_nothing_else() {
    let (_wan, [us, eu]) = clusters(["us-east", "eu-west"]).await;
    token(&us).await;
    let server = us.running();
    let shown = identity(&eu.ca, &SpiffeId::gateway("eu-west.mesh.internal", "gw-1"));
    let (near, far) = Io::pair(64 << 10);
    let answering = Arc::clone(&server);
    let serving = tokio::spawn(async move {
        let io = eastway_transport::tls::accept(far, answering.joining().tls()).await.expect("a handshake");
        answering.joining().serve(io).await;
    });
    let began = Instant::now();
    let _idle =
        eastway_transport::tls::connect(near, introducing_client(&shown, &[JOIN_ALPN])).await.expect("a session");
    serving.await.expect("it ends");
    assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    // Who expects a verified gateway is not content with an introduction, and the other way round no tunnel is spoken.
    let (near, far) = Io::pair(64 << 10);
    let strict = client_config(&shown, Expected::AnyGateway, &[JOIN_ALPN]);
    let tls = server.joining().tls();
    let (client, _) =
        tokio::join!(eastway_transport::tls::connect(near, strict), eastway_transport::tls::accept(far, tls));
    client.expect_err("nobody vouches for us-east there");
    let (near, far) = Io::pair(64 << 10);
    let other = introducing_client(&shown, eastway_transport::tcp_tunnel::ALPN);
    let tls = server.joining().tls();
    let (_, accepted) =
        tokio::join!(eastway_transport::tls::connect(near, other), eastway_transport::tls::accept(far, tls));
    accepted.expect_err("no other protocol");
}

#[tokio::test(start_paused = true)]
async fn any_gateway_of_the_issuing_cluster_redeems_a_token_and_the_others_are_tried() {
    let (wan, [us, eu]) = clusters(["us-east", "eu-west"]).await;
    let two = wan.sibling(&us, "gw-2");
    two.run().await;
    let both = || (us.running().hub().gateways().len() == 2).then_some(());
    eventually("both know one another", both).await;
    let token = token(&us).await;
    eventually("the other has heard of the token", || two.running().joining().is_open().then_some(())).await;
    us.kill().await;
    let joined = join(&eu, &token).await.expect("joined by the other one");
    assert!(joined.gateways.contains(&"gw-2.us-east:15443".to_owned()), "{joined:?}");
    assert_eq!(peers(&two.running()), [("eu-west".to_owned(), shop())]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_removed_unless_it_is_none_and_apply_with_prune_spares_it() {
    let (_wan, [us, eu]) = clusters(["us-east", "eu-west"]).await;
    join(&eu, &token(&us).await).await.expect("joined");
    let server = us.running();
    let service = "apiVersion: eastway.dev/v1\nkind: Service\nmetadata: { name: a, namespace: shop }\nspec: {}\n";
    let texts = vec![crate::resources::NamedText { file: "a.yaml".to_owned(), text: service.to_owned() }];
    let change = Change::Apply { texts, beside: Default::default(), prune: true };
    server.apply(&change, "ann", false).await.expect("applied");
    assert_eq!(owner(&server, "eu-west").as_deref(), Some("token"), "it came by no file that could be given");
    server.joining().remove("eu-west", "ann").await.expect("removed");
    assert!(peers(&server).is_empty());
    let error = server.joining().remove("eu-west", "ann").await.expect_err("gone").to_string();
    assert!(error.contains("`eu-west` is no peer of this cluster"), "{error}");
}
