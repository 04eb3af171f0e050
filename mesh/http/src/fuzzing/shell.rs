//! A minimal forwarder made of [`wire`](crate::wire)'s two halves, for the tests and the fuzzer: it sends every request on and
//! every answer back, and decides nothing.

use std::future::poll_fn;

use eastway_transport::Io;

use crate::framing::Refused;
use crate::wire::{ClientConnection, Event, ForwardFault, Forwarding, ServerConnection, ServerEnd, Shared};

/// The name of this node in refusals.
pub const NODE: &str = "test-node";

/// Serves a caller until it has no more requests. `connect` dials an upstream when there is no connection to use again.
pub async fn forward(io: Io, shared: &Shared, reuse: bool, mut connect: impl AsyncFnMut() -> Io) -> ServerEnd {
    let mut server = ServerConnection::new(io, shared);
    let mut idle = None;
    let end = loop {
        if let Err(end) = server.next().await {
            break end;
        }
        let mut client = match idle.take() {
            Some(client) => client,
            None => ClientConnection::new(connect().await, shared),
        };
        if let Err(fault) = exchange(&mut server, &mut client, shared).await {
            refuse(&mut server, fault);
        } else if client.is_tunnel() {
            return tunnel(server, client).await;
        }
        idle = (reuse && client.settle()).then_some(client);
    };
    if let ServerEnd::Refused(refused) = &end {
        server.refuse(refused, NODE, false);
    }
    server.close().await;
    end
}

/// One request and its answer.
async fn exchange(
    server: &mut ServerConnection,
    client: &mut ClientConnection,
    shared: &Shared,
) -> Result<(), ForwardFault> {
    if let Some(request) = server.request() {
        let _ = client.send(&request, std::iter::empty());
    }
    let mut exchange = Forwarding::new(client, shared);
    while poll_fn(|cx| exchange.poll_event(server, client, cx)).await? != Event::Answered {}
    if let Some(response) = client.response() {
        let _ = server.respond(&response, std::iter::empty());
    }
    if client.is_tunnel() {
        return Ok(());
    }
    poll_fn(|cx| exchange.poll_finish(server, client, cx)).await
}

/// Says what went wrong, if the answer has not begun.
fn refuse(server: &mut ServerConnection, fault: ForwardFault) {
    let reason = match fault {
        ForwardFault::RequestBody(fault) => fault.request_reason(),
        ForwardFault::Upstream(error) => error.reason(),
        ForwardFault::CallerGone | ForwardFault::Answer(_) | ForwardFault::AnswerBody(_) => return,
    };
    server.refuse(&Refused::from(reason), NODE, false);
}

/// Raw bytes in both directions, until both have ended.
async fn tunnel(server: ServerConnection, client: ClientConnection) -> ServerEnd {
    if let (Ok(mut down), Ok(mut up)) = (server.into_io().await, client.into_io().await) {
        let _ = tokio::io::copy_bidirectional(&mut down, &mut up).await;
    }
    ServerEnd::Done
}
