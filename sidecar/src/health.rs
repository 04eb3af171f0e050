//! Probes of the application beside this sidecar: HTTP, gRPC, TCP or a command, on the control runtime.
//!
//! The outcome is reported to the gateway; the inbound path does not consult it, because callers decide where to send.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use eastway_core::Health;
use eastway_transport::tcp;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

/// The most that is read of a probe's answer.
const MAX_ANSWER: usize = 64 * 1024;
/// How long an application may take to end a probe's answer and its connection, once its verdict is clear.
const CLOSE: Duration = Duration::from_millis(200);
/// What probes call themselves, so that an application can keep them out of its logs.
const USER_AGENT: &str = concat!("eastway-probe/", env!("CARGO_PKG_VERSION"));

/// What to probe, how often, and how many outcomes in a row change the verdict.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// How to ask.
    pub kind: ProbeKind,
    /// Where the application listens.
    pub target: SocketAddr,
    /// Time between two probes.
    pub interval: Duration,
    /// Time for one probe.
    pub timeout: Duration,
    /// Successes in a row until the application counts as ready.
    pub healthy_after: u32,
    /// Failures in a row until it counts as unready.
    pub unhealthy_after: u32,
}

/// How to ask an application whether it can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// `GET PATH`: 200 to 399 is healthy.
    Http {
        /// The path.
        path: String,
    },
    /// `grpc.health.v1.Health/Check`: `SERVING` is healthy.
    Grpc {
        /// The service name asked for; empty for the server as a whole.
        service: String,
    },
    /// A TCP connection that is accepted.
    Tcp,
    /// A command that exits with 0.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
    },
}

/// Why a probe failed, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No answer within the time limit.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The application does not accept a connection, or the command does not start.
    #[error("cannot reach the application: {0}")]
    Unreachable(std::io::Error),
    /// It answers, but not that it is healthy.
    #[error("{0}")]
    Unhealthy(String),
}

/// Turns single outcomes into a verdict, so that one lost probe changes nothing.
#[derive(Debug)]
pub struct HealthVerdict {
    health: Health,
    streak: u32,
    healthy_after: u32,
    unhealthy_after: u32,
}

impl HealthVerdict {
    /// Nothing is known yet.
    pub fn new(options: &ProbeOptions) -> Self {
        Self {
            health: Health::Warming,
            streak: 0,
            healthy_after: options.healthy_after.max(1),
            unhealthy_after: options.unhealthy_after.max(1),
        }
    }

    /// Takes an outcome; answers the new verdict if it changed. An application that was never ready stays warming.
    pub fn observe(&mut self, healthy: bool) -> Option<Health> {
        let agrees = healthy == (self.health == Health::Ready);
        if agrees {
            self.streak = 0;
            return None;
        }
        self.streak += 1;
        let (needed, next) = match (healthy, self.health) {
            (true, _) => (self.healthy_after, Health::Ready),
            (false, Health::Warming) => return None,
            (false, _) => (self.unhealthy_after, Health::Unready),
        };
        if self.streak < needed || next == self.health {
            return None;
        }
        (self.health, self.streak) = (next, 0);
        Some(next)
    }
}

/// Probes until the task is dropped; `report` hears each change of the verdict, with the last failure's words.
pub async fn watch(options: ProbeOptions, report: impl Fn(Health, &str) + Send + Sync) {
    let mut verdict = HealthVerdict::new(&options);
    let mut ticks = tokio::time::interval(options.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome = probe(&options).await;
        let words = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        if let Some(health) = verdict.observe(outcome.is_ok()) {
            tracing::info!(?health, reason = words, "the application's health changed");
            report(health, &words);
        }
    }
}

