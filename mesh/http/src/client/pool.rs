//! Idle HTTP/1.1 connections, by upstream.
//!
//! The one used last is taken first, so that the others age and are closed. The pool never dials: [`Pool::take`] gives an
//! idle connection or none, and [`Pool::lease`] brings a new one under its care.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::rc::{Rc, Weak};
use std::time::Duration;

use http_body::Body as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{H1, SendError, SendFailure};
use crate::body::{End, Observer};
use crate::message::{Request, Response};
use idle_limit::IdleLimit;

mod idle_limit;

/// How long a connection whose response is complete may take to become usable again: it may still be sending the
/// request's body.
const SETTLE: Duration = Duration::from_secs(1);

/// How many idle connections to keep, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Idle connections of one upstream; 256 by default.
    pub max_idle_per_key: usize,
    /// Idle connections in all; 4,096 by default.
    pub max_idle: usize,
    /// How long a connection may be idle; 60 s by default.
    pub idle_timeout: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { max_idle_per_key: 256, max_idle: 4096, idle_timeout: Duration::from_secs(60) }
    }
}

/// The idle connections of one worker. `K` names an upstream: its endpoint, and as whom it is called.
pub struct Pool<K>(Rc<Inner<K>>);

struct Inner<K> {
    idle: RefCell<HashMap<K, Upstream>>,
    count: Cell<usize>,
    options: PoolOptions,
    ended: Rc<Notify>,
}

/// What is kept of one upstream.
#[derive(Default)]
struct Upstream {
    /// Its idle connections, the one used last at the end.
    stack: Vec<Idle>,
    limit: IdleLimit,
    /// When it was used last: nothing is remembered of one that nobody uses.
    used: Option<Instant>,
}

impl Upstream {
    /// The upstream closed a connection while it was idle, or as it was used.
    fn learn(&mut self, idle: &Idle) {
        if let Some(ended) = idle.connection.ended_at() {
            self.limit.closed(ended - idle.since);
        }
    }
}

struct Idle {
    connection: H1,
    since: Instant,
}

impl<K: Clone + Eq + Hash + 'static> Pool<K> {
    /// An empty pool. Its task on the current `LocalSet` closes what is idle for too long, and ends with the pool.
    pub fn new(options: PoolOptions) -> Self {
        let ended = Rc::new(Notify::new());
        let inner = Rc::new(Inner { idle: RefCell::default(), count: Cell::new(0), options, ended: Rc::clone(&ended) });
        tokio::task::spawn_local(expire(Rc::downgrade(&inner), ended, options.idle_timeout / 2));
        Self(inner)
    }

    /// The connection to `key` that was used last, if one is idle and alive.
    pub fn take(&self, key: &K) -> Option<Leased<K>> {
        self.take_if(key, true)
    }

    /// The same for a request that may not be repeated: only a connection that its upstream will hardly close just now.
    pub fn take_for_once(&self, key: &K) -> Option<Leased<K>> {
        self.take_if(key, false)
    }

    fn take_if(&self, key: &K, repeatable: bool) -> Option<Leased<K>> {
        let Idle { connection, since } = self.0.take(key, repeatable)?;
        let idle_for = since.elapsed();
        Some(Leased { idle_for: Some(idle_for), ..self.lease(key.clone(), connection) })
    }

    /// Brings a connection to `key` under the pool's care: it comes back when a response over it has ended well.
    pub fn lease(&self, key: K, connection: H1) -> Leased<K> {
        Leased { connection, key, pool: Rc::downgrade(&self.0), idle_for: None }
    }

    /// Closes the idle connections to the upstreams that `keep` does not want.
    pub fn retain(&self, mut keep: impl FnMut(&K) -> bool) {
        self.0.idle.borrow_mut().retain(|key, _| keep(key));
        self.0.recount();
    }

    /// Closes all idle connections.
    pub fn clear(&self) {
        self.retain(|_| false);
    }

    /// How many connections are idle.
    pub fn idle(&self) -> usize {
        self.0.count.get()
    }
}

impl<K> Clone for Pool<K> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<K> fmt::Debug for Pool<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &self.0.count.get()).finish()
    }
}

