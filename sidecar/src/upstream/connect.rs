//! The CONNECT exchange, from the side that asks: towards a gateway, and towards a called sidecar.

use eastway_core::head::{Fields as _, HttpVersion};
use eastway_core::{Chain, Reason};
use eastway_http::client::{self, Connected};
use eastway_http::refuse::PROXY_STATUS;
use eastway_http::{ClientOptions, RequestHead, ResponseHead};
use eastway_transport::Io;

/// The accepted tunnel.
#[derive(Debug)]
pub(crate) struct OpenTunnel {
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
) -> Result<OpenTunnel, Reason> {
    let mut head = RequestHead::new(HttpVersion::Http11, "CONNECT", "", authority);
    for (name, value) in headers {
        head.fields.append(name, value.as_bytes());
    }
    match client::connect(io, head, options).await {
        Ok(Connected::Open(head, io)) => {
            let text = |name| head.fields.text(name).map(str::to_owned);
            let (endpoint, load, via) = (text("eastway-endpoint"), text("eastway-load"), text("eastway-via"));
            Ok(OpenTunnel { io, endpoint, load, via })
        }
        Ok(Connected::Refused(response)) => Err(reason(&response.head)),
        Err(error) => {
            tracing::debug!(error = %Chain(&error), authority, "CONNECT failed");
            Err(broken)
        }
    }
}

/// The reason of a refusal: that of its `Proxy-Status`, or what the status implies.
fn reason(head: &ResponseHead) -> Reason {
    let stated = head.fields.text(PROXY_STATUS).and_then(Reason::from_proxy_status);
    stated.unwrap_or(match head.status {
        403 => Reason::Forbidden,
        404 => Reason::UnknownService,
        400..500 => Reason::MalformedOpen,
        _ => Reason::Overloaded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_reason() {
        assert_eq!(reason(&ResponseHead::new(404)), Reason::UnknownService);
        let mut head = ResponseHead::new(503);
        head.fields.append(PROXY_STATUS, Reason::NoReadyEndpoint.proxy_status("gw").as_bytes());
        assert_eq!(reason(&head), Reason::NoReadyEndpoint);
    }
}
