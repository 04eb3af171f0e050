//! The admin API (loopback) and the observability endpoints.
//!
//! | Listener | Path | Answer |
//! |---|---|---|
//! | admin | `/status` | who this is, its store, its peers |
//! | admin | `/services` | the services that the cluster knows |
//! | admin | `/explain/NAMESPACE/SERVICE` | what this gateway would pick, and why |
//! | metrics | `/metrics`, `/live`, `/ready` | Prometheus and probes |

use std::net::TcpListener;
use std::sync::Arc;

use bytes::Bytes;
use eastway_core::ServiceName;
use eastway_runtime::clock;
use eastway_runtime::http::{Handler, ServeOptions, json, observability, serve, text};
use eastway_runtime::readiness::Readiness;
use eastway_runtime::tasks::TaskGroup;
use eastway_telemetry::metrics::Metrics;
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
    let registry = Arc::clone(&node.metrics);
    let handler = observability(readiness, Metrics::CONTENT_TYPE, move || registry.render());
    tasks.spawn_loop("metrics", serve(listen(metrics)?, handler, ServeOptions::default()));
    Ok(())
}

fn answer(node: &Node, request: &Request<Bytes>) -> Response<Bytes> {
    let segments: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    match segments[..] {
        ["status"] => json(StatusCode::OK, &status(node)),
        ["services"] => {
            let names: Vec<String> = node.federation.server().services().iter().map(ToString::to_string).collect();
            json(StatusCode::OK, &names)
        }
        ["explain", namespace, service] => match node.services.service(&ServiceName::new(namespace, service), None) {
            Some(service) => json(StatusCode::OK, &service.explain(clock::now())),
            None => text(StatusCode::NOT_FOUND, "no cluster known here offers the service; see /services"),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /status, /services and /explain/NAMESPACE/SERVICE"),
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