impl<K: Clone + Eq + Hash> Inner<K> {
    fn take(&self, key: &K, repeatable: bool) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        let upstream = idle.get_mut(key)?;
        let now = Instant::now();
        upstream.used = Some(now);
        while let Some(last) = upstream.stack.last() {
            let age = now - last.since;
            let alive = last.connection.is_ready();
            if alive && age < self.options.idle_timeout && !upstream.limit.allows(age, repeatable) {
                // All others are older.
                return None;
            }
            let Some(last) = upstream.stack.pop() else { break };
            self.count.set(self.count.get() - 1);
            if !alive {
                upstream.learn(&last);
            } else if age < self.options.idle_timeout {
                return Some(last);
            }
        }
        None
    }

    /// The connection ended as a request was sent over it, after it had been idle for `age`.
    fn lost(&self, key: &K, age: Duration) {
        if let Some(upstream) = self.idle.borrow_mut().get_mut(key) {
            upstream.limit.closed(age);
        }
    }

    fn put(&self, key: K, connection: H1) {
        if !connection.is_ready() || self.count.get() >= self.options.max_idle {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let upstream = idle.entry(key).or_default();
        let now = Instant::now();
        upstream.used = Some(now);
        if upstream.stack.len() < self.options.max_idle_per_key {
            upstream.stack.push(Idle { connection, since: now });
            self.count.set(self.count.get() + 1);
        }
    }

    fn expire(&self, now: Instant) {
        let limit = self.options.idle_timeout;
        self.idle.borrow_mut().retain(|_, upstream| {
            if let Some(closed) = upstream.stack.iter().rposition(|idle| idle.connection.is_closed()) {
                let closed = upstream.stack.remove(closed);
                upstream.learn(&closed);
            }
            upstream.stack.retain(|idle| !idle.connection.is_closed() && now - idle.since < limit);
            !upstream.stack.is_empty() || upstream.used.is_some_and(|used| now - used < limit)
        });
        self.recount();
    }

    fn recount(&self) {
        self.count.set(self.idle.borrow().values().map(|upstream| upstream.stack.len()).sum());
    }
}

impl<K> Drop for Inner<K> {
    fn drop(&mut self) {
        self.ended.notify_one();
    }
}

async fn expire<K: Clone + Eq + Hash>(pool: Weak<Inner<K>>, ended: Rc<Notify>, period: Duration) {
    loop {
        tokio::select! {
            () = ended.notified() => return,
            () = tokio::time::sleep(period) => {}
        }
        let Some(pool) = pool.upgrade() else { return };
        pool.expire(Instant::now());
    }
}

/// A connection that returns to its pool by itself.
pub struct Leased<K> {
    connection: H1,
    key: K,
    pool: Weak<Inner<K>>,
    /// How long it was idle, if it was.
    idle_for: Option<Duration>,
}

impl<K: Clone + Eq + Hash + 'static> Leased<K> {
    /// Sends a request as [`H1::send`] does. The connection goes back to its pool once the response's body was read to
    /// its end; it is closed if the response is not read to its end, fails, or changes the protocol.
    ///
    /// # Errors
    /// Those of [`H1::send`]; the connection is closed then.
    pub async fn send(mut self, request: Request) -> Result<Response, SendError> {
        let response = match self.connection.send(request).await {
            Ok(response) => response,
            Err(error) => {
                self.learn(&error);
                return Err(error);
            }
        };
        if response.upgrading.is_some() {
            return Ok(response);
        }
        // The body may be at hand already.
        if response.body.is_end_stream() || self.connection.is_ready() {
            self.give_back();
            return Ok(response);
        }
        Ok(response.map(|body| body.observe(Return(Some(self)))))
    }

    /// Whether the connection has carried a request before.
    pub const fn is_reused(&self) -> bool {
        self.connection.is_reused()
    }

    /// A connection that is closed as it is used was idle for longer than its upstream likes.
    fn learn(&self, error: &SendError) {
        let closed = matches!(error.failure(), SendFailure::Closed | SendFailure::Reset);
        if let (Some(age), Some(pool)) = (self.idle_for.filter(|_| closed), self.pool.upgrade()) {
            pool.lost(&self.key, age);
        }
    }

    /// Gives the connection back as it is.
    pub fn give_back(mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        if self.connection.is_ready() {
            pool.put(self.key, self.connection);
        } else if !self.connection.is_closed() {
            drop(pool);
            tokio::task::spawn_local(async move {
                let settled = tokio::time::timeout(SETTLE, self.connection.ready()).await;
                if let (Ok(true), Some(pool)) = (settled, self.pool.upgrade()) {
                    pool.put(self.key, self.connection);
                }
            });
        }
    }
}

impl<K> fmt::Debug for Leased<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leased").field(&self.connection).finish()
    }
}

struct Return<K>(Option<Leased<K>>);

impl<K: Clone + Eq + Hash + 'static> Observer for Return<K> {
    fn end(&mut self, end: &End<'_>) {
        if let (End::Complete, Some(leased)) = (end, self.0.take()) {
            leased.give_back();
        }
    }
}
