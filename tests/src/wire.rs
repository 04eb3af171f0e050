//! A TCP connection that a test reads and writes piece by piece, with a time limit on every read.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a read may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Wire {
    /// Connects to `address`.
    ///
    /// # Panics
    /// If nobody answers there.
    pub fn to(address: SocketAddr) -> Self {
        Self::try_to(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// The same.
    ///
    /// # Errors
    /// If nobody answers there, or whoever does resets the connection before this side has seen that it stands.
    pub fn try_to(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect_timeout(&address, PATIENCE).map(Self::over)
    }

    /// Reads and writes `stream`.
    ///
    /// # Panics
    /// If the stream takes no options.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time limit");
        stream.set_nodelay(true).expect("a socket takes an option");
        Self { stream, ahead: Vec::new() }
    }

    /// Sends `bytes`; a peer that is gone shows when something is read.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// What comes up to and with `end`, as text; `Err` with what came if the connection ended before.
    ///
    /// # Errors
    /// If `end` never comes.
    pub fn until(&mut self, end: &str) -> Result<String, String> {
        loop {
            let found = self.ahead.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(position) = found {
                let rest = self.ahead.split_off(position + end.len());
                let text = std::mem::replace(&mut self.ahead, rest);
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            if !matches!(self.fill(), Ok(1..)) {
                return Err(String::from_utf8_lossy(&self.ahead).into_owned());
            }
        }
    }

    /// The head of an HTTP message.
    ///
    /// # Panics
    /// If none comes.
    pub fn head(&mut self) -> String {
        self.until("\r\n\r\n").unwrap_or_else(|came| panic!("no head, but {came:?}"))
    }

    /// Exactly `length` bytes.
    ///
    /// # Errors
    /// With what came, if the connection ended before.
    pub fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Vec<u8>> {
        while self.ahead.len() < length {
            if !matches!(self.fill(), Ok(1..)) {
                return Err(std::mem::take(&mut self.ahead));
            }
        }
        let rest = self.ahead.split_off(length);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    /// Everything up to the end of the connection, and how it ended: `None` for an orderly end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn rest(&mut self) -> (Vec<u8>, Option<ErrorKind>) {
        loop {
            match self.fill() {
                Ok(0) => return (std::mem::take(&mut self.ahead), None),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!(
                        "the connection neither went on nor ended; so far: {:?}",
                        String::from_utf8_lossy(&self.ahead)
                    )
                }
                Err(error) => return (std::mem::take(&mut self.ahead), Some(error.kind())),
            }
        }
    }

    /// The bytes that come next, empty at the end: for whoever passes them on.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Whether something can be read, the end included, before `limit` has passed.
    ///
    /// # Panics
    /// If the socket takes no options.
    pub fn is_readable_within(&self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).expect("a socket takes a time limit");
        let readable = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time limit");
        readable
    }

    /// Another handle for the same connection, with nothing read ahead.
    ///
    /// # Panics
    /// If the system has no handle left.
    pub fn writer(&self) -> Self {
        Self { stream: self.stream.try_clone().expect("a socket can be cloned"), ahead: Vec::new() }
    }

    /// The socket itself, with nothing read ahead.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Ends the connection by a reset instead of an orderly end.
    ///
    /// # Panics
    /// If the socket takes no options.
    pub fn reset(self) {
        self.reset_at_end();
    }

    /// The same once it is dropped.
    ///
    /// # Panics
    /// If the socket takes no options.
    pub fn reset_at_end(&self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a socket takes an option");
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 64 << 10];
        let read = self.stream.read(&mut buffer)?;
        self.ahead.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}
