//! The side that joins: it has the text of a token, and asks one of the gateways that this names.

use std::time::Duration;

use eastway_core::{Chain, Reason};
use eastway_identity::{IntroductionError, bundle_hash, introducing_client, vouched_gateway};
use eastway_proto::federation::v1::join_refused::Cause;
use eastway_proto::federation::v1::join_response::Outcome;
use eastway_proto::federation::v1::{Introduction, JoinRefused, JoinRequest, JoinResponse};
use eastway_transport::Io;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroize;

use super::document::Other;
use super::text::{Token, TokenError};
use super::{JOIN_ALPN, Joining, known_as, wire};
use crate::document::DocumentId;
use crate::resources::NotApplied;

/// Clocks that differ by less agree, as far as a token is concerned.
const SKEW: Duration = Duration::from_secs(60);

/// A cluster that was joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Joined {
    /// Its name: that of its `Peer` here.
    pub cluster: String,
    /// Its trust domain.
    pub trust_domain: String,
    /// Where its gateways are reached.
    pub gateways: Vec<String>,
    /// What is imported of it.
    pub imports: Vec<String>,
    /// What it suggests to import.
    pub offers: Vec<String>,
}

/// Why a cluster was not joined.
#[derive(Debug, thiserror::Error)]
pub enum NotJoined {
    /// The text is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It is a token of this cluster.
    #[error("the token is of {0}, this cluster itself: use it at a gateway of the other cluster")]
    Own(String),
    /// It collides with what is declared here.
    #[error("{0}")]
    Collides(String),
    /// No gateway of the other cluster could be asked.
    #[error("no gateway of {cluster} could be asked: {tried}{clock}")]
    Unreachable {
        /// The other cluster.
        cluster: String,
        /// The addresses, each with what happened.
        tried: String,
        /// What this gateway's clock says about it.
        clock: String,
    },
    /// The other cluster refuses.
    #[error("{cluster} refuses: {message}{hint}")]
    Refused {
        /// The other cluster.
        cluster: String,
        /// Its words.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The other cluster has taken this one for its peer, or would; here its `Peer` cannot be taken.
    #[error("the Peer {cluster} cannot be taken here: {error}; mend that, and repeat this command with the same token")]
    NotApplied {
        /// The other cluster.
        cluster: String,
        /// Why not.
        error: String,
    },
}

/// Why one address led to nothing.
enum Failure {
    /// Another one may do better.
    Next(String),
    /// No other one will.
    Final(NotJoined),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Next(format!("the exchange broke off: {}", Chain(&error)))
    }
}

impl Joining {
    /// Joins the cluster that issued the token, and imports `imports` of it; without, what is imported so far.
    ///
    /// # Errors
    /// Why not, and what to do. It may be repeated with the same token in any case.
    pub async fn join(&self, text: &str, imports: Option<&[String]>, by: &str) -> Result<Joined, NotJoined> {
        let token = Token::read(text)?;
        let options = &self.hub.options.joining;
        let own = self.hub.read(|catalogue, _| catalogue.meta().clone());
        if token.cluster == own.name || token.trust_domain == own.trust_domain {
            return Err(NotJoined::Own(own.name));
        }
        known_as(&self.hub, (&token.cluster, &token.trust_domain), &token.bundle).map_err(NotJoined::Collides)?;
        let (limit, end) = (options.exchange_timeout, Instant::now() + options.join_timeout);
        let mut tried = Vec::new();
        for address in &token.gateways {
            let failure =
                match timeout_at(end.min(Instant::now() + limit), self.ask(address, &token, imports, by)).await {
                    Ok(Ok(joined)) => {
                        tracing::info!(cluster = joined.cluster, by, "joined a cluster by its token");
                        return Ok(joined);
                    }
                    Ok(Err(Failure::Final(error))) => return Err(error),
                    Ok(Err(Failure::Next(why))) => why,
                    Err(_) => "it did not answer in time".to_owned(),
                };
            tried.push(format!("{address} ({failure})"));
        }
        Err(self.unreachable(&token, &tried))
    }

    fn unreachable(&self, token: &Token, tried: &[String]) -> NotJoined {
        let now = (self.hub.options.wall_clock)();
        let clock = match now.checked_sub(token.expires_ms) {
            Some(late) => format!("; by this gateway's clock the token expired {} s ago", late / 1000),
            None => String::new(),
        };
        let tried = if tried.is_empty() { "the token names no address".to_owned() } else { tried.join(", ") };
        NotJoined::Unreachable { cluster: token.cluster.clone(), tried, clock }
    }

