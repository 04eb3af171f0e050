//! The members of an etcd cluster, and calls that fail over between them.
//!
//! There is one client for each member, made when it is first asked and forgotten when a call on it fails. Before a
//! client is used its member must have answered once and said that it belongs to the pinned cluster: so a member that
//! accepts connections and never answers is found out before a write is sent to it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::{KvClient, LeaseClient, WatchClient};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::super::{MemberHealth, StoreError, StoreHealth, chain};
use super::failure::EtcdFailure;
use super::options::EtcdOptions;
use super::ranking::Ranking;

/// The first wait after all members failed; doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest wait between two rounds over all members.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// When a call may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Always: it reads, or doing it twice is the same as doing it once.
    Harmless,
    /// Always, because it cannot be applied twice; but an earlier attempt may be what makes a later one fail.
    Guarded,
    /// Only if it surely was not sent.
    IfNotSent,
}

/// All members.
pub(super) struct Cluster {
    options: EtcdOptions,
    members: Vec<Member>,
    ranking: Mutex<Ranking>,
    rng: Mutex<fastrand::Rng>,
    /// The cluster's identity, 0 while unknown.
    cluster_id: AtomicU64,
}

struct Member {
    url: String,
    client: AsyncMutex<Option<Client>>,
}

/// A client of one member that has answered.
#[derive(Clone)]
pub(super) struct Client {
    inner: etcd_client::Client,
    max_message: usize,
    /// Tells one client of a member from the next.
    serial: Arc<()>,
}

impl Client {
    pub(super) fn kv(&self) -> KvClient {
        self.inner.kv_client().max_decoding_message_size(self.max_message)
    }

    pub(super) fn lease(&self) -> LeaseClient {
        self.inner.lease_client()
    }

    pub(super) fn watch(&self) -> WatchClient {
        self.inner.watch_client().max_decoding_message_size(self.max_message)
    }
}

impl Cluster {
    pub(super) async fn new(options: EtcdOptions) -> Result<Self, StoreError> {
        let urls = options.urls()?;
        for url in &urls {
            // Without a user this does no I/O: it shows whether address and certificates can be used at all.
            etcd_client::Client::connect([url], Some(options.connect_options(false))).await.map_err(|error| {
                StoreError::Options(format!("etcd endpoint `{url}`: {}", EtcdFailure::of(&error).into_reason()))
            })?;
        }
        let mut rng = fastrand::Rng::new();
        let ranking = Ranking::new(urls.len(), rng.usize(..urls.len()));
        let cluster_id = AtomicU64::new(options.cluster_id.unwrap_or(0));
        let members = urls.into_iter().map(|url| Member { url, client: AsyncMutex::new(None) }).collect();
        Ok(Self { options, members, ranking: Mutex::new(ranking), rng: Mutex::new(rng), cluster_id })
    }

