//! Two clusters become peers by a token: one issues it, the other joins with it, and each has a `Peer` for the other then.
//!
//! A token names the cluster that issues it, where its gateways are reached, and its CA by a hash; and it has a secret, of which the
//! cluster's store keeps the hash. A gateway that joins dials one of these gateways. Neither side can verify the other by then, so
//! that they use a protocol of its own ([`JOIN_ALPN`]), which is spoken only while there are tokens and is good for one exchange:
//!
//! 1. The asked gateway sends its bundle. The joining one compares it with the token, and what was shown in the handshake with it.
//! 2. The joining gateway sends the secret, and who it is, with its bundle. The asked one compares likewise.
//! 3. The asked cluster notes in its store that the token is used, and by whom, takes the `Peer`, and answers. The joining one takes
//!    its own.
//!
//! Whatever breaks in between, the same cluster may repeat it with the same token for as long as that is valid.

use std::sync::Arc;

use eastway_identity::{Identity, bundle_hash};
use eastway_runtime::displacing::Displacing;
use serde::Serialize;

use crate::dialer::Dialer;
use crate::hub::Hub;
use crate::resources::{Change, NotApplied, Outcome, ResourceSet};
use crate::store::{Store, StoreError};

mod document;
mod issuer;
mod joiner;
mod text;
mod tokens;
mod wire;

#[cfg(test)]
mod tests;

pub use joiner::{Joined, NotJoined};
pub use text::TokenError;
pub use tokens::{NewToken, NotIssued};

pub(crate) use tokens::Tokens;

/// The application protocol of the exchange, over TLS on the TCP port of tunnels.
pub const JOIN_ALPN: &[u8] = b"eastway-join/1";

/// One gateway's part in it.
#[derive(Debug)]
pub struct Joining {
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    resources: Arc<ResourceSet>,
    identity: Arc<Identity>,
    dialer: Arc<dyn Dialer>,
    tokens: Arc<Tokens>,
    /// Exchanges that are being served.
    places: Arc<Displacing>,
}

/// A token, and what it is good for.
#[derive(Clone, Debug, Serialize)]
pub struct IssuedToken {
    /// Its text: whoever has it may join.
    pub token: String,
    /// The cluster that issued it.
    pub cluster: String,
    /// Where whoever joins finds this cluster.
    pub gateways: Vec<String>,
    /// Until when it is valid, in milliseconds since 1970, by the clock of the gateway that redeems it.
    pub expires_ms: u64,
}

impl Joining {
    pub(crate) fn new(
        (hub, store): (Arc<Hub>, Arc<dyn Store>),
        resources: Arc<ResourceSet>,
        identity: Arc<Identity>,
        dialer: Arc<dyn Dialer>,
        tokens: Arc<Tokens>,
    ) -> Self {
        let most = hub.options.joining.max_exchanges;
        Self { hub, store, resources, identity, dialer, tokens, places: Displacing::new(most, most.div_ceil(2)) }
    }

    /// Makes a token by which one cluster may join.
    ///
    /// # Errors
    /// It would be valid for too long, there are too many, or the store failed.
    pub async fn issue(&self, new: &NewToken, by: &str) -> Result<IssuedToken, NotIssued> {
        let (now, options) = ((self.hub.options.wall_clock)(), &self.hub.options.joining);
        let issued = self.tokens.issue(&*self.store, new, by, now, options).await?;
        let meta = self.hub.read(|catalogue, _| catalogue.meta().clone());
        let token = text::Token {
            cluster: meta.name.clone(),
            trust_domain: meta.trust_domain,
            gateways: self.hub.gateways(),
            bundle: bundle_hash(&self.identity.bundle()),
            secret: issued.secret,
            expires_ms: issued.expires_ms,
            offers: new.offers.clone(),
        };
        let (token, gateways, expires_ms) = (token.to_text(), token.gateways.clone(), token.expires_ms);
        Ok(IssuedToken { token, cluster: meta.name, gateways, expires_ms })
    }

    /// Ends every token: nobody joins by one that was made before. Answers how many there were.
    ///
    /// # Errors
    /// The store failed.
    pub async fn withdraw(&self) -> Result<u64, StoreError> {
        self.tokens.withdraw(&*self.store).await
    }

    /// Whether there is a token by which somebody could join now.
    pub fn is_open(&self) -> bool {
        self.tokens.is_any_valid((self.hub.options.wall_clock)())
    }

    /// Makes `name` a peer no longer, if no file declares it.
    ///
    /// # Errors
    /// It is no peer, a file declares it, or the store failed.
    pub async fn remove(&self, name: &str, by: &str) -> Result<Outcome, NotApplied> {
        let id = crate::document::DocumentId::peer(name);
        if let Some(file) = self.resources.file_of(&id) {
            let why = format!("Peer {name} is declared by {file}: remove it there, and reload (SIGHUP)");
            return Err(NotApplied::NotThere(why));
        }
        self.resources.change(&Change::Delete { resources: vec![id] }, by, false).await.map_err(|error| match error {
            NotApplied::NotThere(_) => {
                NotApplied::NotThere(format!("`{name}` is no peer of this cluster: see `eastway peer list`"))
            }
            error => error,
        })
    }
}

/// What `known` has against `cluster` as a peer of this trust domain and bundle; `Ok` says whether it is one already.
fn known_as(hub: &Hub, (cluster, trust_domain): (&str, &str), bundle: &[u8; 32]) -> Result<bool, String> {
    hub.read(|catalogue, _| {
        let peers = &catalogue.resources().peers;
        let hash = |policy: &eastway_registry::PeerPolicy| {
            let bundle: Vec<_> = policy.trust_bundle.iter().map(|der| der.as_slice().into()).collect();
            bundle_hash(&bundle)
        };
        let own = &catalogue.meta().name;
        if let Some((other, _)) = peers.iter().find(|(n, p)| *n != cluster && p.trust_domain == trust_domain) {
            return Err(format!("the trust domain {trust_domain} is that of {other}, a peer of {own} already"));
        }
        match peers.get(cluster) {
            None => Ok(false),
            Some(policy) if policy.trust_domain == trust_domain && hash(policy) == *bundle => Ok(true),
            Some(_) => Err(format!(
                "{own} has a peer {cluster} with another CA already: if that is gone or has a new CA, `eastway peer remove \
                 {cluster}` at a gateway of {own} makes room"
            )),
        }
    })
}
