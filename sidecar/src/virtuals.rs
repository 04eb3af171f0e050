//! Virtual addresses: a name's own address on this host, with each port of its service served there.
//!
//! Which number a name has is the cluster's to say ([`Discovery::address`]); here it becomes an address of the loopback network,
//! and sockets. Clients may look a name up once and for all: what is served stays until nobody has used it for a day, also while
//! its service is not followed any more.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use eastway_client::Discovery;
use eastway_core::resource::{Protocol, ServicePort};
use eastway_core::{Authority, MeshHost, Reason};
use eastway_registry::virtuals::NUMBERS;
use eastway_runtime::throttled;
use eastway_transport::tcp;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::services::Services;

/// The network of the addresses: 127.64.0.0/10. All of 127.0.0.0/8 is this host.
const NETWORK: u32 = u32::from_be_bytes([127, 64, 0, 0]);

/// What nobody has used for so long is no longer served.
const KEPT: Duration = Duration::from_secs(24 * 3_600);
/// What was used so lately makes no room for others.
const IN_USE: Duration = Duration::from_secs(600);
/// Between two looks at ports and uses.
const LOOKS: Duration = Duration::from_secs(1);
/// Services that are asked for at once at the start.
const ASKED_AT_ONCE: usize = 32;

/// The names that have an address here.
pub(crate) struct Virtuals {
    services: Arc<Services>,
    discovery: Arc<Discovery>,
    /// Where each worker takes over what it is to accept. What waits there is bounded by the names and their ports.
    workers: Vec<mpsc::UnboundedSender<Opened>>,
    names: Mutex<HashMap<MeshHost, Held>>,
    begin: Instant,
}

/// A port that is open, for one worker.
pub(crate) struct Opened {
    pub(crate) listener: TcpListener,
    /// What its connections lead to.
    pub(crate) target: Authority,
    pub(crate) protocol: Protocol,
    pub(crate) used: Arc<Use>,
    /// Ends when it is to be closed.
    pub(crate) closed: watch::Receiver<()>,
}

/// A name.
struct Held {
    address: Ipv4Addr,
    ports: BTreeMap<u16, Port>,
    used: Arc<Use>,
}

struct Port {
    protocol: Protocol,
    open: Result<watch::Sender<()>, io::Error>,
}

/// When a name was last used, and by how many connections it is now.
#[derive(Debug, Default)]
pub(crate) struct Use {
    /// In milliseconds since the begin, as of the last look.
    last: AtomicU64,
    /// A connection has begun since then, however short it was.
    begun: AtomicBool,
    open: AtomicUsize,
}

/// A connection to a name's address.
pub(crate) struct Using(Arc<Use>);

impl Use {
    /// A connection begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Using {
        self.begun.store(true, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Using(Arc::clone(self))
    }

    /// It is used at `now`.
    fn touch(&self, now: u64) {
        self.last.store(now, Ordering::Relaxed);
    }

    /// How long it has not been used at `now`.
    fn unused(&self, now: u64) -> Duration {
        if self.begun.swap(false, Ordering::Relaxed) || self.connections() > 0 {
            self.touch(now);
        }
        Duration::from_millis(now.saturating_sub(self.last.load(Ordering::Relaxed)))
    }

    fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A name for operators.
#[derive(Debug, Serialize)]
pub(crate) struct NameListing {
    /// `NAMESPACE/SERVICE` or `NAMESPACE/SERVICE/CLUSTER`.
    name: String,
    address: Ipv4Addr,
    ports: Vec<PortListing>,
    /// Connections that are open now.
    connections: usize,
    /// Seconds since it was last used.
    unused_seconds: f64,
}

/// A port that is served at no name's address, or not at that of some.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unserved {
    pub(crate) port: u16,
    pub(crate) kind: io::ErrorKind,
    /// What the operating system says.
    pub(crate) error: String,
    /// How many names it is of.
    pub(crate) names: usize,
    /// One of them, with its address.
    pub(crate) first: String,
}

#[derive(Debug, Serialize)]
struct PortListing {
    port: u16,
    protocol: Protocol,
    /// Why it is not served, if it is not.
    problem: Option<String>,
}

