//! The one connection between a sidecar and a gateway, shared by everything that speaks gRPC over it.
//!
//! The gateways are equals, and each sidecar has its own order of them ([`preference()`]): the link stays with one until it
//! fails or drains, then tries the next, and after a while returns to an earlier one that answers again. Never: spreading
//! over several, or deciding that a stream failed; who reads the stream says so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use eastway_transport::Io;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use crate::connect::Connector;

mod preference;

pub use preference::preference;

/// Times of the link.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// Until a gateway has accepted a connection, TLS included. Default 1 s.
    pub connect_timeout: Duration,
    /// A stream on which nothing came for this long is lost; gateways speak every second. Default 3 s.
    pub silence: Duration,
    /// Between signs of life of our own. Default 1 s.
    pub heartbeat: Duration,
    /// The first pause after all gateways failed; it doubles. Default 100 ms.
    pub backoff_base: Duration,
    /// The longest pause. Default 5 s.
    pub backoff_max: Duration,
    /// Until an earlier gateway is tried again, and up to as much more, so that not all sidecars do it at once. Default 60 s.
    pub return_after: Duration,
    /// The largest message that is read. Default 16 MiB.
    pub max_message: usize,
    /// Bytes that may be on the way on one stream; over a long way, at least its rate times its round-trip time.
    /// Default 1 MiB.
    pub stream_window: u32,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            silence: Duration::from_secs(3),
            heartbeat: Duration::from_secs(1),
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            return_after: Duration::from_secs(60),
            max_message: 16 << 20,
            stream_window: 1 << 20,
        }
    }
}

/// The link to the cluster's gateways. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Link {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gateways: Vec<String>,
    connector: Arc<dyn Connector>,
    options: LinkOptions,
    /// One connects at a time; the others wait for its result.
    connecting: AsyncMutex<()>,
    state: Mutex<State>,
    /// The number of the connection that is the current one, or was the last.
    current: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Connection>,
    /// The next gateway to try.
    next: usize,
    made: u64,
}

/// A connection that was made.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    pub(crate) gateway: Arc<str>,
    /// Its place in the order of preference.
    place: usize,
    id: u64,
}

