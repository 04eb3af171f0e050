//! Tests of handshakes.

use eastway_core::SpiffeId;
use eastway_identity::{Expected, Identity, client_config, server_config};
use tokio::io::AsyncReadExt;

use super::*;
use crate::testing::*;

type Handshakes = (Result<Io, TlsError>, Result<Io, TlsError>);

async fn handshakes(client: (&Arc<Identity>, Expected), server: (&Arc<Identity>, Expected)) -> Handshakes {
    let (near, far) = Io::pair(64 << 10);
    let connecting = connect(near, client_config(client.0, client.1, &[b"h2"]));
    let accepting = accept(far, server_config(server.0, server.1, &[b"h2"]));
    soon(async { tokio::join!(connecting, accepting) }).await
}

#[tokio::test]
async fn both_sides_learn_whom_they_speak_to() {
    let (us, eu) = gateways();
    let expected = Expected::Gateway { trust_domain: EU.to_owned() };
    let (client, server) = handshakes((&us, expected), (&eu, Expected::AnyGateway)).await;
    let (client, server) = (client.expect("client"), server.expect("server"));
    assert_eq!(client.peer_id(), Some(eu.id()));
    assert_eq!(server.peer_id(), Some(us.id()));
    assert_eq!(server.alpn(), Some(&b"h2"[..]));
    let Io::Tls(server) = server else { panic!("a TLS session") };
    let verified = eu.verify(server.peer_chain().expect("certificates"), &Expected::Any);
    assert_eq!(verified.expect("trusted"), *us.id());
}

#[tokio::test]
async fn a_server_of_a_foreign_ca_is_refused_by_name() {
    let (us, _) = gateways();
    let impostor = identity(&ca(EU), &SpiffeId::gateway(EU, "gw-1"));
    trust(&impostor, &ca(US));
    let (client, server) = handshakes((&us, Expected::AnyGateway), (&impostor, Expected::Any)).await;
    let error = client.expect_err("refused");
    assert_eq!((error.refusal(), error.reason()), (Some(Refusal::ForeignCa), Reason::WrongIdentity));
    let error = server.expect_err("told");
    assert_eq!((error.refusal(), error.reason()), (Some(Refusal::ByPeer), Reason::TlsFailed));
}

#[tokio::test]
async fn a_workload_is_no_gateway() {
    let ca = ca(US);
    let gateway = identity(&ca, &SpiffeId::gateway(US, "gw-1"));
    let workload = identity(&ca, &caller());
    let (client, _) = handshakes((&gateway, Expected::AnyGateway), (&workload, Expected::Any)).await;
    assert_eq!(client.expect_err("refused").refusal(), Some(Refusal::WrongIdentity));

    // A client is done before the server judges it: it learns of the refusal when it reads.
    let (client, server) = handshakes((&workload, Expected::Any), (&gateway, Expected::AnyGateway)).await;
    assert_eq!(server.expect_err("refused").refusal(), Some(Refusal::WrongIdentity));
    let error = client.expect("done").read_u8().await.expect_err("told");
    assert_eq!(Refusal::of(&error), Some(Refusal::ByPeer));
}

#[tokio::test]
async fn plain_text_is_no_handshake() {
    let (us, _) = gateways();
    let (mut near, far) = Io::pair(4096);
    send_all(&mut near, b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n").await;
    let error = soon(accept(far, server_config(&us, Expected::Any, &[]))).await.expect_err("refused");
    assert_eq!((error.refusal(), error.reason()), (None, Reason::TlsFailed));
}

#[tokio::test]
async fn a_session_without_an_application_protocol_is_refused_by_both_sides() {
    let (us, eu) = gateways();
    let (none, some): (&[&[u8]], &[&[u8]]) = (&[], &[b"h2"]);
    for (offered, known) in [(none, some), (some, none)] {
        let (near, far) = Io::pair(64 << 10);
        let connecting = connect(near, client_config(&us, Expected::AnyGateway, offered));
        let accepting = accept(far, server_config(&eu, Expected::AnyGateway, known));
        let (client, server) = soon(async { tokio::join!(connecting, accepting) }).await;
        assert!(matches!(client, Err(TlsError::NoProtocol)), "{client:?}");
        assert!(matches!(server, Err(TlsError::NoProtocol)), "{server:?}");
    }
}

#[tokio::test]
async fn a_session_breaks_while_it_waits_when_its_peer_is_trusted_no_longer() {
    let (us, eu) = gateways();
    let (client, server) = handshakes((&us, Expected::AnyGateway), (&eu, Expected::AnyGateway)).await;
    let (_client, mut server) = (client.expect("client"), server.expect("server"));
    let waiting = tokio::spawn(async move { (server.read_u8().await, server) });
    tokio::task::yield_now().await;
    eu.set_peer_bundles(std::collections::BTreeMap::new()).expect("nobody is trusted");
    assert_eq!(eu.review(), 1);
    let (read, mut server) = soon(waiting).await.expect("woken");
    assert_eq!(read.expect_err("broken").kind(), io::ErrorKind::ConnectionAborted);
    let written = tokio::io::AsyncWriteExt::write_all(&mut server, b"more").await;
    assert_eq!(written.expect_err("broken").kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(us.review(), 0, "the other side still trusts");
}