impl Virtuals {
    /// None yet. With them comes what each of `workers` takes what it is to accept from.
    pub(crate) fn new(
        services: &Arc<Services>,
        discovery: &Arc<Discovery>,
        workers: usize,
    ) -> (Arc<Self>, Vec<mpsc::UnboundedReceiver<Opened>>) {
        let (workers, taken) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let (services, discovery) = (Arc::clone(services), Arc::clone(discovery));
        (Arc::new(Self { services, discovery, workers, names: Mutex::default(), begin: Instant::now() }), taken)
    }

    /// The address of `host`, whose service has these ports: they are open before this returns.
    ///
    /// # Errors
    /// See [`Discovery::address`].
    pub(crate) async fn hold(&self, host: &MeshHost, ports: &[ServicePort]) -> Result<Ipv4Addr, Reason> {
        let number = match self.discovery.address(host).await {
            Err(Reason::Overloaded) if self.make_room() => self.discovery.address(host).await?,
            told => told?,
        };
        let address = address(number).ok_or(Reason::Internal)?;
        let mut names = self.names.lock();
        let held = self.serve(&mut names, host, address, ports);
        held.used.touch(self.now());
        Ok(address)
    }

    /// Opens what is served at `address` and not open, and closes what is no longer served.
    fn serve<'a>(
        &self,
        names: &'a mut HashMap<MeshHost, Held>,
        host: &MeshHost,
        address: Ipv4Addr,
        ports: &[ServicePort],
    ) -> &'a mut Held {
        let held = names.entry(host.clone()).or_insert_with(|| {
            let used = Use { last: AtomicU64::new(self.now()), ..Use::default() };
            Held { address, ports: BTreeMap::new(), used: Arc::new(used) }
        });
        if held.address != address {
            // The cluster gave it another one, because its store had forgotten it.
            tracing::warn!(%host, before = %held.address, now = %address, "a name has another address now");
            held.address = address;
            held.ports.clear();
        }
        held.ports.retain(|number, port| {
            port.open.is_ok() && ports.iter().any(|wanted| wanted.port == *number && wanted.protocol == port.protocol)
        });
        for ServicePort { port, protocol } in ports {
            let used = &held.used;
            held.ports.entry(*port).or_insert_with(|| {
                let open = self.open(host, SocketAddr::from((address, *port)), *protocol, used);
                if let Err(error) = &open {
                    warn(host, address, *port, error);
                }
                Port { protocol: *protocol, open }
            });
        }
        held
    }

    fn open(
        &self,
        host: &MeshHost,
        address: SocketAddr,
        protocol: Protocol,
        used: &Arc<Use>,
    ) -> io::Result<watch::Sender<()>> {
        let (open, closed) = watch::channel(());
        for (worker, listener) in self.workers.iter().zip(tcp::bind_reuseport(address, self.workers.len())?) {
            let target = host.clone().at(address.port());
            // Fails only if the worker has ended.
            let _ = worker.send(Opened { listener, target, protocol, used: Arc::clone(used), closed: closed.clone() });
        }
        Ok(open)
    }

    /// Serves the names that were held before a restart, follows the ports of all, and lets go of what is not used any more. Runs
    /// until it is dropped.
    pub(crate) async fn keep(self: Arc<Self>) {
        self.resume().await;
        let mut looks = tokio::time::interval(LOOKS);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look();
        }
    }

    /// The ports of what was held before are not known until its services are.
    async fn resume(&self) {
        let resolve = async |(host, _): (MeshHost, u32)| {
            let found = self.discovery.resolve(&host.service).await;
            if let Err(reason) = found {
                tracing::info!(%host, reason = reason.code(), "a name of before is not served yet");
            }
        };
        futures_util::stream::iter(self.discovery.addresses()).for_each_concurrent(ASKED_AT_ONCE, resolve).await;
    }

    fn look(&self) {
        let now = self.now();
        let mut names = self.names.lock();
        for (host, number) in self.discovery.addresses() {
            let Some(address) = address(number) else { continue };
            match self.services.entry(&host.service) {
                Some(entry) => {
                    self.serve(&mut names, &host, address, &entry.view().spec.ports);
                }
                // Held before a restart, and no gateway has said yet what is served there: it is to be followed until one does.
                None if !names.contains_key(&host) => self.discovery.touch(&host.service),
                None => {}
            }
        }
        names.retain(|host, held| {
            let kept = held.used.unused(now) < KEPT;
            if !kept {
                self.discovery.release_address(host);
            }
            kept
        });
    }

    /// Lets go of the name that was not used for the longest time. False if all are in use.
    fn make_room(&self) -> bool {
        let mut names = self.names.lock();
        let now = self.now();
        let oldest = names.iter().map(|(host, held)| (held.used.unused(now), host)).max();
        let Some(host) = oldest.filter(|(unused, _)| *unused >= IN_USE).map(|(_, host)| host.clone()) else {
            throttled!(warn, "a name gets no address: as many as may be are in use (`limits.names`)");
            return false;
        };
        tracing::info!(%host, "a name that was not used makes room for another");
        names.remove(&host);
        drop(names);
        self.discovery.release_address(&host);
        true
    }

    /// The names, for operators.
    pub(crate) fn listing(&self) -> Vec<NameListing> {
        let now = self.now();
        let port = |(port, served): (&u16, &Port)| PortListing {
            port: *port,
            protocol: served.protocol,
            problem: served.open.as_ref().err().map(ToString::to_string),
        };
        let names = self.names.lock();
        let mut all: Vec<_> = names
            .iter()
            .map(|(host, held)| NameListing {
                name: host.to_string(),
                address: held.address,
                ports: held.ports.iter().map(port).collect(),
                connections: held.used.connections(),
                unused_seconds: held.used.unused(now).as_secs_f64(),
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The ports that are not served, for operators.
    pub(crate) fn unserved(&self) -> Vec<Unserved> {
        let names = self.names.lock();
        let mut all: Vec<Unserved> = Vec::new();
        for (host, held) in names.iter() {
            for (number, port) in &held.ports {
                let Err(error) = &port.open else { continue };
                let same = all.iter_mut().find(|known| (known.port, known.kind) == (*number, error.kind()));
                match same {
                    Some(known) => known.names += 1,
                    None => all.push(Unserved {
                        port: *number,
                        kind: error.kind(),
                        error: error.to_string(),
                        names: 1,
                        first: format!("{host} at {}", held.address),
                    }),
                }
            }
        }
        all.sort_by_key(|unserved| unserved.port);
        all
    }

    fn now(&self) -> u64 {
        // It would take half a billion years.
        self.begin.elapsed().as_millis() as u64
    }
}

impl std::fmt::Debug for Virtuals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Virtuals").field("names", &self.names.lock().len()).finish_non_exhaustive()
    }
}

