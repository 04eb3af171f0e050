//! The admin API (loopback) and the observability endpoints.
//!
//! | Listener | Path | Answer |
//! |---|---|---|
//! | admin | `/status` | who this is, its gateway, its subscriptions |
//! | admin | `/services` | the services that this sidecar follows |
//! | admin | `/explain/NAMESPACE/SERVICE` | priorities, localities, shares and endpoints of a service, and why |
//! | admin | `/what-if/NAMESPACE/SERVICE?lose=zone=CLUSTER/ZONE&load=1.3` | the shares and utilisation after a loss |
//! | metrics | `/metrics`, `/live`, `/ready` | Prometheus and probes |

use std::net::TcpListener;
use std::sync::Arc;

use bytes::Bytes;
use eastway_client::Registrar;
use eastway_core::ServiceName;
use eastway_runtime::clock;
use eastway_runtime::http::{Handler, ServeOptions, json, json_by_both_names, observability, query, serve, text};
use eastway_runtime::readiness::Readiness;
use eastway_runtime::tasks::TaskGroup;
use http::{Request, Response, StatusCode};

use crate::RunError;
use crate::node::Node;

/// Serves both listeners until the tasks are stopped.
///
/// # Errors
/// If a bound socket cannot be used.
pub(crate) fn start(
    tasks: &TaskGroup,
    node: &Arc<Node>,
    registrar: Option<Arc<Registrar>>,
    readiness: Readiness,
    (admin, metrics): (TcpListener, TcpListener),
) -> Result<(), RunError> {
    let listen = |listener| tokio::net::TcpListener::from_std(listener).map_err(RunError::Threads);
    let handler: Handler = {
        let node = Arc::clone(node);
        Arc::new(move |request| {
            let response = answer(&node, registrar.as_deref(), &request);
            Box::pin(std::future::ready(response))
        })
    };
    tasks.spawn_loop("admin", serve(listen(admin)?, handler, ServeOptions::default()));
    let registry = Arc::clone(&node.metrics);
    let handler = observability(readiness, move |accept| registry.expose(accept));
    tasks.spawn_loop("metrics", serve(listen(metrics)?, handler, ServeOptions::default()));
    Ok(())
}

fn answer(node: &Node, registrar: Option<&Registrar>, request: &Request<Bytes>) -> Response<Bytes> {
    let segments: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    match segments[..] {
        ["status"] => json(StatusCode::OK, &status(node, registrar)),
        ["services"] => {
            let names: Vec<String> = node.services.all().iter().map(|e| e.service().name().to_string()).collect();
            json(StatusCode::OK, &names)
        }
        [verb @ ("explain" | "what-if"), namespace, service] => {
            about(node, &ServiceName::new(namespace, service), verb == "what-if", &query(request))
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /status, /services, /explain/NAMESPACE/SERVICE and /what-if/NAMESPACE/SERVICE",
        ),
    }
}

/// Where the requests to a service go, or would go.
fn about(node: &Node, name: &ServiceName, what_if: bool, parameters: &[(String, String)]) -> Response<Bytes> {
    let Some(entry) = node.services.entry(name) else {
        return text(StatusCode::NOT_FOUND, "this sidecar does not follow the service: call it once, or see /services");
    };
    let own = node.zone.to_string();
    if let Some((_, other)) = parameters.iter().find(|(key, from)| key == "from" && *from != own) {
        let line = format!("this sidecar sees the mesh from {own} only: ask a sidecar in {other}, or a gateway");
        return text(StatusCode::BAD_REQUEST, &line);
    }
    if !what_if {
        return json_by_both_names(StatusCode::OK, &entry.service().explain(clock::now()));
    }
    match entry.service().answer(parameters) {
        Ok(answer) => json_by_both_names(StatusCode::OK, &answer),
        Err(error) => text(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn status(node: &Node, registrar: Option<&Registrar>) -> serde_json::Value {
    serde_json::json!({
        "name": node.config.workload.name,
        "cluster": node.config.cluster,
        "zone": node.config.zone,
        "identity": node.identity.id().to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "draining": node.draining.started(),
        "discovery": node.discovery.status(),
        "registration": registrar.map(Registrar::status),
        "access_log_dropped": node.access_log.as_ref().map(crate::access_log::AccessLog::dropped),
    })
}
