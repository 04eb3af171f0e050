//! What a silent response means: a slow application, or a host that is gone.
//!
//! Links and HTTP/2 connections probe their peer by PING. HTTP/1.1 has nothing to probe with, and neither do the kernel's
//! timeouts tell: a host whose processes stand still acknowledges every byte. So a second connection is the liveness probe:
//! whoever completes a TLS handshake lives, and the response is waited for as long as the caller likes. Only silence is
//! evidence here. A refusal is none: it comes from a host that answers, for example of a sidecar that drains and still owes
//! this very response.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eastway_balance::Endpoint;
use eastway_identity::client_config;
use eastway_resilience::AttemptError;
use eastway_transport::tls;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::{ALPN_H1, Call, Key, Upstreams, dial, expected, key};

/// How long it is believed that a host lives, before it is probed again.
const BELIEVED: Duration = Duration::from_secs(1);
/// Probes in a row without an answer that make a host gone: one may have come while it was busy.
const UNANSWERED: usize = 2;

/// The liveness probes of one worker, by endpoint. All requests that wait for the same host share one.
#[derive(Default)]
pub(super) struct Probes(RefCell<HashMap<Key, Probe>>);

struct Probe {
    began: Instant,
    gone: Rc<OnceCell<bool>>,
}

/// Runs `attempt` to its end, unless it is silent, its connection `needs_probe`, and the host of `endpoint` does not answer a
/// liveness probe. The attempt is taken by reference, and the probe is boxed, so that the future of every request does not
/// hold room for both.
///
/// # Errors
/// Those of `attempt`, or that the host is gone.
pub(crate) async fn unless_gone<T>(
    upstreams: &Upstreams,
    call: &Call<'_>,
    (endpoint, needs_probe): (Option<&Arc<Endpoint>>, &Cell<bool>),
    mut attempt: Pin<&mut impl Future<Output = Result<T, AttemptError>>>,
) -> Result<T, AttemptError> {
    let Some(endpoint) = endpoint else { return attempt.await };
    let mut silence = upstreams.sweeper.after(upstreams.node.config.timeouts.ping_after);
    loop {
        tokio::select! {
            biased;
            ended = &mut attempt => return ended,
            () = &mut silence => {}
        }
        if !needs_probe.get() {
            // Its connection probes by itself.
            silence = upstreams.sweeper.after(BELIEVED);
            continue;
        }
        tokio::select! {
            biased;
            ended = &mut attempt => return ended,
            gone = Box::pin(is_gone(upstreams, call, endpoint)) => {
                if gone {
                    // As for an HTTP/2 connection whose ping is not answered.
                    return Err(AttemptError::silent());
                }
            }
        }
        silence = upstreams.sweeper.after(BELIEVED);
    }
}

/// Probes the host, or waits for the outcome of a probe that is under way.
async fn is_gone(upstreams: &Upstreams, call: &Call<'_>, endpoint: &Arc<Endpoint>) -> bool {
    let key = key(call, endpoint);
    let gone = {
        let mut all = upstreams.probes.0.borrow_mut();
        all.retain(|_, probe| probe.began.elapsed() < BELIEVED);
        let new = || Probe { began: Instant::now(), gone: Rc::default() };
        Rc::clone(&all.entry(key.clone()).or_insert_with(new).gone)
    };
    // If whoever probes gives up, the next one that waits goes on.
    let answer = *gone.get_or_init(|| probe(upstreams, call, endpoint)).await;
    if answer {
        // It may come back at any time: that is found out anew.
        upstreams.probes.0.borrow_mut().remove(&key);
    }
    answer
}

async fn probe(upstreams: &Upstreams, call: &Call<'_>, endpoint: &Arc<Endpoint>) -> bool {
    for _ in 0..UNANSWERED {
        if answers(upstreams, call, endpoint).await {
            return false;
        }
    }
    tracing::info!(endpoint = %endpoint.id, "its host answers nothing any more");
    true
}

async fn answers(upstreams: &Upstreams, call: &Call<'_>, endpoint: &Arc<Endpoint>) -> bool {
    let node = &upstreams.node;
    let Some(address) = endpoint.address else { return true };
    let stream = match dial(node, address).await {
        Ok(stream) => stream,
        Err(error) => return error.kind() != io::ErrorKind::TimedOut,
    };
    let config = client_config(&node.identity, expected(node, call), ALPN_H1);
    timeout(node.config.timeouts.ping_timeout, tls::connect(stream, config)).await.is_ok()
}
