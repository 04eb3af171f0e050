//! Driving a connection of HTTP/2: its work, the signal to stop, and its limits of time.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http2;
use hyper::service::HttpService;

use super::io::Progress;
use super::service::Outgoing;
use super::{Ended, ServerOptions};
use crate::exec::LocalExec;
use crate::sweeper::{Deadline, Sweeper};

pub(super) async fn drive<I, S>(
    mut connection: Pin<Box<http2::Connection<I, S, LocalExec>>>,
    options: &ServerOptions,
    sweeper: &Sweeper,
    progress: &Progress,
    stop: impl Future<Output = ()>,
) -> Ended
where
    I: Read + Write + Unpin,
    S: HttpService<Incoming, ResBody = Outgoing, Error = std::convert::Infallible>,
    S::Future: 'static,
{
    let mut stop = pin!(stop);
    let mut stopping = false;
    let mut patience = Patience::new(options, sweeper);
    std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended(result));
            }
            if !stopping && stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                connection.as_mut().graceful_shutdown();
                continue;
            }
            match patience.poll(cx, progress) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Limit::Stuck) => return Poll::Ready(Ended::Idle),
                Poll::Ready(Limit::Idle) if stopping => return Poll::Ready(Ended::Idle),
                Poll::Ready(Limit::Idle) => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    })
    .await
}

fn ended(result: hyper::Result<()>) -> Ended {
    match result {
        Ok(()) => Ended::Done,
        Err(error) if error.is_incomplete_message() => Ended::CallerGone,
        Err(error) => Ended::Failed(error),
    }
}

/// A limit of time that was exceeded.
enum Limit {
    /// A response is not read: nothing more can be said to the peer.
    Stuck,
    /// No request for too long.
    Idle,
}

/// Looks at a connection once per period of `header_timeout`, so that requests need not touch any timer.
struct Patience {
    deadline: Deadline,
    period: Duration,
    idle_timeout: Duration,
    /// What was seen at the last look.
    requests: u64,
    active: bool,
    idle: Duration,
    stalled_at: Option<u64>,
    stalled: Duration,
}

impl Patience {
    fn new(options: &ServerOptions, sweeper: &Sweeper) -> Self {
        Self {
            deadline: sweeper.after(options.header_timeout),
            period: options.header_timeout,
            idle_timeout: options.idle_timeout,
            requests: 0,
            active: false,
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
        let (requests, active) = (progress.requests(), progress.is_active());
        // A request that was under way at the last look has ended since: the quiet begins now.
        let was_active = std::mem::replace(&mut self.active, active);
        let quiet = std::mem::replace(&mut self.requests, requests) == requests && !active && !was_active;
        self.idle = if quiet { self.idle + self.period } else { Duration::ZERO };
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