impl Link {
    /// A link to whichever of `gateways` answers (`HOST:PORT` of discovery listeners), in the order of preference. Nothing is
    /// connected yet.
    pub fn new(gateways: Vec<String>, connector: Arc<dyn Connector>, options: LinkOptions) -> Self {
        let shared = Shared {
            gateways,
            connector,
            options,
            connecting: AsyncMutex::default(),
            state: Mutex::default(),
            current: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The gateway that the link is connected to.
    pub fn gateway(&self) -> Option<String> {
        self.shared.state.lock().current.as_ref().map(|connection| connection.gateway.to_string())
    }

    /// The times.
    pub fn options(&self) -> &LinkOptions {
        &self.shared.options
    }

    /// The current connection, or a new one to the first gateway that answers, each tried once.
    pub(crate) async fn connection(&self) -> io::Result<Connection> {
        let _turn = self.shared.connecting.lock().await;
        if let Some(connection) = self.shared.state.lock().current.clone() {
            return Ok(connection);
        }
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "no gateway is configured");
        for _ in 0..self.shared.gateways.len() {
            let place = self.next_place();
            let gateway = &self.shared.gateways[place];
            match self.connect(gateway).await {
                Ok(channel) => return Ok(self.keep(channel, place)),
                Err(error) => {
                    tracing::debug!(gateway, error = %error, "the gateway does not answer");
                    failure = error;
                }
            }
        }
        Err(failure)
    }

    /// The connection does not work any more; the next one goes to another gateway.
    pub(crate) fn failed(&self, connection: &Connection) {
        let mut state = self.shared.state.lock();
        if state.current.as_ref().is_some_and(|current| current.id == connection.id) {
            state.current = None;
        }
    }

    /// Completes when the link has returned to another gateway than the one of `connection`: what goes over that is to
    /// follow.
    pub(crate) async fn returned(&self, connection: &Connection) {
        let later = |current: &u64| *current > connection.id;
        // It fails only if the link is gone, and with it whoever waits.
        let _ = self.shared.current.subscribe().wait_for(later).await;
    }

    /// Returns to a gateway that comes before the present one, once it answers again: else whichever was started last would
    /// stay without sidecars. Runs until it is dropped.
    pub async fn keep_returning(self) {
        let mut rng = fastrand::Rng::new();
        let wait = self.shared.options.return_after;
        loop {
            sleep(wait + wait.mul_f64(rng.f64())).await;
            let _turn = self.shared.connecting.lock().await;
            let place = self.shared.state.lock().current.as_ref().map_or(0, |connection| connection.place);
            for earlier in 0..place {
                if let Ok(channel) = self.connect(&self.shared.gateways[earlier]).await {
                    let connection = self.keep(channel, earlier);
                    tracing::info!(gateway = %connection.gateway, "returns to a gateway that answers again");
                    break;
                }
            }
        }
    }

    fn next_place(&self) -> usize {
        let mut state = self.shared.state.lock();
        let place = state.next % self.shared.gateways.len();
        state.next = place + 1;
        place
    }

    fn keep(&self, channel: Channel, place: usize) -> Connection {
        let mut state = self.shared.state.lock();
        state.made += 1;
        state.next = place + 1;
        let gateway = self.shared.gateways[place].as_str().into();
        let connection = Connection { channel, gateway, place, id: state.made };
        state.current = Some(connection.clone());
        self.shared.current.send_replace(connection.id);
        connection
    }

    async fn connect(&self, gateway: &str) -> io::Result<Channel> {
        let options = &self.shared.options;
        // The connection is made here and handed to tonic, which would otherwise reconnect on its own, to this gateway
        // only, and without telling anybody.
        let io = timeout(options.connect_timeout, self.shared.connector.connect(gateway))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        channel_over(io, options).await
    }
}

/// A gRPC channel over one connection that exists already. When that ends, so does the channel.
///
/// # Errors
/// If the other side does not answer HTTP/2's preface in time.
pub async fn channel_over(io: Io, options: &LinkOptions) -> io::Result<Channel> {
    let endpoint = Endpoint::from_static("http://gateway.eastway.internal")
        .http2_keep_alive_interval(options.heartbeat)
        .keep_alive_timeout(options.silence)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.stream_window.saturating_mul(4));
    let connecting = endpoint.connect_with_connector(Once(Some(io)));
    match timeout(options.connect_timeout, connecting).await {
        Ok(channel) => channel.map_err(io::Error::other),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

/// Hands out one connection, once.
struct Once(Option<Io>);

impl Service<tonic::codegen::http::Uri> for Once {
    type Response = TokioIo<Io>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _cx: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: tonic::codegen::http::Uri) -> Self::Future {
        let used = || io::Error::new(io::ErrorKind::NotConnected, "the connection ended");
        std::future::ready(self.0.take().map(TokioIo::new).ok_or_else(used))
    }
}

/// Pauses between rounds over all gateways: full jitter, doubling.
#[derive(Debug)]
pub struct Backoff {
    round: u32,
    rng: fastrand::Rng,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

impl Backoff {
    /// The first pause comes next.
    pub fn new() -> Self {
        Self { round: 0, rng: fastrand::Rng::new() }
    }

    /// Something worked: the first pause comes next.
    pub const fn reset(&mut self) {
        self.round = 0;
    }

    /// How long to wait now.
    pub fn pause(&mut self, options: &LinkOptions) -> Duration {
        let ceiling = options.backoff_base.saturating_mul(1 << self.round.min(16)).min(options.backoff_max);
        self.round = self.round.saturating_add(1);
        ceiling.mul_f64(self.rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_start_again() {
        let options = LinkOptions::default();
        let mut backoff = Backoff { round: 0, rng: fastrand::Rng::with_seed(1) };
        assert!(backoff.pause(&options) <= Duration::from_millis(100));
        for _ in 0..40 {
            assert!(backoff.pause(&options) <= options.backoff_max);
        }
        backoff.reset();
        assert!(backoff.pause(&options) <= Duration::from_millis(100));
    }
}
