//! Applications that run in the test itself and speak byte by byte what a scenario needs.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wire::Wire;

/// An application that hands every connection to a function, on a thread of its own. Dropping it frees its address.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

/// A connection to an [`App`], and where it notes what it saw.
#[derive(Debug)]
pub struct Connection {
    /// The bytes.
    pub wire: Wire,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Connection {
    /// Reads the head of a request, and notes it; `None` if the connection ended instead, as a probe's does.
    pub fn request(&mut self) -> Option<String> {
        let head = self.wire.until("\r\n\r\n").ok()?;
        self.note(&head);
        Some(head)
    }

    /// Whether something can be read, the end included, before `limit` has passed.
    pub fn readable_within(&self, limit: Duration) -> bool {
        self.wire.is_readable_within(limit)
    }

    /// Notes a text for [`App::seen`].
    pub fn note(&self, text: &str) {
        note(&self.seen, text);
    }

    /// The socket itself, and what notes a text.
    pub fn into_parts(self) -> (TcpStream, impl Fn(&str)) {
        let seen = self.seen;
        (self.wire.into_stream(), move |text: &str| note(&seen, text))
    }
}

impl App {
    /// Listens on `address`.
    ///
    /// # Panics
    /// If it is taken.
    pub fn start(address: SocketAddr, handle: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let address = listener.local_addr().expect("a listener has an address");
        let (seen, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (notes, stop, handle) = (Arc::clone(&seen), Arc::clone(&ended), Arc::new(handle));
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (handle, seen) = (Arc::clone(&handle), Arc::clone(&notes));
                std::thread::spawn(move || handle(Connection { wire: Wire::over(stream), seen }));
            }
        });
        Self { address, seen, ended, acceptor: Some(acceptor) }
    }

    /// An application that answers every request with the same bytes, and closes.
    pub fn answering(address: SocketAddr, answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(address, move |mut connection| {
            if connection.request().is_some() {
                connection.wire.send(&answer);
            }
        })
    }

    /// An application that takes a request that would change the protocol, and echoes bytes from then on.
    pub fn switching(address: SocketAddr) -> Self {
        Self::start(address, |mut connection| {
            if connection.request().is_some() {
                connection
                    .wire
                    .send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
                echo(&mut connection.wire);
            }
        })
    }

    /// An application that speaks no HTTP: it reads to the end, and then says how many bytes came, and which.
    pub fn counting(address: SocketAddr) -> Self {
        Self::start(address, |mut connection| {
            let (bytes, _) = connection.wire.rest();
            connection.wire.send(format!("{} bytes: {}", bytes.len(), String::from_utf8_lossy(&bytes)));
        })
    }

    /// An application that speaks no HTTP: it sends back every byte.
    pub fn echoing(address: SocketAddr) -> Self {
        Self::start(address, |mut connection| echo(&mut connection.wire))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that its connections noted so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the acceptor, which then ends; if that fails it has ended already.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn note(seen: &Mutex<Vec<String>>, text: &str) {
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
}

fn echo(wire: &mut Wire) {
    while let Ok(bytes) = wire.chunk() {
        if bytes.is_empty() {
            return;
        }
        wire.send(bytes);
    }
}
