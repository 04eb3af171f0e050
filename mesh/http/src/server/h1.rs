//! Serving HTTP/1.1: one request after the other, answered in order.

mod caller;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use eastway_core::head::HttpVersion;
use eastway_transport::Io;
use tokio::io::AsyncWriteExt as _;

use super::service::last_hop;
use super::{Ended, Handler, ServerOptions};
use crate::body::Body;
use crate::framing::{Forwards, count_forwards};
use crate::limits::HeadLimits;
use crate::message::{Interim, Request, RequestHead, Response};
use crate::sweeper::Sweeper;
use crate::upgrade::{Promise, Upgrading};
use crate::wire::{Buffers, Limits, Sending, ServerConnection, ServerEnd, Shared, Unsent};
use caller::Caller;

/// Serves a connection, of which `ahead` was read already, until it ends. See [`serve`](super::serve).
pub(super) async fn serve(
    io: Io,
    ahead: Bytes,
    (options, sweeper): (&ServerOptions, &Sweeper),
    stop: impl Future<Output = ()>,
    handler: impl Handler,
) -> Ended {
    let connection = ServerConnection::new(io, &ahead, &shared(options, sweeper));
    let (caller, mut stop) = (Caller::new(connection), pin!(stop));
    loop {
        let head = match poll_fn(|cx| caller.poll_next(stop.as_mut(), cx)).await {
            Ok(head) => head,
            Err(end) => return end_with(&caller, end, &options.node).await,
        };
        match answer(&caller, head, &handler, stop.as_mut()).await {
            Next::Request => {}
            Next::Tunnel(promise) => {
                if let Some(Ok(io)) = caller.take_io().await
                    && let Some(mut unwanted) = promise.keep(io)
                {
                    // What was said of it is to arrive.
                    let _ = unwanted.shutdown().await;
                }
                return Ended::Done;
            }
            Next::End(ended) => {
                caller.abandon();
                return ended;
            }
        }
    }
}

fn shared(options: &ServerOptions, sweeper: &Sweeper) -> Shared {
    let limits = Limits {
        head: HeadLimits { bytes: options.max_header_bytes as usize, ..HeadLimits::default() },
        head_timeout: options.header_timeout,
        idle_timeout: options.idle_timeout,
        silence: options.idle_timeout,
    };
    Shared { buffers: Buffers::of_this_thread(), sweeper: sweeper.clone(), limits: Rc::new(limits) }
}

async fn end_with(caller: &Caller, end: ServerEnd, node: &str) -> Ended {
    if let ServerEnd::Refused(refused) = &end {
        caller.with(|connection| connection.refuse(refused, node));
    }
    caller.close().await;
    match end {
        ServerEnd::Done | ServerEnd::Unanswered => Ended::Done,
        ServerEnd::Idle | ServerEnd::SlowHead => Ended::Idle,
        ServerEnd::CallerGone => Ended::CallerGone,
        ServerEnd::Refused(refused) => Ended::Malformed(refused.reason),
    }
}

/// What follows an answer.
enum Next {
    /// Another request, if the connection allows it.
    Request,
    /// Raw bytes.
    Tunnel(Promise),
    /// Nothing: the caller has gone, or its answer broke off.
    End(Ended),
}

/// Takes a request to the end of its answer.
async fn answer<S: Future<Output = ()>>(
    caller: &Rc<Caller>,
    mut head: RequestHead,
    handler: &impl Handler,
    mut stop: Pin<&mut S>,
) -> Next {
    let connect = head.is_connect();
    let (promise, upgrading) = match connect || head.upgrade().is_some() {
        true => {
            let (promise, upgrading) = Upgrading::promised();
            (Some(promise), Some(upgrading))
        }
        false => (None, None),
    };
    let response = match count_forwards(&mut head) {
        Forwards::Answer => last_hop(&head),
        Forwards::On => {
            let body = caller.body(head.length);
            // HTTP/1.0 knows none.
            let interim = (head.version >= HttpVersion::Http11).then(|| Interim::to(Rc::clone(caller) as _));
            let mut handling = pin!(handler.handle(Request { head, body, upgrading, interim }));
            let handled = poll_fn(|cx| caller.poll_handled(handling.as_mut(), stop.as_mut(), cx)).await;
            let Some(response) = handled else { return Next::End(Ended::CallerGone) };
            response
        }
    };
    let agreed = response.head.is_switch() || (connect && response.head.is_success());
    let Some(body) = caller.begin_answer(response) else { return Next::End(Ended::CallerGone) };
    if let Some(promise) = promise.filter(|_| agreed) {
        return Next::Tunnel(promise);
    }
    if let Err(ended) = send(caller, body).await {
        return Next::End(ended);
    }
    // Whoever sends the request on may not be done with it.
    poll_fn(|cx| caller.poll_request_left(cx)).await;
    Next::Request
}

/// Sends the body of an answer to its end, or says how the connection has ended.
async fn send(caller: &Caller, body: Body) -> Result<(), Ended> {
    let mut sending = Sending::new(body);
    let sent = poll_fn(|cx| match sending.poll(caller, cx) {
        Poll::Pending => caller.poll_gone(cx).map(|()| Err(Unsent::Unwanted)),
        sent => sent,
    });
    match sent.await {
        Ok(()) => Ok(()),
        Err(Unsent::Unwanted) => Err(Ended::CallerGone),
        Err(Unsent::Stalled) => Err(Ended::Idle),
        Err(Unsent::Body(_) | Unsent::WrongLength) => {
            // What came before it failed is the caller's.
            caller.close().await;
            Err(Ended::Done)
        }
    }
}

impl Caller {
    /// Waits for the next request, unless it is time to stop and none was begun.
    fn poll_next<S: Future<Output = ()>>(
        &self,
        stop: Pin<&mut S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RequestHead, ServerEnd>> {
        self.poll_stop(stop, cx);
        self.with(|connection| match connection.poll_next(cx) {
            Poll::Pending if self.stops() && !connection.has_begun_request() => {
                connection.take_no_more();
                connection.poll_next(cx)
            }
            polled => polled,
        })
        .unwrap_or(Poll::Ready(Err(ServerEnd::CallerGone)))
    }

    /// Waits for the handler's answer; `None` if the caller goes away before.
    fn poll_handled<S: Future<Output = ()>>(
        &self,
        handling: Pin<&mut impl Future<Output = Response>>,
        stop: Pin<&mut S>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Response>> {
        self.poll_stop(stop, cx);
        if let Poll::Ready(answer) = handling.poll(cx) {
            return Poll::Ready(Some(answer));
        }
        // An answer to an earlier request may not have been sent yet, or the caller is to be asked for its body.
        let flushed = self.with(|connection| connection.poll_flush(cx));
        if !matches!(flushed, Some(Poll::Pending | Poll::Ready(Ok(())))) {
            return Poll::Ready(None);
        }
        ready!(self.poll_gone(cx));
        Poll::Ready(None)
    }
}
