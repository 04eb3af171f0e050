//! What operators ask of the declared resources, and how they change those that are applied.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /resources` | the resources that count here, and whose each is |
//! | `GET /generations` | how what is applied came about |
//! | `POST /resources` | changes what is applied, or says with `dryRun` what would change |

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use eastway_core::Chain;
use eastway_node::admin::Operator;
use eastway_runtime::http::{json, text};
use eastway_server::resources::{Change, NotApplied, Outcome};
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::node::GatewayNode;

/// The body of `POST /resources`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangeRequest {
    /// What is wanted.
    #[serde(flatten)]
    change: Change,
    /// Who wants it, for the history.
    by: By,
    /// Only say what would change.
    #[serde(default)]
    dry_run: bool,
}

/// Who wants a change, in a form that does no harm where it is told.
#[derive(Debug, Deserialize)]
#[serde(from = "String")]
pub(crate) struct By(pub(crate) String);

impl From<String> for By {
    fn from(text: String) -> Self {
        Self(text.chars().filter(|c| !c.is_control()).take(MAX_BY).collect())
    }
}

/// Characters of who wants a change.
const MAX_BY: usize = 200;

/// The answer to a request about resources; `None` for any other.
pub(crate) fn act(node: &Arc<GatewayNode>, request: &Request<Bytes>) -> Option<BoxFuture<'static, Response<Bytes>>> {
    let path = request.uri().path().trim_end_matches('/');
    let server = node.federation.server();
    let response = match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/resources") => json(StatusCode::OK, &server.resources()),
        (&Method::GET | &Method::HEAD, "/generations") => json(StatusCode::OK, &server.generations()),
        (&Method::POST, "/resources") => match read::<ChangeRequest>(request) {
            Ok(wanted) => {
                let node = Arc::clone(node);
                return Some(Box::pin(async move { change(&node, &wanted).await }));
            }
            Err((status, why)) => text(status, &why),
        },
        (_, "/resources" | "/generations") => text(StatusCode::METHOD_NOT_ALLOWED, "GET, or POST to /resources"),
        _ => return None,
    };
    Some(Box::pin(std::future::ready(response)))
}

/// Why a request is not even read.
pub(crate) type Refusal = (StatusCode, String);

/// What an operator wants to be changed.
///
/// # Errors
/// It comes in a way in which no operator would ask, or is something else.
pub(crate) fn read<T: DeserializeOwned>(request: &Request<Bytes>) -> Result<T, Refusal> {
    let operator = request.extensions().get::<Operator>();
    // A page whose name was made to mean this machine sends that name.
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if operator.is_none() && !is_local(host) {
        let why = format!("`{host}` is no name of this administration server: use its address, or localhost");
        return Err((StatusCode::FORBIDDEN, why));
    }
    // A page that a browser on this machine shows cannot send this type without asking, which nothing here answers.
    let is_json = request.headers().get(CONTENT_TYPE).is_some_and(|value| value == "application/json");
    if !is_json {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json".to_owned()));
    }
    let why = |error| (StatusCode::BAD_REQUEST, format!("the body does not say what is wanted: {error}"));
    let mut wanted: Value = serde_json::from_slice(request.body()).map_err(why)?;
    if let (Some(Operator(name)), Some(by)) = (operator, wanted.get_mut("by")) {
        // The certificate says who it is; whatever else is said is a hint.
        *by = Value::String(format!("operator {name} ({})", by.as_str().unwrap_or_default()));
    }
    serde_json::from_value(wanted).map_err(why)
}

/// Whether a host is an address, or localhost, whatever the port.
fn is_local(host: &str) -> bool {
    let bare = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(bare, _)| bare);
    let address = bare.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || address.parse::<IpAddr>().is_ok()
}

async fn change(node: &GatewayNode, wanted: &ChangeRequest) -> Response<Bytes> {
    let outcome = node.federation.server().apply(&wanted.change, &wanted.by.0, wanted.dry_run).await;
    answer(outcome)
}

/// What became of a change.
pub(crate) fn answer(outcome: Result<Outcome, NotApplied>) -> Response<Bytes> {
    match outcome {
        Ok(outcome) => json(StatusCode::OK, &outcome),
        Err(NotApplied::Problems(problems)) => {
            json(StatusCode::UNPROCESSABLE_ENTITY, &serde_json::json!({ "problems": problems }))
        }
        Err(error @ NotApplied::NotThere(_)) => text(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error @ NotApplied::Store(_)) => text(StatusCode::SERVICE_UNAVAILABLE, &Chain(&error).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_give_to_this_machine_are_not_its_own() {
        for (host, local) in [
            ("127.0.0.1:15000", true),
            ("[::1]:15000", true),
            ("localhost", true),
            ("localhost:1", true),
            ("gateway.example:15000", false),
            ("localhost.example", false),
            ("", false),
        ] {
            assert_eq!(is_local(host), local, "{host}");
        }
    }
}
