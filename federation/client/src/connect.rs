//! How a gateway's discovery listener is reached: TCP, and our own TLS over it.
//!
//! The gateway must show the identity of a gateway of the own trust domain; nothing is read from anybody else.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use eastway_identity::{ClientTls, Expected, Identity};
use eastway_transport::tcp::DialOptions;
use eastway_transport::{Io, tcp, tls};
use tokio::net::lookup_host;

/// Opens connections to gateways. Behind a trait so that tests run in memory, on paused time.
#[async_trait]
pub trait Connector: Send + Sync + fmt::Debug {
    /// A connection to the gateway at `address`, over which gRPC is spoken. The caller limits its time.
    async fn connect(&self, address: &str) -> io::Result<Io>;
}

/// TCP and TLS.
#[derive(Debug)]
pub struct TlsConnector {
    tls: ClientTls,
    dial: DialOptions,
}

impl TlsConnector {
    /// Connects as `identity` to gateways of `trust_domain`, which is the own one.
    pub fn new(identity: &Arc<Identity>, trust_domain: &str, dial: DialOptions) -> Self {
        let gateway = Expected::Gateway { trust_domain: trust_domain.to_owned() };
        Self { tls: eastway_identity::client_config(identity, gateway, &[b"h2"]), dial }
    }
}

#[async_trait]
impl Connector for TlsConnector {
    async fn connect(&self, address: &str) -> io::Result<Io> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host(address).await? {
            match tcp::dial(address, &self.dial).await {
                Ok(stream) => {
                    return tls::connect(Io::from(stream), self.tls.clone()).await.map_err(io::Error::other);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}