/// The address of a number; `None` if the cluster has more of them than there are here.
fn address(number: u32) -> Option<Ipv4Addr> {
    (number < NUMBERS).then(|| Ipv4Addr::from(NETWORK + number))
}

fn warn(host: &MeshHost, address: Ipv4Addr, port: u16, error: &io::Error) {
    let (cause, next) = hint(error.kind());
    throttled!(warn, %host, %address, port, %error, cause, next, "a port of a name is not served");
}

/// Why a port is not served, most likely, and what to do about it.
pub(crate) const fn hint(kind: io::ErrorKind) -> (&'static str, &'static str) {
    match kind {
        io::ErrorKind::PermissionDenied => (
            "ports below 1024 are not for every process",
            "give the sidecar the capability CAP_NET_BIND_SERVICE (`AmbientCapabilities=` of systemd, or `setcap \
             cap_net_bind_service=+ep` on the program), or set net.ipv4.ip_unprivileged_port_start",
        ),
        io::ErrorKind::AddrInUse => (
            "something on this host listens on this port of all addresses, or another sidecar answers for names here",
            "`ss -ltnp` tells who: have it listen on one address, or give each sidecar a network namespace of its own",
        ),
        _ => ("the operating system refuses it", "see the sidecar's log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_use_however_short_it_is() {
        let used = Arc::new(Use::default());
        assert_eq!(used.unused(5_000), Duration::from_secs(5));
        drop(used.begin());
        assert_eq!(used.unused(6_000), Duration::ZERO, "it was there since the last look");
        assert_eq!(used.unused(8_000), Duration::from_secs(2));
        let using = used.begin();
        assert_eq!((used.unused(9_000), used.unused(90_000), used.connections()), (Duration::ZERO, Duration::ZERO, 1));
        drop(using);
        assert_eq!((used.unused(91_000), used.connections()), (Duration::from_secs(1), 0));
    }

    #[test]
    fn numbers_become_addresses_of_the_loopback_network() {
        assert_eq!(address(256), Some(Ipv4Addr::new(127, 64, 1, 0)));
        assert_eq!(address(NUMBERS - 1), Some(Ipv4Addr::new(127, 127, 255, 255)));
        assert_eq!(address(NUMBERS), None);
    }
}
