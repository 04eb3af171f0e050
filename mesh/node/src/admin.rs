//! The admin API (loopback) and the observability endpoints.
//!
//! | Listener | Path | Answer |
//! |---|---|---|
//! | admin | `/status` | who this is, and how it stands with the others |
//! | admin | `/services` | the names of the services that the node knows |
//! | admin | `/view/services` | those services: ports, endpoints, clusters |
//! | admin | `/view/endpoints`, `/view/endpoints/NAMESPACE/SERVICE` | each endpoint of the own cluster, where what is known of it comes from, and the zones of other clusters |
//! | admin | `/explain/NAMESPACE/SERVICE` | priorities, localities, shares and endpoints of a service, and why |
//! | admin | `/what-if/NAMESPACE/SERVICE?lose=zone=CLUSTER/ZONE&load=1.3` | the shares and utilisation after a loss |
//! | admin, of a gateway | `/resources`, `/generations` | what is declared, by whom, and how it came about; `POST /resources` changes it |
//! | metrics | `/metrics`, `/live`, `/ready` | Prometheus and probes |
//!
//! `?from=CLUSTER/ZONE` asks for what callers there see.

use std::net::TcpListener;
use std::sync::Arc;

use bytes::Bytes;
use eastway_core::ServiceName;
use eastway_request::ServiceEntry;
use eastway_runtime::clock;
use eastway_runtime::http::{Handler, ServeOptions, json, json_by_both_names, observability, query, serve, text};
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};

use crate::listing::ServiceListing;
use crate::{NodeError, Process};

/// What a node answers its operators with.
pub trait Admin: Send + Sync + 'static {
    /// Who it is, how it stands with the others, and what is wrong (`problems`).
    fn status(&self) -> serde_json::Value;

    /// The names of the services that it knows.
    fn services(&self) -> Vec<String>;

    /// The services that it knows, as far as it does.
    fn listings(&self) -> Vec<ServiceListing>;

    /// The endpoints of the service `name`, or of all services.
    ///
    /// # Errors
    /// Why it cannot say.
    fn endpoints(&self, name: Option<&ServiceName>) -> Result<serde_json::Value, Unanswered>;

    /// The service `name`, as callers in the zone `from` see it, written `CLUSTER/ZONE`.
    ///
    /// # Errors
    /// Why it cannot say.
    fn service(&self, name: &ServiceName, from: Option<&str>) -> Result<Arc<ServiceEntry>, Unanswered>;

    /// The answer to a request that is for nodes of its role only, or that changes something. `None` for any other request.
    fn act(self: &Arc<Self>, request: &Request<Bytes>) -> Option<BoxFuture<'static, Response<Bytes>>> {
        let _ = request;
        None
    }

    /// The streams of bytes that are open through this node, the oldest first.
    ///
    /// # Errors
    /// The node sees no streams, only what they travel in.
    fn connections(&self) -> Result<serde_json::Value, Unanswered> {
        let line =
            "this is a gateway: the streams of a connection between two sidecars are known to those; ask one of them";
        Err(Unanswered::Elsewhere(line.to_owned()))
    }

    /// The media type and the text of `/metrics`, for a scraper that accepts `accept`.
    fn metrics(&self, accept: Option<&str>) -> (&'static str, String);
}

/// Why a node cannot say how callers see a service, in words that say where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It does not know the service.
    Unknown(&'static str),
    /// It does not see the mesh from there, or not in such detail.
    Elsewhere(String),
}

/// Bytes of a request of an operator.
const MAX_BODY: usize = 32 << 20;

/// Who asks, where that was proved: an operator who comes from elsewhere. Stands among a request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator(pub String);

/// What answers an operator's requests with `admin`.
pub fn handler(admin: &Arc<impl Admin>) -> Handler {
    let admin = Arc::clone(admin);
    Arc::new(move |request| match admin.act(&request) {
        Some(response) => response,
        None => Box::pin(std::future::ready(answer(&*admin, &request))),
    })
}

/// The bounds of what serves operators: resources of a whole cluster are sent at once.
pub fn options() -> ServeOptions {
    ServeOptions { body: MAX_BODY, ..ServeOptions::default() }
}

/// Serves `admin` on the listeners of both, until the tasks are stopped.
///
/// # Errors
/// [`NodeError::Threads`] if a bound socket cannot be used.
pub fn start(process: &Process, admin: Arc<impl Admin>, sockets: (TcpListener, TcpListener)) -> Result<(), NodeError> {
    let listen = |listener| tokio::net::TcpListener::from_std(listener).map_err(NodeError::Threads);
    let (operators, scrapers) = (listen(sockets.0)?, listen(sockets.1)?);
    process.tasks.spawn_loop("admin", serve(operators, handler(&admin), options()));
    let handler = observability(process.readiness.clone(), move |accept| admin.metrics(accept));
    process.tasks.spawn_loop("metrics", serve(scrapers, handler, ServeOptions::default()));
    Ok(())
}

