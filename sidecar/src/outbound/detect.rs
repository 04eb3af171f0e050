//! Connections to ports of which nobody has declared what is spoken there: their first bytes show it.
//!
//! A client that says nothing for a moment is taken for one whose server speaks first. That costs such a server the moment once:
//! what was found is kept for the port, and later connections are not held up. A client of HTTP that comes so late is served all the
//! same, by the called sidecar, which looks for itself.

use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use eastway_core::Authority;
use eastway_http::server::ServerOptions;
use eastway_request::Spoken;
use eastway_request::spoken::MOST;
use eastway_transport::Io;
use rustls::server::Acceptor;
use tokio::io::AsyncReadExt as _;

use super::target::Target;
use super::{connection, opaque};
use crate::virtuals::Found;
use crate::worker::Worker;

/// How long a client's first bytes are waited for.
const BOUND: Duration = Duration::from_millis(50);

/// Leads a connection to where `target` or its own first bytes say, by what those show to be spoken.
pub(super) async fn lead(worker: Rc<Worker>, stream: Io, options: &ServerOptions, target: Rc<Target>) {
    let verdict = Rc::clone(&target);
    let verdict = &verdict.lead.verdict;
    let waits = verdict.found() != Some(Found::ServerFirst);
    let (stream, first, spoken) = if waits { first(stream).await } else { (stream, BytesMut::new(), None) };
    let found = match spoken {
        Some(Spoken::Http) => Found::Http,
        Some(Spoken::Tls) => Found::Tls,
        Some(Spoken::Opaque) => Found::Opaque,
        None => Found::ServerFirst,
    };
    verdict.keep(found);
    let asked = if found == Found::Tls { asked_for(&first, &target) } else { None };
    let stream = stream.rewound(first.freeze());
    match (found, asked) {
        (Found::Http, _) => connection(worker, stream, options, Some(target)).await,
        (_, Some(asked)) => {
            let text = asked.to_text(&target.suffix);
            opaque::connect(worker, stream, text.into()).await;
        }
        (_, None) => opaque::connect(worker, stream, Rc::clone(&target.text)).await,
    }
}

/// The first bytes of a connection, and what they show; nothing if none come in time. Those of TLS are the whole first message of its
/// client, if that comes in time.
async fn first(mut stream: Io) -> (Io, BytesMut, Option<Spoken>) {
    let mut first = BytesMut::new();
    let mut spoken = None;
    let looked = tokio::time::timeout(BOUND, async {
        while stream.read_buf(&mut first).await.is_ok_and(|length| length > 0) {
            spoken = Spoken::by(&first);
            match spoken {
                Some(Spoken::Tls) if first.len() < MOST && hello(&first).is_none() => {}
                Some(_) => return,
                None => {}
            }
        }
    });
    // What has come by then will do; what has not shows nothing.
    let _ = looked.await;
    let is_something = !first.is_empty();
    (stream, first, spoken.or_else(|| is_something.then_some(Spoken::Opaque)))
}

/// The name that a TLS client asks for, once its first message is whole; empty if it asks for none.
fn hello(first: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    let mut rest = first;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).ok()?;
    }
    match acceptor.accept() {
        Ok(Some(accepted)) => Some(accepted.client_hello().server_name().unwrap_or_default().to_owned()),
        Ok(None) => None,
        // It is none that we understand: nothing more is to come.
        Err(_) => Some(String::new()),
    }
}

/// The service that a TLS client asks for by name, at the port that it came to, if that is one of the mesh.
fn asked_for(first: &[u8], target: &Target) -> Option<Authority> {
    let name = hello(first)?;
    let named = Authority::parse(&name, &target.suffix).ok()?;
    Some(Authority { port: target.lead.target.port, ..named })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::ClientConnection;
    use rustls::pki_types::ServerName;

    use super::*;

    fn hello_for(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config =
            config.expect("versions").with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("written");
        bytes
    }

    #[test]
    fn a_tls_client_says_by_name_whom_it_wants_once_its_first_message_is_whole() {
        let bytes = hello_for("ledger.shop.mesh.internal");
        assert_eq!(Spoken::by(&bytes), Some(Spoken::Tls));
        assert_eq!(hello(&bytes[..bytes.len() - 1]), None);
        assert_eq!(hello(&bytes).as_deref(), Some("ledger.shop.mesh.internal"));
        assert_eq!(hello(&hello_for("192.0.2.1")).as_deref(), Some(""), "an address is no name");
        assert_eq!(hello(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00").as_deref(), Some(""), "none that is understood");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_come_in_time_is_put_back_and_silence_is_a_server_that_speaks_first() {
        let look = async |pieces: &[&[u8]]| {
            let (near, far) = Io::pair(1 << 16);
            let (mut far, pieces) = (far, pieces.iter().map(|piece| piece.to_vec()).collect::<Vec<_>>());
            let sending = tokio::spawn(async move {
                for piece in pieces {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    tokio::io::AsyncWriteExt::write_all(&mut far, &piece).await.expect("sent");
                }
                far
            });
            let (_stream, first, spoken) = first(near).await;
            drop(sending.await.expect("no panic"));
            (first.to_vec(), spoken)
        };
        assert_eq!(look(&[b"GET / H", b"TTP/1.1\r\n"]).await, (b"GET / HTTP/1.1\r\n".to_vec(), Some(Spoken::Http)));
        assert_eq!(look(&[b"*1\r\n"]).await, (b"*1\r\n".to_vec(), Some(Spoken::Opaque)));
        assert_eq!(look(&[b"GET / H"]).await, (b"GET / H".to_vec(), Some(Spoken::Opaque)), "the rest does not come");
        assert_eq!(look(&[]).await, (Vec::new(), None));
        let hello = hello_for("ledger.shop.mesh.internal");
        let (first, second) = hello.split_at(100);
        assert_eq!(look(&[first, second]).await, (hello.clone(), Some(Spoken::Tls)), "all of it");
    }
}
