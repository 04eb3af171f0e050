//! The connections that all requests of a worker to one endpoint of its cluster share.
//!
//! A burst of first requests opens one: the first of them connects, and the others wait for how that ends. All protocols are
//! offered at once, and the called sidecar says which one it takes. When another one is wanted beside it, one request opens
//! that, and the others go by what there is.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eastway_balance::Endpoint;
use eastway_http::H1;
use eastway_request::Call;
use eastway_resilience::AttemptError;
use eastway_runtime::clock;
use tokio::sync::OnceCell;

use super::bundle::Bundle;
use super::multiplexed::{Multiplexed, link_options};
use super::{ALPN, Key, Upstreams, connect_local, key, sending};

/// A worker's shared connections, by endpoint.
#[derive(Default)]
pub(super) struct Connector {
    known: RefCell<HashMap<Key, Known>>,
    opening: RefCell<HashMap<Key, ConnectionOpening>>,
}

/// A connection that is being opened, for all who wait for it.
type ConnectionOpening = Rc<OnceCell<Result<Spoken, AttemptError>>>;

/// How an endpoint is spoken with.
#[derive(Clone, Debug)]
pub(super) enum Spoken {
    /// Many requests at once, on this connection.
    Many(Multiplexed),
    /// One request at a time on a connection.
    One,
}

/// What is known of an endpoint.
enum Known {
    Many(Bundle<Multiplexed>),
    One,
}

impl Connector {
    /// Closes what is idle.
    pub(super) fn clear(&self) {
        self.known.borrow_mut().clear();
    }

    /// How the endpoint can be spoken with as it is, and whether to open another connection all the same.
    fn usable(&self, key: &Key) -> (Option<Spoken>, bool) {
        match self.known.borrow_mut().get_mut(key) {
            None => (None, true),
            Some(Known::One) => (Some(Spoken::One), false),
            Some(Known::Many(bundle)) => {
                let chosen = bundle.choose().map(Spoken::Many);
                let another = chosen.is_none() || bundle.wants_another(clock::now);
                (chosen, another)
            }
        }
    }

    fn keep(&self, key: Key, spoken: &Spoken) {
        let mut known = self.known.borrow_mut();
        known.retain(|_, known| matches!(known, Known::Many(bundle) if !bundle.is_closed()));
        match (spoken, known.get_mut(&key)) {
            (Spoken::Many(connection), Some(Known::Many(bundle))) => bundle.add(connection.clone()),
            (Spoken::Many(connection), _) => drop(known.insert(key, Known::Many(Bundle::new(connection.clone())))),
            (Spoken::One, _) => drop(known.insert(key, Known::One)),
        }
    }
}

/// The connection to the endpoint, or how it is spoken with if it shares none.
///
/// # Errors
/// Why there is none.
pub(super) async fn connection(
    upstreams: &Upstreams,
    call: &Call<'_>,
    endpoint: &Arc<Endpoint>,
) -> Result<Spoken, AttemptError> {
    let (connector, key) = (&upstreams.connector, key(call, endpoint));
    let usable = match connector.usable(&key) {
        (Some(spoken), false) => return Ok(spoken),
        (usable, _) => usable,
    };
    let opening = Rc::clone(connector.opening.borrow_mut().entry(key.clone()).or_default());
    // If whoever connects gives up, the next one that waits goes on.
    let opened = opening.get_or_init(|| open(upstreams, call, endpoint)).await.clone();
    let mut all = connector.opening.borrow_mut();
    if all.get(&key).is_some_and(|known| Rc::ptr_eq(known, &opening)) {
        all.remove(&key);
        drop(all);
        if let Ok(spoken) = &opened {
            connector.keep(key, spoken);
        }
    }
    opened.or_else(|error| usable.ok_or(error))
}

async fn open(upstreams: &Upstreams, call: &Call<'_>, endpoint: &Arc<Endpoint>) -> Result<Spoken, AttemptError> {
    let (io, place) = connect_local(upstreams, call, endpoint, ALPN).await?;
    if io.alpn() == Some(b"http/1.1") {
        let connection = H1::new(io, &upstreams.options);
        upstreams.h1.lease(key(call, endpoint), connection.holding(place)).give_back();
        return Ok(Spoken::One);
    }
    let link = link_options(&upstreams.node, Duration::ZERO);
    let connection = Multiplexed::new(io, &upstreams.options, &link).await.map_err(sending)?;
    Ok(Spoken::Many(connection.holding(place)))
}
