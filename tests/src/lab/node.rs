//! A node of a lab: its name, its addresses, and what its metrics say.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::client;

/// A node of the lab: where it is, and under which name its process runs.
#[derive(Clone, Debug)]
pub struct LabNode {
    /// The process's name.
    pub name: String,
    /// Its loopback address.
    pub ip: Ipv4Addr,
}

impl LabNode {
    /// Its address at `port`.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), port)
    }

    /// The sidecar's HTTP proxy.
    pub fn proxy(&self) -> SocketAddr {
        self.at(15080)
    }

    /// The sidecar's inbound listener.
    pub fn inbound(&self) -> SocketAddr {
        self.at(15008)
    }

    /// The application beside the sidecar.
    pub fn app(&self) -> SocketAddr {
        self.at(8080)
    }

    /// The node's metrics, as text.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn metrics(&self) -> Result<String, String> {
        let answer = client::get(self.at(15020), "/metrics")?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// The sum of all samples of the metric `name` whose labels contain all of `labels`.
    ///
    /// # Errors
    /// If the metrics cannot be read.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64, String> {
        let metrics = self.metrics()?;
        let named = metrics.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        Ok(named.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}