/// Asks once.
///
/// # Errors
/// [`ProbeError`] unless the application says that it is healthy in time.
pub async fn probe(options: &ProbeOptions) -> Result<(), ProbeError> {
    let asked = async {
        match &options.kind {
            ProbeKind::Http { path } => http(options.target, path).await,
            ProbeKind::Grpc { service } => grpc(options.target, service).await,
            ProbeKind::Tcp => connect(options.target).await,
            ProbeKind::Command { argv } => command(argv).await,
        }
    };
    timeout(options.timeout, asked).await.unwrap_or(Err(ProbeError::Timeout(options.timeout)))
}

async fn connect(target: SocketAddr) -> Result<(), ProbeError> {
    let stream = TcpStream::connect(target).await.map_err(ProbeError::Unreachable)?;
    tcp::close(stream, CLOSE).await;
    Ok(())
}

async fn http(target: SocketAddr, path: &str) -> Result<(), ProbeError> {
    let stream = TcpStream::connect(target).await.map_err(ProbeError::Unreachable)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = http::Request::get(path)
        .header("host", target.to_string())
        .header("user-agent", USER_AGENT)
        .header("connection", "close")
        .body(Full::<Bytes>::default())
        .map_err(|error| ProbeError::Unhealthy(error.to_string()))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        read_out(response.into_body()).await;
        if status.is_success() || status.is_redirection() {
            Ok(())
        } else {
            Err(ProbeError::Unhealthy(format!("the application answers {status}")))
        }
    };
    drive(connection, exchange).await
}

async fn grpc(target: SocketAddr, service: &str) -> Result<(), ProbeError> {
    let stream = TcpStream::connect(target).await.map_err(ProbeError::Unreachable)?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(broken)?;
    let request = http::Request::post(format!("http://{target}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("user-agent", USER_AGENT)
        .header("te", "trailers")
        .body(Full::new(health_check_request(service)))
        .map_err(|error| ProbeError::Unhealthy(error.to_string()))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| ProbeError::Unhealthy(error.to_string()))?;
        // HealthCheckResponse { status: SERVING } is field 1, varint 1, behind the five bytes of gRPC's framing.
        if body.to_bytes().get(5..) == Some(&[0x08, 0x01]) {
            Ok(())
        } else {
            Err(ProbeError::Unhealthy("the gRPC health service does not answer SERVING".to_owned()))
        }
    };
    drive(connection, exchange).await
}

/// `HealthCheckRequest { service }` in gRPC's framing: two fields are not worth generated code.
fn health_check_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if let Ok(length @ 1..=127) = u8::try_from(service.len()) {
        message.extend([0x0a, length]);
        message.extend(service.as_bytes());
    }
    let mut framed = vec![0, 0, 0, 0, message.len() as u8];
    framed.extend(message);
    framed.into()
}

async fn command(argv: &[String]) -> Result<(), ProbeError> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(ProbeError::Unhealthy("the probe's command is empty".to_owned()));
    };
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(ProbeError::Unreachable)?;
    if status.success() { Ok(()) } else { Err(ProbeError::Unhealthy(format!("`{program}` ended with {status}"))) }
}

/// Reads what the application says besides its status, so that it need not see a reset: as much as is bounded, for as long
/// as it does not delay the verdict.
async fn read_out(body: hyper::body::Incoming) {
    let _ = timeout(CLOSE, Limited::new(body, MAX_ANSWER).collect()).await;
}

/// Runs the exchange and its connection together. When the exchange has ended, the connection is closed in order.
async fn drive<C>(connection: C, exchange: impl Future<Output = Result<(), ProbeError>>) -> Result<(), ProbeError>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    tokio::pin!(exchange, connection);
    let outcome = tokio::select! {
        biased;
        outcome = &mut exchange => outcome,
        ended = &mut connection => return match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(broken(error)),
        },
    };
    // Its request handle is gone with the exchange, so that it ends by itself.
    let _ = timeout(CLOSE, connection).await;
    outcome
}

fn broken(error: hyper::Error) -> ProbeError {
    ProbeError::Unhealthy(format!("the connection broke: {error}"))
}

#[cfg(test)]
mod tests;
