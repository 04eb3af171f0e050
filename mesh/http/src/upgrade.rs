//! What follows a CONNECT or an upgrade: raw bytes.

use std::fmt;

use eastway_transport::Io;
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::TokioIo;

use crate::answer_first::AnswerFirst;
use crate::link::bytes::Brought;
use crate::server::ServerIo;

/// The promise of the connection's raw bytes, taken from a request before answering it, or from a response.
pub struct Upgrading(Promise);

enum Promise {
    Hyper(OnUpgrade),
    /// The bytes are here already.
    Brought(Io),
}

impl Upgrading {
    /// Takes the promise from a request's or response's extensions; `None` if it can not be upgraded.
    pub fn take(extensions: &mut http::Extensions) -> Option<Self> {
        if let Some(promise) = extensions.remove::<OnUpgrade>() {
            return Some(Self(Promise::Hyper(promise)));
        }
        Brought::take(extensions).map(|io| Self(Promise::Brought(io)))
    }

    /// The bytes in both directions, those that were read ahead included. Resolves once the answer (2xx to CONNECT,
    /// 101 else) was sent or received.
    ///
    /// Over HTTP/1 this is the very stream that carried the request; over HTTP/2 it is one stream of a connection,
    /// as an [`Io::Other`].
    ///
    /// # Errors
    /// [`UpgradeError`] if the connection ended, or the answer was another.
    pub async fn io(self) -> Result<Io, UpgradeError> {
        let upgraded = match self.0 {
            Promise::Hyper(promise) => promise.await.map_err(UpgradeError)?,
            Promise::Brought(io) => return Ok(io),
        };
        Ok(match upgraded.downcast::<TokioIo<ServerIo>>() {
            Ok(Parts { io, read_buf, .. }) => {
                let (io, ahead) = io.into_inner().into_parts();
                io.rewound(ahead).rewound(read_buf)
            }
            Err(upgraded) => as_client(upgraded),
        })
    }
}

fn as_client(upgraded: Upgraded) -> Io {
    match upgraded.downcast::<TokioIo<AnswerFirst>>() {
        Ok(Parts { io, read_buf, .. }) => io.into_inner().into_io().rewound(read_buf),
        Err(upgraded) => Io::other(TokioIo::new(upgraded)),
    }
}

impl fmt::Debug for Upgrading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgrading")
    }
}

/// An upgrade that was promised did not happen.
#[derive(Debug, thiserror::Error)]
#[error("the connection was not upgraded")]
pub struct UpgradeError(#[source] hyper::Error);
