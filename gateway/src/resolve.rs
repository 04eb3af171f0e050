//! Addresses of peers' gateways as their `Peer`s name them: a name is looked up at each dial, and all of its addresses are tried.
//!
//! Called by `federation.rs` for control connections and introductions, and by `peers.rs` for data connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

/// The next address is tried beside those that have not answered for so long (RFC 8305 says 250 ms).
const STAGGER: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried.
const MOST: usize = 16;

/// What `connect` makes of the first address of `name` that answers.
///
/// # Errors
/// The name has no address, or the last error of `connect`, if there was no other.
pub(crate) async fn connect<T, E, F: Future<Output = Result<T, E>>>(
    name: &str,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, ResolveError<E>> {
    let found = tokio::net::lookup_host(name).await.map_err(ResolveError::Name)?;
    let none = ResolveError::Name(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    any(found.take(MOST), connect, none).await
}

/// Why no address of a name answers.
#[derive(Debug)]
pub(crate) enum ResolveError<E> {
    /// The name cannot be looked up, or has no address.
    Name(io::Error),
    /// What happened at its addresses, of the last one that failed.
    Connect(E),
}

async fn any<T, E, F: Future<Output = Result<T, E>>>(
    addresses: impl Iterator<Item = SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
    mut last: ResolveError<E>,
) -> Result<T, ResolveError<E>> {
    let mut tried = FuturesUnordered::new();
    for (place, address) in (0_u32..).zip(addresses) {
        let connecting = connect(address);
        tried.push(async move {
            // The first is not kept waiting for a timer.
            if place > 0 {
                sleep(STAGGER * place).await;
            }
            connecting.await
        });
    }
    while let Some(outcome) = tried.next().await {
        match outcome {
            Ok(connected) => return Ok(connected),
            Err(error) => last = ResolveError::Connect(error),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn address(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 15_443).into()
    }

    fn none() -> ResolveError<&'static str> {
        ResolveError::Name(io::ErrorKind::NotFound.into())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_silent_or_refuses_does_not_keep_the_others_from_being_tried() {
        let connect = |address: SocketAddr| async move {
            match address.ip().to_string().as_str() {
                "192.0.2.1" => std::future::pending().await,
                "192.0.2.2" => Err("refused"),
                _ => Ok(address),
            }
        };
        let began = Instant::now();
        let reached = any([1, 2, 3].map(address).into_iter(), connect, none()).await;
        assert_eq!(reached.ok(), Some(address(3)));
        assert!(began.elapsed() <= 2 * STAGGER, "{:?}", began.elapsed());
        let failed = any([2].map(address).into_iter(), connect, none()).await.expect_err("nobody");
        assert!(matches!(failed, ResolveError::Connect("refused")));
        let nowhere = any(std::iter::empty(), connect, none()).await;
        assert!(matches!(nowhere, Err(ResolveError::Name(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_address_is_enough_if_it_answers() {
        let connect =
            |address: SocketAddr| async move { if address.ip().to_string() == "192.0.2.1" { Ok(1) } else { Err(()) } };
        let began = Instant::now();
        let none = ResolveError::Name(io::ErrorKind::NotFound.into());
        assert!(matches!(any([1, 2].map(address).into_iter(), connect, none).await, Ok(1)));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
