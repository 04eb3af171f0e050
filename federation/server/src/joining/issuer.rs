//! The asked side: a gateway that nobody knows yet shows a token of this cluster.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use eastway_core::{Chain, SpiffeId};
use eastway_identity::{ServerTls, bundle_hash, introducing_server, vouched_gateway};
use eastway_proto::federation::v1::join_refused::Cause;
use eastway_proto::federation::v1::join_response::Outcome;
use eastway_proto::federation::v1::{Introduction, JoinRefused, JoinRequest, JoinResponse, Joined};
use eastway_runtime::throttled;
use eastway_transport::Io;
use rustls_pki_types::CertificateDer;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use zeroize::Zeroize;

use super::document::Other;
use super::tokens::{Invalid, StoredToken, User, find, redeem};
use super::{JOIN_ALPN, Joining, known_as, wire};
use crate::resources::NotApplied;

/// Addresses that a cluster may state for itself.
const MAX_GATEWAYS: usize = 64;

/// Why nobody joined.
struct Refusal {
    cause: Cause,
    message: String,
}

impl Refusal {
    fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::Unknown => {
                Self::new(Cause::UnknownToken, "no such token is known here: it was withdrawn, or expired long ago")
            }
            Invalid::Expired => Self::new(Cause::Expired, "the token has expired"),
            Invalid::Used(User { cluster, .. }) => {
                Self::new(Cause::Used, format!("the token is used up: the cluster {cluster} has joined with it"))
            }
            Invalid::Store(error) => Self::new(Cause::Unavailable, format!("the store fails: {}", Chain(&error))),
        }
    }
}

impl From<NotApplied> for Refusal {
    fn from(error: NotApplied) -> Self {
        let cause = if matches!(error, NotApplied::Store(_)) { Cause::Unavailable } else { Cause::Refused };
        Self::new(cause, Chain(&error).to_string())
    }
}

impl Joining {
    /// The configuration of the handshake with a gateway that is not known yet.
    pub fn tls(&self) -> ServerTls {
        introducing_server(&self.identity, &[JOIN_ALPN])
    }

    /// Serves a connection on which [`JOIN_ALPN`] was agreed on. Returns when it has ended, which is soon.
    pub async fn serve(&self, mut io: Io) {
        let address = io.peer_addr();
        let mut place = self.places.enter(address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip()));
        let limit = self.hub.options.joining.exchange_timeout;
        let served = tokio::select! {
            served = timeout(limit, self.exchange(&mut io)) => served,
            () = place.displaced() => {
                throttled!(info, ?address, "ended an exchange about a token: a newer one needs its place");
                return;
            }
        };
        match served {
            Ok(Ok(())) => {}
            Ok(Err(error)) => throttled!(info, ?address, %error, "an exchange about a token broke off"),
            Err(_) => throttled!(info, ?address, "ended an exchange about a token: it took too long"),
        }
    }

    async fn exchange(&self, io: &mut Io) -> io::Result<()> {
        let meta = self.hub.read(|catalogue, _| catalogue.meta().clone());
        let trust_bundle = self.identity.bundle().iter().map(|certificate| certificate.to_vec()).collect();
        let introduction = Introduction { cluster: meta.name, trust_domain: meta.trust_domain, trust_bundle };
        wire::write(io, &introduction).await?;
        let mut request: JoinRequest = wire::read(io).await?;
        // The stream is not shared between threads, so that it is looked at before anything is waited for.
        let admitted = match introduced(io, &request) {
            Ok((other, id)) => self.admit(&other, &id, &request.secret).await,
            Err(refusal) => Err(refusal),
        };
        let outcome = match admitted {
            Ok(()) => Outcome::Joined(Joined { gateways: self.hub.gateways() }),
            Err(Refusal { cause, message }) => {
                throttled!(warn, cluster = request.cluster, address = ?io.peer_addr(), message, "nobody joined by a token");
                let now_ms = (self.hub.options.wall_clock)();
                Outcome::Refused(JoinRefused { cause: cause.into(), message, now_ms })
            }
        };
        request.secret.zeroize();
        wire::write(io, &JoinResponse { outcome: Some(outcome) }).await?;
        io.shutdown().await
    }

    /// Makes who asks a peer, if that is who it says and its token counts.
    async fn admit(&self, other: &Other, id: &SpiffeId, secret: &[u8]) -> Result<(), Refusal> {
        let bundle = bundle_hash(&other.bundle);
        let (user, now) = (User::new(&other.cluster, &bundle), (self.hub.options.wall_clock)());
        // Nothing is told to who has no token.
        let (token, _) = find(&*self.store, secret, &user, now).await?;
        let known = known_as(&self.hub, (&other.cluster, &other.trust_domain), &bundle);
        let is_peer = known.map_err(|why| Refusal::new(Cause::Refused, why))?;
        let declared = self.resources.file_of(&crate::document::DocumentId::peer(&other.cluster));
        if declared.is_none() {
            // A token is not used up by what cannot be taken.
            self.take_joiner(other, &token, is_peer, true).await?;
        }
        let token = redeem(&*self.store, secret, &user, now).await?;
        if declared.is_none() {
            self.take_joiner(other, &token, is_peer, false).await?;
        }
        tracing::info!(cluster = other.cluster, gateway = %id, by = token.by, "a cluster has joined by a token");
        Ok(())
    }

    async fn take_joiner(
        &self,
        other: &Other,
        token: &StoredToken,
        is_peer: bool,
        dry_run: bool,
    ) -> Result<(), Refusal> {
        // What an operator has changed since stays.
        let imports = (!is_peer).then_some(token.imports.as_slice());
        let (name, by) = (&other.cluster, format!("token of {}", token.by));
        self.resources.join(name, |applied| other.document(applied, imports), &by, dry_run).await?;
        Ok(())
    }
}

/// Who asks, if its own bundle vouches for what it has shown in the handshake.
fn introduced(io: &Io, request: &JoinRequest) -> Result<(Other, SpiffeId), Refusal> {
    let refused = |why: String| Refusal::new(Cause::Refused, why);
    let bundle: Vec<CertificateDer<'static>> = request.trust_bundle.iter().cloned().map(Into::into).collect();
    let shown = io.peer_chain().unwrap_or_default();
    let id = vouched_gateway(&request.trust_domain, bundle.clone(), shown)
        .map_err(|error| refused(format!("the gateway that asks is not believed: {}", Chain(&error))))?;
    if request.gateways.is_empty() || request.gateways.len() > MAX_GATEWAYS {
        return Err(refused(format!(
            "{} addresses of gateways: 1 to {MAX_GATEWAYS} are taken",
            request.gateways.len()
        )));
    }
    let (cluster, trust_domain) = (request.cluster.clone(), request.trust_domain.clone());
    Ok((Other { cluster, trust_domain, bundle, gateways: request.gateways.clone() }, id))
}
