//! Names outside the mesh: asked of the host's own servers, of another when one fails, and kept for as long as they say.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use eastway_runtime::throttled;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::{Name, Record, RecordType};

use super::Answer;
use crate::resolver::servers_file;

/// For one question to one server.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a question is asked again that was not answered: of another server, if there is one.
const REPEATED: usize = 3;
/// Answers that are kept.
const KEPT: u64 = 4_096;
/// Between two looks whether the file that lists the servers has changed.
const LOOKS: Duration = Duration::from_secs(5);

/// Which servers are asked.
#[derive(Clone, Debug)]
pub(super) enum Servers {
    /// These.
    Listed(Vec<SocketAddr>),
    /// Those that the host below this folder lists, as resolv.conf(5) has it, or listed before it was set to ask here.
    Host(PathBuf),
}

/// Asks other servers.
pub(super) struct Forwarder {
    servers: Servers,
    /// Where this server listens.
    own: SocketAddr,
    resolver: ArcSwapOption<TokioResolver>,
}

impl Forwarder {
    /// Asks `servers`, on behalf of the server at `own`.
    pub(super) fn new(servers: Servers, own: SocketAddr) -> Arc<Self> {
        let forwarder = Arc::new(Self { servers, own, resolver: ArcSwapOption::empty() });
        forwarder.take_over();
        forwarder
    }

    /// Follows the file that lists the servers. Runs until it is dropped.
    pub(super) async fn follow(self: Arc<Self>) {
        let Servers::Host(root) = &self.servers else { return std::future::pending().await };
        let mut known = changed(root);
        let mut looks = tokio::time::interval(LOOKS);
        loop {
            looks.tick().await;
            let now = changed(root);
            if known != now {
                tracing::info!(path = %now.0.display(), "the servers for other names may have changed");
                known = now;
                self.take_over();
            }
        }
    }

    /// Takes over which servers there are. If that cannot be read, those that were known stay.
    fn take_over(&self) {
        let servers = match &self.servers {
            Servers::Listed(servers) => servers.clone(),
            Servers::Host(root) => {
                let path = servers_file(root);
                match listed(&path, self.own) {
                    Ok(servers) => servers,
                    Err(error) => {
                        return tracing::warn!(path = %path.display(), %error, "which servers know other names cannot be read");
                    }
                }
            }
        };
        match resolver(&servers) {
            Ok(resolver) => self.resolver.store(Some(Arc::new(resolver))),
            Err(error) => tracing::warn!(%error, ?servers, "the servers for other names cannot be used"),
        }
    }

    /// What the servers say.
    pub(super) async fn answer(&self, name: &Name, kind: RecordType) -> Answer {
        let Some(resolver) = self.resolver.load_full() else { return Answer::failed() };
        let mut name = name.clone();
        // What is asked for is not to be looked for in other domains.
        name.set_fqdn(true);
        match resolver.lookup(name, kind).await {
            Ok(lookup) => Answer { answers: lookup.answers().to_vec(), ..Answer::of(ResponseCode::NoError) },
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let soa = none.soa.map(|soa| Record::into_record_of_rdata(*soa));
                Answer { authorities: soa.into_iter().collect(), ..Answer::of(none.response_code) }
            }
            Err(error) => {
                throttled!(info, %error, "the servers for other names do not answer");
                Answer::failed()
            }
        }
    }
}

/// Which file lists the servers, and when it was last changed.
fn changed(root: &Path) -> (PathBuf, Option<SystemTime>) {
    let path = servers_file(root);
    let modified = std::fs::metadata(&path).and_then(|file| file.modified()).ok();
    (path, modified)
}

/// The servers that the file lists.
fn listed(path: &Path, own: SocketAddr) -> io::Result<Vec<SocketAddr>> {
    let text = std::fs::read(path)?;
    let (config, _) = hickory_resolver::system_conf::parse_resolv_conf(text).map_err(io::Error::other)?;
    let servers = config.name_servers().iter().map(|server| SocketAddr::new(server.ip, 53));
    let servers: Vec<SocketAddr> = servers.filter(|server| *server != own).collect();
    if servers.is_empty() { Err(io::Error::other("it lists none but this one")) } else { Ok(servers) }
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let servers = servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    let mut options = ResolverOpts::default();
    options.timeout = PATIENCE;
    options.attempts = REPEATED;
    options.edns0 = true;
    options.cache_size = KEPT;
    options.use_hosts_file = ResolveHosts::Never;
    // One at a time: the one that has answered fastest, until it fails.
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::QueryStatistics;
    // Aliases are a part of the answer.
    options.preserve_intermediates = true;
    // A forged answer has to guess the case of each letter, too, beside the port and the number.
    options.case_randomization = true;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_are_those_of_the_file_without_oneself() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let own: SocketAddr = ([127, 0, 0, 1], 53).into();
        let read = |text: &str| {
            std::fs::write(file.path(), text).expect("written");
            listed(file.path(), own).ok()
        };
        let other: SocketAddr = ([192, 0, 2, 7], 53).into();
        assert_eq!(read("search corp.example\nnameserver 127.0.0.1\nnameserver 192.0.2.7\n"), Some(vec![other]));
        assert_eq!(read("nameserver 127.0.0.1\n"), None, "it would ask itself");
        assert_eq!(read("search corp.example\n"), None);
        assert!(listed(Path::new("/nowhere"), own).is_err());
    }
}
