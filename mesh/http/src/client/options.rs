//! The settings of connections to upstreams.

use std::time::Duration;

use crate::h2_options::{H2Options, Ping};

/// How to speak with an upstream.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The largest response head, in bytes; 64 KiB by default.
    pub max_header_bytes: u32,
    /// How long a body that the upstream is to ask for (`Expect: 100-continue`) waits; then it is sent unasked. 1 s by
    /// default. Over HTTP/2 nobody can ask, and only an answer in this time keeps the body back.
    pub continue_after: Duration,
    /// HTTP/2.
    pub h2: H2Options,
}

impl Default for ClientOptions {
    fn default() -> Self {
        let ping = Ping { interval: Duration::from_millis(200), timeout: Duration::from_millis(250) };
        let continue_after = Duration::from_secs(1);
        Self { max_header_bytes: 64 * 1024, continue_after, h2: H2Options { ping: Some(ping), ..H2Options::default() } }
    }
}
