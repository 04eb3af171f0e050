//! What follows a CONNECT or an upgrade: raw bytes.

use std::fmt;

use eastway_transport::Io;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

/// A connection's raw bytes as they are promised to a request before it is answered, or come with a response.
pub struct Upgrading(Promised);

enum Promised {
    /// A stream of HTTP/2.
    Hyper(OnUpgrade),
    Ours(oneshot::Receiver<Io>),
    /// They are here once somebody asks for them.
    Lazy(Box<dyn FnOnce() -> Io>),
    /// The bytes are here already.
    Here(Io),
}

/// Is to be kept by who has the bytes; dropping it breaks it.
pub(crate) struct Promise(oneshot::Sender<Io>);

impl Promise {
    /// Gives the bytes away; they come back if nobody wants them any more.
    pub(crate) fn keep(self, io: Io) -> Option<Io> {
        self.0.send(io).err()
    }
}

impl Upgrading {
    /// A promise, and who is to keep it.
    pub(crate) fn promised() -> (Promise, Self) {
        let (keeper, kept) = oneshot::channel();
        (Promise(keeper), Self(Promised::Ours(kept)))
    }

    /// Bytes that are made of something else when somebody asks for them.
    pub(crate) fn lazy(make: impl FnOnce() -> Io + 'static) -> Self {
        Self(Promised::Lazy(Box::new(make)))
    }

    /// Bytes that are here.
    pub(crate) const fn here(io: Io) -> Self {
        Self(Promised::Here(io))
    }

    /// The promise that hyper gives with a message of HTTP/2, if it does.
    pub(crate) fn of_hyper(extensions: &mut http::Extensions) -> Option<Self> {
        extensions.remove::<OnUpgrade>().map(|promise| Self(Promised::Hyper(promise)))
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
        match self.0 {
            Promised::Hyper(promise) => {
                promise.await.map(|stream| Io::other(TokioIo::new(stream))).map_err(|error| UpgradeError(Some(error)))
            }
            Promised::Ours(promise) => promise.await.map_err(|_| UpgradeError(None)),
            Promised::Lazy(make) => Ok(make()),
            Promised::Here(io) => Ok(io),
        }
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
pub struct UpgradeError(#[source] Option<hyper::Error>);