    /// Calls members, one after another, until one answers, the operation's time is over, or trying again is not
    /// allowed. Also says whether an earlier attempt may have reached a server.
    pub(super) async fn call<T, F, Fut>(&self, retry: Retry, request: F) -> Result<(T, bool), StoreError>
    where
        F: Fn(Client) -> Fut + Sync,
        Fut: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let deadline = Instant::now() + self.options.operation_timeout;
        let mut attempts = 0;
        let mut maybe_sent = false;
        let mut pause = FIRST_PAUSE;
        loop {
            let mut reason = String::new();
            let mut rejections = 0;
            for index in self.order() {
                attempts += 1;
                match self.attempt(index, deadline, &request).await {
                    Ok(answer) => return Ok((answer, maybe_sent)),
                    Err(EtcdFailure::Final(error)) => return Err(error),
                    Err(EtcdFailure::Rejected(error)) => {
                        rejections += 1;
                        // Wrong credentials everywhere do not become right by waiting.
                        if rejections == self.members.len() && !maybe_sent {
                            return Err(error);
                        }
                        reason = chain(&error);
                        if rejections == self.members.len() {
                            return Err(StoreError::OutcomeUnknown { attempts, reason });
                        }
                    }
                    Err(EtcdFailure::NotSent(why)) => reason = why,
                    Err(EtcdFailure::Unsure(why)) => {
                        maybe_sent = retry != Retry::Harmless;
                        reason = why;
                    }
                }
                if maybe_sent && retry == Retry::IfNotSent {
                    return Err(StoreError::OutcomeUnknown { attempts, reason });
                }
                if Instant::now() >= deadline {
                    break;
                }
            }
            let jitter = 0.5 + 0.5 * self.rng.lock().f64();
            let wait = pause.mul_f64(jitter);
            if Instant::now() + wait >= deadline {
                return Err(match maybe_sent {
                    true => StoreError::OutcomeUnknown { attempts, reason },
                    false => StoreError::Unavailable { attempts, reason },
                });
            }
            sleep(wait).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// The members, the most promising first.
    pub(super) fn order(&self) -> Vec<usize> {
        self.ranking.lock().order(Instant::now())
    }

    async fn attempt<T, F, Fut>(&self, index: usize, deadline: Instant, request: &F) -> Result<T, EtcdFailure>
    where
        F: Fn(Client) -> Fut + Sync,
        Fut: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let limit = self.options.try_timeout.min(deadline.saturating_duration_since(Instant::now()));
        let client = match timeout(limit, self.client(index)).await {
            Ok(client) => client?,
            Err(_) => {
                let why = format!("{} did not answer within {limit:?}", self.url(index));
                self.failed(index, None, &why).await;
                return Err(EtcdFailure::NotSent(why));
            }
        };
        let failure = match timeout(limit, Box::pin(request(client.clone()))).await {
            Ok(Ok(answer)) => {
                self.succeeded(index);
                return Ok(answer);
            }
            Ok(Err(error)) => EtcdFailure::of(&error),
            Err(_) => EtcdFailure::Unsure(format!("no answer within {limit:?}")),
        };
        match failure {
            EtcdFailure::Final(error) => {
                self.succeeded(index);
                Err(EtcdFailure::Final(error))
            }
            EtcdFailure::NotSent(why) => Err(EtcdFailure::NotSent(self.blame(index, &client, why).await)),
            failure => Err(EtcdFailure::Unsure(self.blame(index, &client, failure.into_reason()).await)),
        }
    }

    /// A client of the member, which has answered and belongs to the cluster.
    pub(super) async fn client(&self, index: usize) -> Result<Client, EtcdFailure> {
        let member = &self.members[index];
        let mut slot = member.client.lock().await;
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        // Boxed, like the calls: the client's futures are large.
        match Box::pin(self.connect(&member.url)).await {
            Ok(client) => {
                *slot = Some(client.clone());
                Ok(client)
            }
            Err(EtcdFailure::Final(error)) => {
                drop(slot);
                self.failed(index, None, &chain(&error)).await;
                Err(EtcdFailure::Rejected(error))
            }
            Err(failure) => {
                drop(slot);
                let why = format!("{}: {}", member.url, failure.into_reason());
                self.failed(index, None, &why).await;
                Err(EtcdFailure::NotSent(why))
            }
        }
    }

    async fn connect(&self, url: &str) -> Result<Client, EtcdFailure> {
        let options = self.options.connect_options(true);
        let mut inner =
            etcd_client::Client::connect([url], Some(options)).await.map_err(|error| EtcdFailure::of(&error))?;
        let status = inner.status().await.map_err(|error| EtcdFailure::of(&error))?;
        let found = status.header().map_or(0, etcd_client::ResponseHeader::cluster_id);
        self.pin(url, found)?;
        Ok(Client { inner, max_message: self.options.max_message, serial: Arc::new(()) })
    }

