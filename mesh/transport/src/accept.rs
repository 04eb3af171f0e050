//! Accepting connections: the same loop, and the same handshake, for every TCP listener of a worker.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use eastway_core::{Chain, SpiffeId};
use tokio::net::TcpListener;

use crate::{Io, tcp, tls};

/// The pause after the operating system refuses to accept (no descriptors left), so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the host of a caller may acknowledge nothing of what it is sent.
const GONE: Duration = Duration::from_secs(30);

/// Serves each accepted connection in a local task of its own, until `stop` completes.
///
/// `admit` is asked for each connection: what it answers lives as long as the connection, and on `None` the connection
/// is closed at once. Call it on a `LocalSet`.
pub async fn each<G, F>(
    listener: TcpListener,
    name: &'static str,
    stop: impl Future<Output = ()>,
    admit: impl Fn() -> Option<G>,
    serve: impl Fn(Io) -> F,
) where
    G: 'static,
    F: Future<Output = ()> + 'static,
{
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(listener = name, %error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(guard) = admit() else {
            tracing::debug!(listener = name, "the limit of connections is reached");
            continue;
        };
        // A caller that reads slowly is bounded by whoever serves it.
        if let Err(error) = tcp::tune(&stream, &tcp::DialOptions { user_timeout: None, ..tcp::DialOptions::default() })
        {
            tracing::debug!(listener = name, %error, "a connection ended before it began");
            continue;
        }
        let connection = serve(Io::watched(stream, GONE));
        tokio::task::spawn_local(async move {
            let _guard = guard;
            connection.await;
        });
    }
}

/// Mutual TLS on an accepted connection, within `limit`; a refusal is logged with its cause, because the other side
/// learns little.
pub async fn handshake(
    stream: Io,
    config: Arc<rustls::ServerConfig>,
    limit: Duration,
    name: &'static str,
) -> Option<(Io, Arc<SpiffeId>)> {
    let peer = stream.peer_addr();
    let outcome = tokio::time::timeout(limit, tls::accept(stream, config)).await;
    match outcome {
        Ok(Ok(io)) => {
            let id = io.peer_id()?;
            Some((io, id))
        }
        Ok(Err(error)) => {
            let refusal = error.refusal().map(|refusal| refusal.as_str());
            tracing::info!(listener = name, ?peer, refusal, error = %Chain(&error), "refused a connection: no mutual TLS");
            None
        }
        Err(_) => {
            let error = io::Error::from(io::ErrorKind::TimedOut);
            tracing::debug!(listener = name, ?peer, %error, "refused a connection: its TLS handshake took too long");
            None
        }
    }
}

#[cfg(test)]
mod tests;
