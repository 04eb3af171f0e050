//! HTTP/2 as this sidecar's configuration bounds it.

use eastway_http::client::{H2Options, Ping};

use crate::config::Limits;

/// What an HTTP/2 connection may hold, on either side of it.
pub(crate) fn options(limits: &Limits, ping: Option<Ping>) -> H2Options {
    H2Options {
        stream_window: limits.stream_window,
        connection_window: limits.connection_window,
        max_streams: limits.streams,
        send_buffer: limits.send_buffer,
        ping,
        ..H2Options::default()
    }
}