fn answer(admin: &impl Admin, request: &Request<Bytes>) -> Response<Bytes> {
    let segments: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    match segments[..] {
        ["status"] => json(StatusCode::OK, &admin.status()),
        ["services"] => json(StatusCode::OK, &admin.services()),
        ["view", "services"] => json(StatusCode::OK, &admin.listings()),
        ["view", "connections"] => said(admin.connections()),
        ["view", "endpoints"] => said(admin.endpoints(None)),
        ["view", "endpoints", namespace, service] => said(admin.endpoints(Some(&ServiceName::new(namespace, service)))),
        [verb @ ("explain" | "what-if"), namespace, service] => {
            about(admin, &ServiceName::new(namespace, service), verb == "what-if", &query(request))
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /status, /services, /view/services, /view/endpoints, /view/endpoints/NAMESPACE/SERVICE, \
             /view/connections, /explain/NAMESPACE/SERVICE and /what-if/NAMESPACE/SERVICE",
        ),
    }
}

fn said(answer: Result<serde_json::Value, Unanswered>) -> Response<Bytes> {
    match answer {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(unanswered) => refusal(&unanswered),
    }
}

fn refusal(unanswered: &Unanswered) -> Response<Bytes> {
    match unanswered {
        Unanswered::Unknown(line) => text(StatusCode::NOT_FOUND, line),
        Unanswered::Elsewhere(line) => text(StatusCode::BAD_REQUEST, line),
    }
}

/// Where the requests to a service go, or would go.
fn about(admin: &impl Admin, name: &ServiceName, what_if: bool, parameters: &[(String, String)]) -> Response<Bytes> {
    let from = parameters.iter().find(|(key, _)| key == "from").map(|(_, zone)| zone.as_str());
    let entry = match admin.service(name, from) {
        Ok(entry) => entry,
        Err(unanswered) => return refusal(&unanswered),
    };
    if !what_if {
        return json_by_both_names(StatusCode::OK, &entry.service().explain(clock::now()));
    }
    match entry.service().answer(parameters) {
        Ok(answer) => json_by_both_names(StatusCode::OK, &answer),
        Err(error) => text(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stranger;

    impl Admin for Stranger {
        fn status(&self) -> serde_json::Value {
            serde_json::json!({ "name": "stranger" })
        }

        fn services(&self) -> Vec<String> {
            vec!["shop/pay".to_owned()]
        }

        fn listings(&self) -> Vec<ServiceListing> {
            Vec::new()
        }

        fn endpoints(&self, name: Option<&ServiceName>) -> Result<serde_json::Value, Unanswered> {
            match name {
                None => Ok(serde_json::json!([])),
                Some(_) => Err(Unanswered::Elsewhere("ask a gateway".to_owned())),
            }
        }

        fn service(&self, name: &ServiceName, from: Option<&str>) -> Result<Arc<ServiceEntry>, Unanswered> {
            assert_eq!(name.to_string(), "shop/pay");
            match from {
                None => Err(Unanswered::Unknown("ask again")),
                Some(zone) => Err(Unanswered::Elsewhere(format!("ask in {zone}"))),
            }
        }

        fn metrics(&self, _accept: Option<&str>) -> (&'static str, String) {
            ("text/plain", String::new())
        }
    }

    #[track_caller]
    fn assert_answer(path: &str, status: u16, part: &str) {
        let response = answer(&Stranger, &Request::get(path).body(Bytes::new()).expect("a request"));
        let body = String::from_utf8_lossy(response.body()).into_owned();
        assert_eq!(response.status(), status, "{body}");
        assert!(body.contains(part), "{body}");
    }

    #[test]
    fn every_path_is_answered_by_the_node() {
        assert_answer("/status", 200, "\"stranger\"");
        assert_answer("/services/", 200, "\"shop/pay\"");
        assert_answer("/view/services", 200, "[]");
        assert_answer("/view/endpoints", 200, "[]");
        assert_answer("/view/endpoints/shop/pay", 400, "ask a gateway");
        for verb in ["explain", "what-if"] {
            assert_answer(&format!("/{verb}/shop/pay"), 404, "ask again");
            assert_answer(&format!("/{verb}/shop/pay?load=2&from=east%2Fz1"), 400, "ask in east/z1");
        }
        assert_answer("/explain/shop", 404, "there are /status");
    }
}
