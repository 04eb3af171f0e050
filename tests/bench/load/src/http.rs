//! As much HTTP/1.1 as a load needs: a head, a body of known length, and a download that is counted and thrown away.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::arguments::Arguments;

/// How long a read or a write may take. What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection, and what of the next answer was read with the last one.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    have: usize,
}

/// An answer whose body is still to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    length: u64,
}

impl Connection {
    pub(crate) fn to(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: vec![0; buffer], have: 0 })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The head of the next answer; final ones only.
    pub(crate) fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(end) = self.buffer[..self.have].windows(4).position(|window| window == b"\r\n\r\n") {
                let head = parse(&self.buffer[..end])?;
                self.buffer.copy_within(end + 4..self.have, 0);
                self.have -= end + 4;
                return Ok(head);
            }
            if self.have == self.buffer.len() {
                return Err(ErrorKind::InvalidData.into());
            }
            let read = self.stream.read(&mut self.buffer[self.have..])?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.have += read;
        }
    }

    /// Reads the body that `head` announces, and throws it away.
    pub(crate) fn skip(&mut self, head: Head) -> io::Result<()> {
        let ahead = (self.have as u64).min(head.length);
        self.buffer.copy_within(ahead as usize..self.have, 0);
        self.have -= ahead as usize;
        let mut left = head.length - ahead;
        while left > 0 {
            let most = left.min(self.buffer.len() as u64) as usize;
            let read = self.stream.read(&mut self.buffer[..most])?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            left -= read as u64;
        }
        Ok(())
    }

    /// The socket, once nothing more of HTTP comes.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// Status and length. Every application of the benchmark states a length.
fn parse(head: &[u8]) -> io::Result<Head> {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    let length = lines.filter_map(|line| line.split_once(':')).find(|(name, _)| *name == "content-length");
    Ok(Head { status, length: length.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0) })
}

/// The request that all loads send.
pub(crate) fn request(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// `download`: one body after the other over one connection, `count` of them.
pub(crate) fn download(arguments: &Arguments) -> Result<Value, String> {
    let host: String = arguments.required("host")?;
    let request = request(&host, &arguments.required::<String>("path")?);
    let count = arguments.or("count", 1)?;
    let mut connection = Connection::to(arguments.address()?, 256 << 10).map_err(|error| error.to_string())?;
    let (started, mut bytes, mut bad) = (Instant::now(), 0, 0);
    for _ in 0..count {
        let body = connection.send(&request).and_then(|()| {
            let head = connection.head()?;
            connection.skip(head).map(|()| head)
        });
        match body {
            Ok(head) if head.status == 200 => bytes += head.length,
            Ok(_) => bad += 1,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(json!({ "bytes": bytes, "bad": bad, "seconds": started.elapsed().as_secs_f64() }))
}

#[test]
fn heads_are_parsed() {
    let head = parse(b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 1024").expect("a head");
    assert_eq!((head.status, head.length), (200, 1024));
    assert_eq!(parse(b"HTTP/1.1 204 No Content").expect("a head").length, 0);
    assert!(parse(b"nonsense").is_err());
}

#[test]
fn answers_that_come_together_are_read_one_by_one() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 503 No\r\n\r\n").expect("sent");
    });
    let mut connection = Connection::to(address, 1024).expect("a connection");
    let first = connection.head().expect("a head");
    connection.skip(first).expect("a body");
    assert_eq!((first.status, connection.head().expect("a head").status), (200, 503));
    assert!(connection.head().is_err(), "the connection has ended");
    server.join().expect("the server ends");
}
