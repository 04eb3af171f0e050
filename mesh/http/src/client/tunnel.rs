//! CONNECT over HTTP/1.1: one connection for one tunnel, so that no stream waits behind another.

use eastway_transport::Io;

use super::{ClientOptions, H1, SendError};
use crate::body::Body;
use crate::message::{Request, RequestHead, Response, ResponseHead};
use crate::upgrade::UpgradeError;

/// How a CONNECT went.
#[derive(Debug)]
pub enum Connected {
    /// The other side agreed: its head, and the raw bytes, what it sent right behind its head included.
    Open(Box<ResponseHead>, Io),
    /// It refused; `Proxy-Status` tells why.
    Refused(Response),
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

/// Sends `head`, whose method is CONNECT, over `io`.
///
/// # Errors
/// [`ConnectError`] if the connection fails before the outcome is known.
pub async fn connect(io: Io, head: RequestHead, options: &ClientOptions) -> Result<Connected, ConnectError> {
    let mut connection = H1::new(io, options);
    let response = connection.send(Request::new(head, Body::empty())).await.map_err(ConnectError::Send)?;
    match response.upgrading {
        Some(upgrading) => {
            let io = upgrading.io().await.map_err(ConnectError::Upgrade)?;
            Ok(Connected::Open(Box::new(response.head), io))
        }
        None => Ok(Connected::Refused(response)),
    }
}
