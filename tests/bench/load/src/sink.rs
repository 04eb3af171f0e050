//! `sink`: the application behind opaque streams. It reads a length of eight bytes and as many bytes as that, answers with one
//! byte, and waits for the next length, so that neither side needs the end of a stream to know that all has come.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::Value;

use crate::arguments::Arguments;

/// Runs until it is ended from outside.
pub(crate) fn run(arguments: &Arguments) -> Result<Value, String> {
    let listener = TcpListener::bind(arguments.address()?).map_err(|error| error.to_string())?;
    for stream in listener.incoming() {
        // A connection that could not be accepted is the caller's to notice.
        let Ok(stream) = stream else { continue };
        thread::spawn(move || serve(stream));
    }
    Ok(Value::Null)
}

/// Ends with the connection, whichever way it ends.
pub(crate) fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let mut length = [0; 8];
        stream.read_exact(&mut length)?;
        let mut left = u64::from_be_bytes(length);
        while left > 0 {
            let most = left.min(buffer.len() as u64) as usize;
            let read = stream.read(&mut buffer[..most])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= read as u64;
        }
        stream.write_all(&[1])?;
    }
}
