//! TLS as an impostor would use it: whoever knocks is let in, and what they say is written down.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use eastway_identity::{Expected, Identity, client_config, provider};
use eastway_tests::apps::App;
use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The identity that was last issued into `folder` as `name`: it believes in the CA that issued it.
pub(crate) fn identity(folder: &Path, name: &str) -> Arc<Identity> {
    let read = |file: &str| std::fs::read(folder.join(file)).expect("an issued file");
    let (certificate, key) = (read(&format!("{name}.crt")), read(&format!("{name}.key")));
    Identity::from_pem(&certificate, &key, &read("bundle.crt")).expect("what was issued is an identity")
}

/// A server at `address` that shows the certificate `NAME.crt` of `folder`, asks nobody for theirs, notes `knock` for
/// each that comes and what those say who go on, and answers them with 200.
pub(crate) fn answering(address: SocketAddr, folder: &Path, name: &str) -> App {
    saying(address, folder, name, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmine".to_owned())
}

/// The same with another answer.
pub(crate) fn saying(address: SocketAddr, folder: &Path, name: &str, answer: String) -> App {
    let certificate = CertificateDer::from_pem_file(folder.join(format!("{name}.crt"))).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).expect("a key");
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
        .expect("a certificate with its key");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    App::start(address, move |connection| {
        connection.note("knock");
        let (stream, note) = connection.into_parts();
        let Ok(server) = ServerConnection::new(Arc::clone(&config)) else { return };
        let mut tls = StreamOwned::new(server, stream);
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = tls.read(&mut buffer) {
            note(&String::from_utf8_lossy(&buffer[..read]));
            let _ = tls.write_all(answer.as_bytes());
        }
    })
}

/// The head of what the server at `address` says to a CONNECT to `authority` by `identity`.
pub(crate) fn connect_through(address: SocketAddr, identity: &Arc<Identity>, authority: &str) -> String {
    let config = client_config(identity, Expected::Any, &[b"http/1.1"]);
    let name = "mesh.internal".try_into().expect("a name");
    let client = ClientConnection::new(Arc::clone(&config), name).expect("a client");
    let mut tls = StreamOwned::new(client, TcpStream::connect(address).expect("a listener"));
    let request = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    tls.write_all(request.as_bytes()).expect("a handshake");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(tls.read(&mut byte), Ok(1)) {
        head.extend_from_slice(&byte);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// The certificate that the server at `address` shows to `identity`.
///
/// # Errors
/// If there is no handshake.
pub(crate) fn certificate(address: SocketAddr, identity: &Arc<Identity>) -> Result<CertificateDer<'static>, String> {
    let config = client_config(identity, Expected::Any, &[b"http/1.1"]);
    let name = "mesh.internal".try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::clone(&config), name).map_err(|error| error.to_string())?;
    let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    while client.is_handshaking() {
        client.complete_io(&mut stream).map_err(|error| error.to_string())?;
    }
    let shown = client.peer_certificates().and_then(|chain| chain.first()).ok_or("no certificate")?;
    Ok(shown.clone().into_owned())
}