    fn pin(&self, url: &str, found: u64) -> Result<(), EtcdFailure> {
        match self.cluster_id.compare_exchange(0, found, Ordering::AcqRel, Ordering::Acquire) {
            Err(expected) if expected != found => {
                Err(EtcdFailure::Final(StoreError::Foreign { member: url.to_owned(), expected, found }))
            }
            _ => Ok(()),
        }
    }

    /// Notes that a member answered.
    pub(super) fn succeeded(&self, index: usize) {
        if self.ranking.lock().succeeded(index, Instant::now()) {
            info!(member = self.url(index), "the store is reached");
        }
    }

    /// Notes that a call on `client` failed: it is not used again. Yields the reason with the member's name.
    pub(super) async fn blame(&self, index: usize, client: &Client, why: String) -> String {
        self.failed(index, Some(client), &why).await;
        format!("{}: {why}", self.url(index))
    }

    async fn failed(&self, index: usize, client: Option<&Client>, why: &str) {
        let jitter = self.rng.lock().f64();
        // One line for an outage, however long it is.
        if self.ranking.lock().failed(index, Instant::now(), why.to_owned(), jitter) {
            warn!(member = self.url(index), error = why, "a member of the store failed");
        } else {
            debug!(member = self.url(index), error = why, "a member of the store failed");
        }
        if let Some(client) = client {
            let mut slot = self.members[index].client.lock().await;
            if slot.as_ref().is_some_and(|known| Arc::ptr_eq(&known.serial, &client.serial)) {
                *slot = None;
            }
        }
    }

    /// Asks the members that failed and are not used whether they are back: otherwise they would be told as failing until
    /// another one fails.
    pub(super) async fn ask_again(&self) {
        let due = self.ranking.lock().to_be_asked_again(Instant::now());
        for index in due {
            let (url, limit) = (self.url(index), self.options.try_timeout);
            let why = match timeout(limit, Box::pin(self.serves(url))).await {
                Ok(Ok(())) => {
                    self.ranking.lock().returned(index);
                    info!(member = url, "a member of the store is back");
                    continue;
                }
                Ok(Err(failure)) => format!("{url}: {}", failure.into_reason()),
                Err(_) => format!("{url} did not answer within {limit:?}"),
            };
            let jitter = self.rng.lock().f64();
            self.ranking.lock().still_fails(index, Instant::now(), why, jitter);
        }
    }

    /// Whether a member answers, and knows a leader.
    async fn serves(&self, url: &str) -> Result<(), EtcdFailure> {
        let mut client = self.connect(url).await?.inner;
        let status = client.status().await.map_err(|error| EtcdFailure::of(&error))?;
        match status.leader() {
            0 => Err(EtcdFailure::NotSent("it knows no leader".to_owned())),
            _ => Ok(()),
        }
    }

    /// The pinned identity, asked for if no member was spoken to yet.
    pub(super) async fn cluster_id(&self) -> Result<u64, StoreError> {
        let known = self.cluster_id.load(Ordering::Acquire);
        if known == 0 {
            // Any call makes a client, and making a client pins the identity.
            self.call(Retry::Harmless, |_| async { Ok(()) }).await?;
        }
        Ok(self.cluster_id.load(Ordering::Acquire))
    }

    pub(super) fn options(&self) -> &EtcdOptions {
        &self.options
    }

    pub(super) fn url(&self, index: usize) -> &str {
        &self.members[index].url
    }

    pub(super) fn health(&self) -> StoreHealth {
        let ranking = self.ranking.lock();
        let members = self.members.iter().zip(ranking.standings()).map(|(member, standing)| MemberHealth {
            address: member.url.clone(),
            failures: standing.failures,
            last_error: standing.last_error.clone(),
        });
        StoreHealth {
            kind: "etcd",
            healthy: ranking.is_healthy(),
            member: ranking.used().map(|index| self.url(index).to_owned()),
            age_seconds: ranking.last_success().map(|at| at.elapsed().as_secs_f64()),
            last_error: ranking.last_error().cloned(),
            members: members.collect(),
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("options", &self.options).finish_non_exhaustive()
    }
}
