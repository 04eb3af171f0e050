//! The CONNECT exchange, from the side that asks: towards a gateway, and towards a called sidecar.

use eastway_core::{Chain, Reason};
use eastway_http::ClientOptions;
use eastway_http::client::{self, Connected};
use eastway_http::refuse::PROXY_STATUS;
use eastway_transport::Io;
use http::{HeaderMap, Request, StatusCode};

/// The accepted tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// Raw bytes from here on, those included that came with the answer.
    pub(crate) io: Io,
    /// `eastway-endpoint`: the endpoint that the gateway chose.
    pub(crate) endpoint: Option<String>,
    /// `eastway-load`: its load.
    pub(crate) load: Option<String>,
    /// `eastway-via`: the peer's gateway that the tunnel leads to, as the gateway names it.
    pub(crate) via: Option<String>,
}

/// Asks for a tunnel to `authority` over `io`. A header whose value is no header text is left out.
///
/// # Errors
/// The reason that the other side gives, or `broken` if it gives none because the connection fails.
pub(crate) async fn connect(
    io: Io,
    authority: &str,
    headers: &[(&'static str, &str)],
    options: &ClientOptions,
    broken: Reason,
) -> Result<Tunnel, Reason> {
    let mut request = Request::connect(authority);
    for (name, value) in headers {
        if let Ok(value) = http::HeaderValue::from_str(value) {
            request = request.header(*name, value);
        }
    }
    let request = request.body(()).map_err(|_| Reason::Internal)?;
    match client::connect(io, request, options).await {
        Ok(Connected::Open(head, io)) => {
            let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let (endpoint, load, via) = (text("eastway-endpoint"), text("eastway-load"), text("eastway-via"));
            Ok(Tunnel { io, endpoint, load, via })
        }
        Ok(Connected::Refused(response)) => Err(reason(response.status(), response.headers())),
        Err(error) => {
            tracing::debug!(error = %Chain(&error), authority, "CONNECT failed");
            Err(broken)
        }
    }
}

/// The reason of a refusal: that of its `Proxy-Status`, or what the status implies.
pub(crate) fn reason(status: StatusCode, headers: &HeaderMap) -> Reason {
    stated_reason(headers).unwrap_or(match status.as_u16() {
        403 => Reason::Forbidden,
        404 => Reason::UnknownService,
        400..500 => Reason::MalformedOpen,
        _ => Reason::Overloaded,
    })
}

/// The reason that a node of the mesh states in `Proxy-Status`. An application's own never gets here: its sidecar removes
/// it.
pub(crate) fn stated_reason(headers: &HeaderMap) -> Option<Reason> {
    headers.get(PROXY_STATUS).and_then(|value| value.to_str().ok()).and_then(Reason::from_proxy_status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_reason() {
        let mut headers = HeaderMap::new();
        assert_eq!(reason(StatusCode::NOT_FOUND, &headers), Reason::UnknownService);
        let status = Reason::NoReadyEndpoint.proxy_status("gw").parse().expect("header text");
        headers.insert(PROXY_STATUS, status);
        assert_eq!(reason(StatusCode::SERVICE_UNAVAILABLE, &headers), Reason::NoReadyEndpoint);
    }
}
