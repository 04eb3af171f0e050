//! How operators make peers by tokens, list them and end them.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /peers` | the peers, how each came about, and whether it is reached |
//! | `POST /peers/token` | a token for another cluster |
//! | `POST /peers/withdraw` | no token counts any more |
//! | `POST /peers/join` | joins the cluster that issued a token |
//! | `POST /peers/remove` | ends a peer that no file declares |

use std::sync::Arc;

use bytes::Bytes;
use eastway_core::Chain;
use eastway_core::view::PathState;
use eastway_runtime::http::{json, text};
use eastway_server::joining::{NewToken, NotIssued, NotJoined};
use eastway_server::{PeerStatus, Server};
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::node::GatewayNode;
use crate::resources::{By, answer, read};

/// The body of `POST /peers/token`.
#[derive(Debug, Deserialize)]
struct TokenRequest {
    #[serde(flatten)]
    new: NewToken,
    by: By,
}

/// The body of `POST /peers/join`.
#[derive(Deserialize)]
struct JoinRequest {
    /// The text that `eastway peer token` printed.
    token: String,
    /// What is imported of the other cluster. If not given, what is imported so far.
    imports: Option<Vec<String>>,
    by: By,
}

/// The body of `POST /peers/remove`.
#[derive(Debug, Deserialize)]
struct RemoveRequest {
    name: String,
    by: By,
}

/// The body of `POST /peers/withdraw`.
#[derive(Debug, Deserialize)]
struct WithdrawRequest {}

/// A peer, and how it came about.
#[derive(Debug, Serialize)]
struct PeerListing {
    cluster: String,
    /// The file and line that declare it, `applied`, or `token`.
    origin: String,
    trust_domain: String,
    /// As its `Peer` says.
    gateways: Vec<String>,
    imports: Vec<String>,
    /// The best of its paths.
    state: PathState,
    /// Its gateways refuse this cluster: it is no peer of theirs.
    refuses: bool,
    /// It is not connected to, because nothing of it is wanted.
    idle: bool,
}

/// The answer to a request about peers; `None` for any other.
pub(crate) fn act(node: &Arc<GatewayNode>, request: &Request<Bytes>) -> Option<BoxFuture<'static, Response<Bytes>>> {
    let path = request.uri().path().trim_end_matches('/');
    let done = match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/peers") => json(StatusCode::OK, &list(node.federation.server())),
        (&Method::POST, "/peers/token") => match read(request) {
            Ok(wanted) => return Some(Box::pin(token(Arc::clone(node), wanted))),
            Err((status, why)) => text(status, &why),
        },
        (&Method::POST, "/peers/withdraw") => match read::<WithdrawRequest>(request) {
            Ok(_) => return Some(Box::pin(withdraw(Arc::clone(node)))),
            Err((status, why)) => text(status, &why),
        },
        (&Method::POST, "/peers/join") => match read(request) {
            Ok(wanted) => return Some(Box::pin(join(Arc::clone(node), wanted))),
            Err((status, why)) => text(status, &why),
        },
        (&Method::POST, "/peers/remove") => match read(request) {
            Ok(wanted) => return Some(Box::pin(remove(Arc::clone(node), wanted))),
            Err((status, why)) => text(status, &why),
        },
        (_, "/peers" | "/peers/token" | "/peers/withdraw" | "/peers/join" | "/peers/remove") => text(
            StatusCode::METHOD_NOT_ALLOWED,
            "GET /peers, or POST to /peers/token, /peers/withdraw, /peers/join and /peers/remove",
        ),
        _ => return None,
    };
    Some(Box::pin(std::future::ready(done)))
}

async fn token(node: Arc<GatewayNode>, TokenRequest { new, by }: TokenRequest) -> Response<Bytes> {
    match node.federation.server().joining().issue(&new, &by.0).await {
        Ok(issued) => json(StatusCode::OK, &issued),
        Err(error @ (NotIssued::Store(_) | NotIssued::Randomness)) => {
            text(StatusCode::SERVICE_UNAVAILABLE, &Chain(&error).to_string())
        }
        Err(error) => text(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
    }
}

async fn withdraw(node: Arc<GatewayNode>) -> Response<Bytes> {
    match node.federation.server().joining().withdraw().await {
        Ok(withdrawn) => json(StatusCode::OK, &serde_json::json!({ "withdrawn": withdrawn })),
        Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, &Chain(&error).to_string()),
    }
}

async fn join(node: Arc<GatewayNode>, JoinRequest { token, imports, by }: JoinRequest) -> Response<Bytes> {
    match node.federation.server().joining().join(&token, imports.as_deref(), &by.0).await {
        Ok(joined) => json(StatusCode::OK, &joined),
        Err(error @ NotJoined::Unreachable { .. }) => text(StatusCode::BAD_GATEWAY, &error.to_string()),
        Err(error) => text(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
    }
}

async fn remove(node: Arc<GatewayNode>, RemoveRequest { name, by }: RemoveRequest) -> Response<Bytes> {
    answer(node.federation.server().joining().remove(&name, &by.0).await)
}

/// The peers, by name.
fn list(server: &Server) -> Vec<PeerListing> {
    let (resources, peers) = (server.resources(), server.peers());
    let listing = |peer: PeerStatus| {
        let one = resources.iter().find(|one| one.id.kind == "Peer" && one.id.name == peer.cluster);
        let spec = one.map_or(&Value::Null, |one| &one.document["spec"]);
        let texts = |value: &Value| serde_json::from_value(value.clone()).unwrap_or_default();
        PeerListing {
            origin: one.map(|one| one.owner.clone()).unwrap_or_default(),
            gateways: texts(&spec["gateways"]),
            imports: texts(&spec["imports"]),
            state: peer.paths.first().map(|path| path.state).unwrap_or_default(),
            refuses: !peer.paths.is_empty() && peer.paths.iter().all(|path| path.refuses),
            idle: peer.idle,
            trust_domain: peer.trust_domain,
            cluster: peer.cluster,
        }
    };
    peers.into_iter().map(listing).collect()
}
