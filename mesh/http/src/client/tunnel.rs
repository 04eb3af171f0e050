//! CONNECT over HTTP/1.1: one connection for one tunnel, so that no stream waits behind another.

use eastway_transport::Io;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, response};

use super::{ClientOptions, H1, SendError};
use crate::body::Body;
use crate::upgrade::{UpgradeError, Upgrading};

/// How a CONNECT went.
#[derive(Debug)]
pub enum Connected {
    /// The other side agreed: its head, and the raw bytes, what it sent right behind its head included.
    Open(Box<response::Parts>, Io),
    /// It refused; `Proxy-Status` tells why.
    Refused(Response<Body>),
}

/// Why a CONNECT had no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No response came.
    #[error("the CONNECT request failed")]
    Send(#[source] SendError),
    /// It was granted, but the connection ended.
    #[error("the tunnel ended as it began")]
    Upgrade(#[source] UpgradeError),
}

/// Sends `request`, whose method is CONNECT and whose URI is the authority, over `io`.
///
/// # Errors
/// [`ConnectError`] if the connection fails before the outcome is known.
pub async fn connect(io: Io, request: Request<()>, options: &ClientOptions) -> Result<Connected, ConnectError> {
    let mut request = request;
    if let Some(host) = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
        request.headers_mut().insert(HOST, host);
    }
    let mut connection = H1::new(io, options).await.map_err(ConnectError::Send)?;
    let response = connection.send(request.map(|()| Body::empty())).await.map_err(ConnectError::Send)?;
    if !response.status().is_success() {
        return Ok(Connected::Refused(response));
    }
    let (mut parts, _) = response.into_parts();
    let Some(upgrading) = Upgrading::take(&mut parts.extensions) else {
        return Ok(Connected::Refused(Response::from_parts(parts, Body::empty())));
    };
    let io = upgrading.io().await.map_err(ConnectError::Upgrade)?;
    Ok(Connected::Open(Box::new(parts), io))
}
