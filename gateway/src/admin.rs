//! The admin API (loopback) and the observability endpoints.
//!
//! | Listener | Path | Answer |
//! |---|---|---|
//! | admin | `/status` | who this is, its store, its peers |
//! | admin | `/services` | the services that the cluster knows |
//! | admin | `/explain/NAMESPACE/SERVICE?from=CLUSTER/ZONE` | what a caller in that zone would pick, and why |
//! | admin | `/what-if/NAMESPACE/SERVICE?lose=zone=CLUSTER/ZONE&load=1.3` | the shares and utilisation after a loss |
//! | metrics | `/metrics`, `/live`, `/ready` | Prometheus and probes; `/ready` says if the store fails |

use std::net::TcpListener;
use std::sync::Arc;

use bytes::Bytes;
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
    readiness: Readiness,
    (admin, metrics): (TcpListener, TcpListener),
) -> Result<(), RunError> {
    let listen = |listener| tokio::net::TcpListener::from_std(listener).map_err(RunError::Threads);
    let handler: Handler = {
        let node = Arc::clone(node);
        Arc::new(move |request| {
            let response = answer(&node, &request);
            Box::pin(std::future::ready(response))
        })
    };
    tasks.spawn_loop("admin", serve(listen(admin)?, handler, ServeOptions::default()));
    let doubtful = Arc::clone(node);
    // It serves on from memory, so that it stays ready.
    readiness.doubt(move || {
        let store = doubtful.federation.server().status().store;
        (!store.healthy).then(|| format!("the store fails: {}", store.last_error.unwrap_or_default()))
    });
    let node = Arc::clone(node);
    let handler = observability(readiness, move |accept| {
        count_cut(&node);
        node.metrics.expose(accept)
    });
    tasks.spawn_loop("metrics", serve(listen(metrics)?, handler, ServeOptions::default()));
    Ok(())
}

/// Brings the metrics of peers up to what the server has counted.
fn count_cut(node: &Node) {
    for peer in node.federation.server().peers() {
        for (what, count) in &peer.cut {
            node.peers.cut(&peer.cluster, what, *count);
        }
    }
}

fn answer(node: &Node, request: &Request<Bytes>) -> Response<Bytes> {
    let segments: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    match segments[..] {
        ["status"] => json(StatusCode::OK, &status(node)),
        ["services"] => {
            let names: Vec<String> = node.federation.server().services().iter().map(ToString::to_string).collect();
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

/// Where the requests to a service go, or would go, as called from a zone of this cluster.
fn about(node: &Node, name: &ServiceName, what_if: bool, parameters: &[(String, String)]) -> Response<Bytes> {
    let from = parameters.iter().find(|(key, _)| key == "from").map(|(_, zone)| zone.as_str());
    let Ok(zone) = node.services.zone(from) else {
        let line =
            format!("this gateway answers for the zones of its own cluster: {}", node.services.zones().join(", "));
        return text(StatusCode::BAD_REQUEST, &line);
    };
    let Some(entry) = node.services.service(name, zone) else {
        return text(StatusCode::NOT_FOUND, "no cluster known here offers the service; see /services");
    };
    let service = entry.service();
    if !what_if {
        return json_by_both_names(StatusCode::OK, &service.explain(clock::now()));
    }
    match service.answer(parameters) {
        Ok(answer) => json_by_both_names(StatusCode::OK, &answer),
        Err(error) => text(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn status(node: &Node) -> serde_json::Value {
    let server = node.federation.server();
    serde_json::json!({
        "gateway": node.config.gateway,
        "cluster": server.cluster(),
        "identity": node.identity.id().to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "draining": node.draining.started(),
        "federation": server.status(),
    })
}
