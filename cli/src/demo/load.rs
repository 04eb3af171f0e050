//! The storefronts' load: open loop, so that a slow answer never slows the next request down.
//!
//! Latency counts from the scheduled start. Connections to the sidecar's proxy are kept and reused, last used first.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

/// A request that takes longer counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most that is read of an answer.
const MAX_ANSWER: usize = 64 * 1024;

/// One finished request.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When it was scheduled.
    pub(super) scheduled: Instant,
    /// From then to the end of the answer.
    pub(super) latency: Duration,
    /// The zone that answered, `CLUSTER/ZONE`, or why none did.
    pub(super) zone: Result<String, String>,
}

/// A running storefront. Dropping it stops its schedule and waits for what is under way.
pub(super) struct Storefront {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    samples: Mutex<Vec<Sample>>,
    under_way: AtomicU64,
    stop: AtomicBool,
}

impl Storefront {
    /// Starts calling `url` through the proxy at `proxy`, `rate` times a second.
    pub(super) fn start(proxy: SocketAddr, url: &str, rate: u32) -> anyhow::Result<Self> {
        let shared =
            Arc::new(Shared { samples: Mutex::default(), under_way: AtomicU64::new(0), stop: AtomicBool::new(false) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (for_thread, url) = (Arc::clone(&shared), url.to_owned());
        let thread = std::thread::Builder::new().name("storefront".to_owned()).spawn(move || {
            let caller = Rc::new(Caller { proxy, url, idle: RefCell::default(), shared: for_thread });
            tokio::task::LocalSet::new().block_on(&runtime, schedule(caller, rate));
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Stops the schedule, waits for what is under way, and answers all samples.
    pub(super) fn finish(mut self) -> Vec<Sample> {
        self.stop();
        std::mem::take(&mut self.shared.samples.lock())
    }

    /// All samples so far, in the order in which they finished.
    pub(super) fn samples(&self) -> Vec<Sample> {
        self.shared.samples.lock().clone()
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Storefront {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Caller {
    proxy: SocketAddr,
    url: String,
    idle: RefCell<Vec<SendRequest<Empty<Bytes>>>>,
    shared: Arc<Shared>,
}

async fn schedule(caller: Rc<Caller>, rate: u32) {
    let period = Duration::from_secs(1) / rate.max(1);
    let start = Instant::now();
    let mut number = 0_u32;
    while !caller.shared.stop.load(Ordering::Relaxed) {
        let due = start + period * number;
        number += 1;
        tokio::time::sleep_until(due.into()).await;
        caller.shared.under_way.fetch_add(1, Ordering::Relaxed);
        tokio::task::spawn_local(call(Rc::clone(&caller), due));
    }
    while caller.shared.under_way.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn call(caller: Rc<Caller>, scheduled: Instant) {
    let zone = match tokio::time::timeout(PATIENCE, caller.request()).await {
        Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    };
    caller.shared.samples.lock().push(Sample { scheduled, latency: scheduled.elapsed(), zone });
    caller.shared.under_way.fetch_sub(1, Ordering::Relaxed);
}

impl Caller {
    /// One request; answers the zone that served it.
    async fn request(&self) -> anyhow::Result<String> {
        let mut sender = self.connection().await?;
        let uri: http::Uri = self.url.parse()?;
        let host = uri.authority().context("the URL names no host")?.to_string();
        let request = http::Request::get(uri).header("host", host).body(Empty::new())?;
        let response = sender.send_request(request).await.context("the proxy does not answer")?;
        let status = response.status();
        let reason = response.headers().get("proxy-status").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?
            .to_bytes();
        self.idle.borrow_mut().push(sender);
        anyhow::ensure!(status.is_success(), "{status} {}", reason.unwrap_or_default());
        let answer: serde_json::Value = serde_json::from_slice(&body).context("the answer is not the application's")?;
        answer["zone"].as_str().map(str::to_owned).context("the answer names no zone")
    }

    async fn connection(&self) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
        loop {
            let idle = self.idle.borrow_mut().pop();
            match idle {
                Some(sender) if sender.is_ready() => return Ok(sender),
                Some(_) => {}
                None => break,
            }
        }
        let stream = TcpStream::connect(self.proxy).await.context("cannot reach the sidecar's proxy")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(async move {
            // The request on it reports what broke.
            let _ = connection.await;
        });
        Ok(sender)
    }
}
