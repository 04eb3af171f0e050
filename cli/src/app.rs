//! `eastway app`: the sample application of the demo, the walk in the README and the tests.
//!
//! It speaks HTTP/1.1 and HTTP/2 in cleartext and says where it runs, so that a caller sees where its request went:
//!
//! | Path | Answer |
//! |---|---|
//! | `/`, anything else | 200 and a JSON object: service, zone, name, who called, and the path that was asked for |
//! | `/healthz` | 200, or 503 after `POST /health/fail` until `POST /health/pass` |
//! | `/headers` | 200 and the request's headers as JSON |
//! | `/echo` | the request's body as it comes, trailers included |
//! | `/status/CODE` | that status |
//! | `/delay/MS` | 200 after so many milliseconds |

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// The longest delay that `/delay` grants.
const MAX_DELAY_MS: u64 = 60_000;

/// The sample application's options.
#[derive(Debug, clap::Args)]
pub(crate) struct AppCommand {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The service that it plays.
    #[arg(long, default_value = "payments")]
    service: String,
    /// Its own name.
    #[arg(long, default_value = "payments-1")]
    name: String,
    /// The zone that it says it runs in, CLUSTER/ZONE.
    #[arg(long, default_value = "us-east/a")]
    zone: String,
}

struct App {
    command: AppCommand,
    healthy: AtomicBool,
}

impl AppCommand {
    /// Serves until it is killed or gets SIGTERM or SIGINT.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.serve())
    }

    async fn serve(self) -> anyhow::Result<()> {
        let listener =
            TcpListener::bind(self.listen).await.with_context(|| format!("cannot listen on {}", self.listen))?;
        let address = listener.local_addr()?;
        eprintln!("{}", serde_json::json!({"message": "listening", "listener": "app", "address": address.to_string()}));
        let app = Arc::new(App { command: self, healthy: AtomicBool::new(true) });
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = terminate.recv() => return Ok(()),
                _ = tokio::signal::ctrl_c() => return Ok(()),
            };
            let Ok((stream, _)) = accepted else { continue };
            stream.set_nodelay(true).ok();
            let app = Arc::clone(&app);
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| answer(Arc::clone(&app), request));
                let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                server.http2().max_concurrent_streams(1000);
                // A connection that breaks is the client's affair.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }
}

async fn answer(app: Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let mut segments = path.trim_matches('/').split('/');
    let response = match (segments.next().unwrap_or_default(), segments.next()) {
        ("healthz", None) if app.healthy.load(Ordering::Relaxed) => text(StatusCode::OK, "ok\n"),
        ("healthz", None) => text(StatusCode::SERVICE_UNAVAILABLE, "told to fail\n"),
        ("health", Some(verdict)) if request.method() == Method::POST => {
            app.healthy.store(verdict == "pass", Ordering::Relaxed);
            text(StatusCode::OK, "noted\n")
        }
        ("headers", None) => json(&headers(&request)),
        ("echo", None) => Response::new(request.into_body().boxed_unsync()),
        ("status", Some(code)) => match code.parse::<u16>().ok().and_then(|code| StatusCode::from_u16(code).ok()) {
            Some(status) => text(status, "as you wish\n"),
            None => text(StatusCode::BAD_REQUEST, "no such status\n"),
        },
        ("delay", Some(millis)) => {
            let millis = millis.parse().unwrap_or(0_u64).min(MAX_DELAY_MS);
            tokio::time::sleep(Duration::from_millis(millis)).await;
            json(&app.place(&request))
        }
        _ => json(&app.place(&request)),
    };
    Ok(response)
}

impl App {
    fn place(&self, request: &Request<Incoming>) -> serde_json::Value {
        let caller = request.headers().get("eastway-source").and_then(|value| value.to_str().ok());
        serde_json::json!({
            "service": self.command.service,
            "zone": self.command.zone,
            "name": self.command.name,
            "caller": caller,
            "path": request.uri().path(),
        })
    }
}

fn headers(request: &Request<Incoming>) -> serde_json::Value {
    let mut all = BTreeMap::<&str, Vec<String>>::new();
    for (name, value) in request.headers() {
        all.entry(name.as_str()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    serde_json::json!({ "method": request.method().as_str(), "uri": request.uri().to_string(), "headers": all })
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}

fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(format!("{value}\n"))));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