    async fn ask(&self, address: &str, token: &Token, imports: Option<&[String]>, by: &str) -> Result<Joined, Failure> {
        let tls = introducing_client(&self.identity, &[JOIN_ALPN]);
        let dialled = self.dialer.introduce(address, tls).await;
        let mut io = dialled.map_err(|error| Failure::Next(error.message))?;
        let introduction: Introduction = wire::read(&mut io).await?;
        let mut other = believed(&io, introduction, token).map_err(Failure::Next)?;
        // Nothing is used up if it could not be taken here.
        self.take_issuer(&other, imports, by, true).await?;
        let mut request = self.request(token);
        let sent = wire::write(&mut io, &request).await;
        request.secret.zeroize();
        sent?;
        let response: JoinResponse = wire::read(&mut io).await?;
        match response.outcome {
            Some(Outcome::Joined(joined)) => {
                if !joined.gateways.is_empty() {
                    other.gateways = joined.gateways;
                }
                let imports = self.take_issuer(&other, imports, by, false).await?;
                let Other { cluster, trust_domain, gateways, .. } = other;
                Ok(Joined { cluster, trust_domain, gateways, imports, offers: token.offers.clone() })
            }
            Some(Outcome::Refused(refused)) => Err(self.refused(token, refused)),
            None => Err(Failure::Next("its answer is of a later release".to_owned())),
        }
    }

    fn request(&self, token: &Token) -> JoinRequest {
        let meta = self.hub.read(|catalogue, _| catalogue.meta().clone());
        JoinRequest {
            secret: token.secret.to_vec(),
            cluster: meta.name,
            trust_domain: meta.trust_domain,
            trust_bundle: self.identity.bundle().iter().map(|certificate| certificate.to_vec()).collect(),
            gateways: self.hub.gateways(),
        }
    }

    /// Takes the `Peer`, unless a file declares it; answers what is imported.
    async fn take_issuer(
        &self,
        other: &Other,
        imports: Option<&[String]>,
        by: &str,
        dry_run: bool,
    ) -> Result<Vec<String>, Failure> {
        let cluster = &other.cluster;
        if self.resources.file_of(&DocumentId::peer(cluster)).is_none() {
            let applied = self.resources.join(cluster, |applied| other.document(applied, imports), by, dry_run).await;
            applied.map_err(|error| not_applied(cluster, &error))?;
            if let Some(imports) = imports {
                // Those in effect are still the old ones for a moment.
                return Ok(imports.to_vec());
            }
        }
        Ok(self.hub.read(|catalogue, _| {
            let peer = catalogue.resources().peers.get(cluster);
            peer.map(|policy| policy.peer.imports.clone()).unwrap_or_default()
        }))
    }

    fn refused(&self, token: &Token, refused: JoinRefused) -> Failure {
        let JoinRefused { cause, message, now_ms } = refused;
        let skew = now_ms.abs_diff((self.hub.options.wall_clock)());
        let clocks = match skew >= SKEW.as_millis() as u64 {
            true => format!(" (its clock and this gateway's differ by {} s: set them right)", skew / 1000),
            false => String::new(),
        };
        let issuer = &token.cluster;
        let hint = match Cause::try_from(cause) {
            Ok(Cause::Unavailable) => return Failure::Next(message),
            Ok(Cause::Refused) => "; mend that, and repeat this command with the same token".to_owned(),
            _ => format!("{clocks}: make a new one by `eastway peer token` at a gateway of {issuer}"),
        };
        Failure::Final(NotJoined::Refused { cluster: issuer.clone(), message, hint })
    }
}

/// The other cluster, if its bundle is the one that the token names, and vouches for what was shown in the handshake.
fn believed(io: &Io, introduction: Introduction, token: &Token) -> Result<Other, String> {
    let Token { cluster, trust_domain, gateways, .. } = token;
    let bundle: Vec<CertificateDer<'static>> = introduction.trust_bundle.into_iter().map(Into::into).collect();
    if bundle_hash(&bundle) != token.bundle {
        return Err(format!(
            "what answers there has another CA than the token says: it is no gateway of {cluster}, or the CA of {cluster} was \
             changed since, and a new token is needed"
        ));
    }
    let shown = io.peer_chain().unwrap_or_default();
    vouched_gateway(trust_domain, bundle.clone(), shown).map_err(|error: IntroductionError| {
        format!("what answers there is not believed ({}): {}", Reason::WrongIdentity.code(), Chain(&error))
    })?;
    Ok(Other { cluster: cluster.clone(), trust_domain: trust_domain.clone(), bundle, gateways: gateways.clone() })
}

fn not_applied(cluster: &str, error: &NotApplied) -> Failure {
    Failure::Final(NotJoined::NotApplied { cluster: cluster.to_owned(), error: Chain(error).to_string() })
}
