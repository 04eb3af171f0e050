//! A plain HTTP/1.1 client over a raw socket: tests say byte by byte what they send, and see what comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a read may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head as text.
    pub head: String,
    /// The body, chunks put together; trailers are in `trailers`.
    pub body: Vec<u8>,
    /// The trailer lines of a chunked body.
    pub trailers: String,
}

impl Answer {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The `details` of `Proxy-Status`, which are the reason's code.
    pub fn reason(&self) -> Option<&str> {
        self.header("proxy-status")?.split_once("details=\"")?.1.strip_suffix('"')
    }
}

/// A GET of `url` through the proxy at `proxy`, on a connection of its own.
///
/// # Errors
/// What went wrong, in words.
pub fn get(proxy: SocketAddr, url: &str) -> Result<Answer, String> {
    send(proxy, "GET", url, &[], b"")
}

/// A request through the proxy at `proxy`, on a connection of its own.
///
/// # Errors
/// What went wrong, in words.
pub fn send(proxy: SocketAddr, method: &str, url: &str, headers: &[&str], body: &[u8]) -> Result<Answer, String> {
    let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let mut request = format!("{method} {url} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    if !body.is_empty() {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    raw(proxy, &bytes)
}

/// Sends exactly `bytes`, reads until the other side closes, and reads that as one answer.
///
/// # Errors
/// What went wrong, in words.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> Result<Answer, String> {
    let mut stream = connect(address)?;
    stream.write_all(bytes).map_err(|error| format!("cannot send: {error}"))?;
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        // What came before a reset still counts.
        Err(_) if !all.is_empty() => {}
        Err(error) => return Err(format!("cannot read: {error}")),
    }
    parse(&all)
}

/// A connection with time limits.
///
/// # Errors
/// What went wrong, in words.
pub fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| format!("cannot connect: {error}"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

/// Reads the bytes of one whole answer.
///
/// # Errors
/// If they are none.
pub fn parse(bytes: &[u8]) -> Result<Answer, String> {
    let malformed = || format!("no HTTP answer: {:?}", String::from_utf8_lossy(bytes));
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(malformed)?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    let rest = &bytes[end + 4..];
    if (100..200).contains(&status) && status != 101 {
        return parse(rest);
    }
    let mut answer = Answer { status, head, body: rest.to_vec(), trailers: String::new() };
    if answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        (answer.body, answer.trailers) =
            dechunk(rest).ok_or_else(|| format!("broken chunks: {malformed}", malformed = malformed()))?;
    } else if let Some(length) = answer.header("content-length").and_then(|value| value.parse::<usize>().ok()) {
        if rest.len() < length {
            return Err(format!("{} of {length} body bytes", rest.len()));
        }
        answer.body.truncate(length);
    }
    Ok(answer)
}

fn dechunk(mut bytes: &[u8]) -> Option<(Vec<u8>, String)> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        bytes = &bytes[line + 2..];
        if size == 0 {
            return Some((body, String::from_utf8_lossy(bytes).trim_end().to_owned()));
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_trailers_are_put_together() {
        let answer = parse(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx: y\r\n\r\n")
            .expect("whole");
        assert_eq!((answer.status, &answer.body[..], answer.trailers.as_str()), (200, &b"abcde"[..], "x: y"));
    }

    #[test]
    fn half_an_answer_is_none() {
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab").is_err());
        assert!(parse(b"HTTP/1.1 200").is_err());
    }
}
