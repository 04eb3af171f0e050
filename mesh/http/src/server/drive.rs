//! Driving a connection: its work, the signal to stop, and its limits of time.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use eastway_core::Reason;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;

use super::io::Progress;
use super::service::Outgoing;
use super::{Ended, ServerOptions};
use crate::exec::LocalExec;
use crate::sweeper::{Deadline, Sweeper};

/// What hyper's two kinds of connection have in common.
pub(super) trait Connection: Future<Output = hyper::Result<()>> {
    /// Whether a head may arrive in pieces between requests.
    const HEADS: bool;

    fn stop(self: Pin<&mut Self>);
}

impl<I, S> Connection for http1::UpgradeableConnection<I, S>
where
    I: Read + Write + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = Outgoing, Error = std::convert::Infallible>,
{
    const HEADS: bool = true;

    fn stop(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S> Connection for http2::Connection<I, S, LocalExec>
where
    I: Read + Write + Unpin,
    S: HttpService<Incoming, ResBody = Outgoing, Error = std::convert::Infallible>,
    S::Future: 'static,
{
    const HEADS: bool = false;

    fn stop(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

pub(super) async fn drive<C: Connection>(
    mut connection: Pin<Box<C>>,
    options: &ServerOptions,
    sweeper: &Sweeper,
    progress: &Progress,
    stop: impl Future<Output = ()>,
) -> Ended {
    let mut stop = pin!(stop);
    let mut stopping = false;
    let mut patience = Patience::new(options, sweeper, C::HEADS);
    std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended(result));
            }
            if !stopping && stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                connection.as_mut().stop();
                continue;
            }
            match patience.poll(cx, progress) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Limit::Stuck) => return Poll::Ready(Ended::Idle),
                Poll::Ready(Limit::Idle) if stopping => return Poll::Ready(Ended::Idle),
                Poll::Ready(Limit::Idle) => {
                    stopping = true;
                    connection.as_mut().stop();
                }
            }
        }
    })
    .await
}

fn ended(result: hyper::Result<()>) -> Ended {
    match result {
        Ok(()) => Ended::Done,
        Err(error) if error.is_parse_too_large() => Ended::Malformed(Reason::HeaderTooLarge),
        Err(error) if error.is_parse() => Ended::Malformed(Reason::MalformedRequest),
        Err(error) if error.is_incomplete_message() => Ended::CallerGone,
        Err(error) => Ended::Failed(error),
    }
}

/// A limit of time that was exceeded.
enum Limit {
    /// A head was begun and not finished, or a response is not read: nothing more can be said to the peer.
    Stuck,
    /// No request for too long.
    Idle,
}

/// Looks at a connection once per period of `header_timeout`, so that requests need not touch any timer.
struct Patience {
    deadline: Deadline,
    period: Duration,
    idle_timeout: Duration,
    heads: bool,
    /// What was seen at the last look.
    requests: u64,
    read: u64,
    active: bool,
    /// Bytes came, or must come, without a request being complete.
    expecting: bool,
    idle: Duration,
    stalled_at: Option<u64>,
    stalled: Duration,
}

impl Patience {
    fn new(options: &ServerOptions, sweeper: &Sweeper, heads: bool) -> Self {
        Self {
            deadline: sweeper.after(options.header_timeout),
            period: options.header_timeout,
            idle_timeout: options.idle_timeout,
            heads,
            requests: 0,
            read: 0,
            active: false,
            // The first head is waited for from the start.
            expecting: heads,
            idle: Duration::ZERO,
            stalled_at: None,
            stalled: Duration::ZERO,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, progress: &Progress) -> Poll<Limit> {
        while self.deadline.poll_expired(cx).is_ready() {
            self.deadline.reset(self.period);
            if let Some(limit) = self.look(progress) {
                return Poll::Ready(limit);
            }
        }
        Poll::Pending
    }

    fn look(&mut self, progress: &Progress) -> Option<Limit> {
        if self.is_stalled(progress) {
            return Some(Limit::Stuck);
        }
        let (requests, read) = (progress.requests(), progress.read());
        let active = progress.is_active();
        // A request that was under way at the last look has ended since: the quiet begins now.
        let was_active = std::mem::replace(&mut self.active, active);
        let quiet = requests == self.requests && !active && !was_active;
        let arrived = read > self.read;
        (self.requests, self.read) = (requests, read);
        if !quiet {
            self.expecting = false;
            self.idle = Duration::ZERO;
            return None;
        }
        if self.expecting {
            return Some(Limit::Stuck);
        }
        if arrived && self.heads {
            self.expecting = true;
            return None;
        }
        self.idle += self.period;
        (self.idle >= self.idle_timeout).then_some(Limit::Idle)
    }

    /// Whether the peer has read nothing for the idle timeout although bytes wait for it.
    fn is_stalled(&mut self, progress: &Progress) -> bool {
        let at = progress.stalled_at();
        let same = at.is_some() && at == std::mem::replace(&mut self.stalled_at, at);
        self.stalled = if same { self.stalled + self.period } else { Duration::ZERO };
        self.stalled >= self.idle_timeout
    }
}
