//! Relays between two processes that a test can cut: of connections, and of datagrams.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod datagrams;
mod path;

pub use datagrams::DatagramRelay;
pub use path::PathRelay;

/// Passes TCP connections on to another address, until it is cut. It ends with the process that made it.
#[derive(Clone, Debug)]
pub struct Relay {
    address: SocketAddr,
    open: Arc<Mutex<Connections>>,
}

#[derive(Debug, Default)]
struct Connections {
    cut: bool,
    streams: Vec<TcpStream>,
}

impl Relay {
    /// A relay at a free port of `host` that leads to `target`.
    ///
    /// # Panics
    /// If there is no port.
    pub fn start(host: IpAddr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let relay = Self { address, open: Arc::default() };
        let passing = relay.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who cannot be connected is closed, as a cut one is.
                let _ = passing.pass(stream, target);
            }
        });
        relay
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection, and every one that is opened from now on.
    pub fn cut(&self) {
        let mut open = self.lock();
        open.cut = true;
        for stream in open.streams.drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Passes connections on again.
    pub fn heal(&self) {
        self.lock().cut = false;
    }

    fn pass(&self, near: TcpStream, target: SocketAddr) -> io::Result<()> {
        let mut open = self.lock();
        if open.cut {
            return Ok(());
        }
        let far = TcpStream::connect(target)?;
        open.streams.extend([near.try_clone()?, far.try_clone()?]);
        drop(open);
        copy(near.try_clone()?, far.try_clone()?);
        copy(far, near);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies one direction in the background, to its end.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        // However it ends, both directions end.
        let _ = io::copy(&mut from, &mut to);
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
