//! A byte stream over TCP on its way from one runtime to another.
//!
//! The runtime in which a connection was accepted is the one that wakes whoever waits for it. If another shall drive the
//! connection, it has to be taken out of the first and put into the second, with everything above it: the TLS session, and what was
//! read ahead.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::Io;

/// A stream over TCP that no runtime drives.
#[derive(Debug)]
pub struct Detached {
    /// The stream, with a placeholder where its connection was.
    io: Io,
    tcp: std::net::TcpStream,
    /// How long the peer's host may acknowledge nothing, if that is watched.
    limit: Option<Duration>,
}

impl Io {
    /// Takes the stream out of the runtime that drives it.
    ///
    /// # Errors
    /// If it does not run over TCP, or the connection is gone.
    pub fn detach(mut self) -> io::Result<Detached> {
        let (tcp, limit) = match std::mem::replace(self.lowest(), Self::other(tokio::io::empty())) {
            Self::Plain(tcp) => (tcp, None),
            Self::Watched(watched) => watched.into_parts(),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the stream does not run over TCP")),
        };
        Ok(Detached { io: self, tcp: tcp.into_std()?, limit })
    }

    /// What is below every session.
    fn lowest(&mut self) -> &mut Self {
        match self {
            Self::Tls(tls) => tls.lower_mut().lowest(),
            Self::Rewound(rewound) => rewound.io.lowest(),
            io => io,
        }
    }
}

impl Detached {
    /// Puts the stream into the calling runtime, which drives it from now on.
    ///
    /// # Errors
    /// If the runtime cannot take it.
    pub fn attach(mut self) -> io::Result<Io> {
        let tcp = TcpStream::from_std(self.tcp)?;
        *self.io.lowest() = match self.limit {
            Some(limit) => Io::watched(tcp, limit),
            None => tcp.into(),
        };
        Ok(self.io)
    }

    /// The network address of the other side; an unspecified one if the connection is gone.
    pub fn remote(&self) -> SocketAddr {
        self.tcp.peer_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into())
    }
}
