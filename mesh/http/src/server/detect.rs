//! Telling HTTP/2 from HTTP/1 by the first bytes.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Protocol;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until the protocol is certain; what was read is to be served again.
pub(super) async fn detect(io: &mut (impl AsyncRead + Unpin)) -> io::Result<(Protocol, Bytes)> {
    let mut read = BytesMut::with_capacity(PREFACE.len());
    while read.len() < PREFACE.len() {
        let before = read.len();
        // Never beyond the preface: the rest is read into hyper's own buffer.
        let got = (&mut *io).take((PREFACE.len() - before) as u64).read_buf(&mut read).await?;
        if got == 0 && before == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if got == 0 || read[before..] != PREFACE[before..read.len()] {
            return Ok((Protocol::Http1, read.freeze()));
        }
    }
    Ok((Protocol::Http2, read.freeze()))
}
