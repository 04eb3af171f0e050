//! `bulk` and `connections`: streams that are no HTTP, over plain TCP or, with `via`, by CONNECT to that authority.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::http::Connection;

/// Where a stream leads.
#[derive(Clone, Debug)]
struct Target {
    address: SocketAddr,
    via: Option<String>,
}

impl Target {
    fn of(arguments: &Arguments) -> Result<Self, String> {
        Ok(Self { address: arguments.address()?, via: arguments.text("via").map(str::to_owned) })
    }

    fn open(&self) -> io::Result<TcpStream> {
        let mut connection = Connection::to(self.address, 8 << 10)?;
        if let Some(authority) = &self.via {
            connection.send(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes())?;
            if connection.head()?.status != 200 {
                return Err(ErrorKind::ConnectionRefused.into());
            }
        }
        Ok(connection.into_stream())
    }
}

/// Sends so many bytes, and waits until the sink has them all.
fn push(stream: &mut TcpStream, bytes: u64, buffer: &[u8]) -> io::Result<()> {
    stream.write_all(&bytes.to_be_bytes())?;
    let mut left = bytes;
    while left > 0 {
        let most = left.min(buffer.len() as u64) as usize;
        left -= stream.write(&buffer[..most])? as u64;
    }
    stream.read_exact(&mut [0])
}

/// `bulk`: `bytes` over each of `streams` streams at once.
pub(crate) fn bulk(arguments: &Arguments) -> Result<Value, String> {
    let target = Target::of(arguments)?;
    let (bytes, streams) = (arguments.required::<u64>("bytes")?, arguments.or("streams", 1_u64)?);
    let started = Instant::now();
    let sent: io::Result<()> = thread::scope(|scope| {
        let one = || push(&mut target.open()?, bytes, &vec![0x5a; 256 << 10]);
        let threads: Vec<_> = (0..streams).map(|_| scope.spawn(one)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(ErrorKind::Other.into())))
    });
    sent.map_err(|error| error.to_string())?;
    Ok(json!({ "bytes": bytes * streams, "bad": 0, "seconds": started.elapsed().as_secs_f64() }))
}

/// `connections`: a new connection for each byte that is sent and answered, `concurrency` at once, until `seconds` have passed
/// or `count` were made.
pub(crate) fn connections(arguments: &Arguments) -> Result<Value, String> {
    let target = Target::of(arguments)?;
    let concurrency = arguments.or("concurrency", 1_u64)?.max(1);
    let limit = Duration::from_secs(arguments.or("seconds", 60)?);
    let each = arguments.or("count", u64::MAX)?.div_ceil(concurrency);
    let started = Instant::now();
    let counted: Vec<(u64, u64)> = thread::scope(|scope| {
        let one = || {
            let (mut done, mut bad) = (0, 0);
            while done + bad < each && started.elapsed() < limit {
                match target.open().and_then(|mut stream| push(&mut stream, 1, &[0x5a])) {
                    Ok(()) => done += 1,
                    Err(_) => bad += 1,
                }
            }
            (done, bad)
        };
        let threads: Vec<_> = (0..concurrency).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or((0, 1))).collect()
    });
    let sum = |part: fn(&(u64, u64)) -> u64| counted.iter().map(part).sum::<u64>();
    Ok(json!({ "connections": sum(|c| c.0), "bad": sum(|c| c.1), "seconds": started.elapsed().as_secs_f64() }))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A sink that serves one connection after `answer` was said, if there is one to say.
    fn sink(answer: Option<&'static str>) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            if let Some(answer) = answer {
                let mut head = [0; 256];
                let read = stream.read(&mut head).expect("a head");
                assert!(head[..read].starts_with(b"CONNECT sink:9000 HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).expect("an answer");
            }
            crate::sink::serve(stream)
        });
        Target { address, via: answer.map(|_| "sink:9000".to_owned()) }
    }

    #[test]
    fn the_sink_answers_when_all_has_come() {
        for target in [sink(None), sink(Some("HTTP/1.1 200 OK\r\n\r\n"))] {
            let mut stream = target.open().expect("a stream");
            for bytes in [0, 1, 1_000_000] {
                push(&mut stream, bytes, &[7; 1000]).expect("an answer");
            }
        }
    }

    #[test]
    fn a_stream_that_is_refused_is_an_error() {
        assert!(sink(Some("HTTP/1.1 503 No\r\n\r\n")).open().is_err());
    }
}
