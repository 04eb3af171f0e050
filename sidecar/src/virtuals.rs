//! Virtual addresses: a name's own address on this host, with each port of its service served there.
//!
//! Which number a name has is the cluster's to say ([`Discovery::address`]); here it becomes an address ([`Network`]), and sockets
//! where connections are not captured. Clients may look a name up once and for all: what is served stays until nobody has used it for a day, also while
//! its service is not followed any more.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use eastway_client::Discovery;
use eastway_core::resource::{Protocol, ServicePort};
use eastway_core::{Authority, MeshHost, Reason};
use eastway_runtime::throttled;
use eastway_transport::tcp;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::DnsAddresses;
use crate::services::Services;
use network::{Addresses, Network};

pub(crate) mod network;

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
    network: Network,
    names: Mutex<Names>,
    begin: Instant,
}

/// A port that is open, for one worker.
pub(crate) struct Opened {
    pub(crate) listener: TcpListener,
    pub(crate) lead: Lead,
    /// Ends when it is to be closed.
    pub(crate) closed: watch::Receiver<()>,
}

/// Where the connections to a port of a name lead.
#[derive(Clone, Debug)]
pub(crate) struct Lead {
    pub(crate) target: Authority,
    pub(crate) protocol: Protocol,
    pub(crate) used: Arc<Use>,
    pub(crate) verdict: Arc<Verdict>,
}

#[derive(Default)]
struct Names {
    held: HashMap<MeshHost, Held>,
    /// Whose each number is.
    numbers: HashMap<u32, MeshHost>,
}

/// A name.
struct Held {
    addresses: Addresses,
    ports: BTreeMap<u16, Port>,
    used: Arc<Use>,
}

struct Port {
    protocol: Protocol,
    verdict: Arc<Verdict>,
    open: Result<watch::Sender<()>, io::Error>,
}

/// What is spoken on a port of which nobody declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Found {
    Http,
    Tls,
    Opaque,
    /// Its clients say nothing until it has spoken.
    ServerFirst,
}

/// What was last found of a port.
#[derive(Debug, Default)]
pub(crate) struct Verdict(AtomicU8);

impl Verdict {
    const ALL: [Found; 4] = [Found::Http, Found::Tls, Found::Opaque, Found::ServerFirst];

    /// What was found, if something was.
    pub(crate) fn found(&self) -> Option<Found> {
        Self::ALL.get(usize::from(self.0.load(Ordering::Relaxed)).checked_sub(1)?).copied()
    }

    /// It is this.
    pub(crate) fn keep(&self, found: Found) {
        self.0.store(found as u8 + 1, Ordering::Relaxed);
    }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    address6: Option<Ipv6Addr>,
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
    /// What was found to be spoken there, where nobody declares it.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<Found>,
    /// Why it is not served, if it is not.
    problem: Option<String>,
}

impl Virtuals {
    /// None yet. With them comes what each of `workers` takes what it is to accept from.
    pub(crate) fn new(
        services: &Arc<Services>,
        discovery: &Arc<Discovery>,
        network: Network,
        workers: usize,
    ) -> (Arc<Self>, Vec<mpsc::UnboundedReceiver<Opened>>) {
        let (workers, taken) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let (services, discovery) = (Arc::clone(services), Arc::clone(discovery));
        let (names, begin) = (Mutex::default(), Instant::now());
        (Arc::new(Self { services, discovery, workers, network, names, begin }), taken)
    }

    /// Where a captured connection to `address` leads: to the name whose that is, if its service has the port.
    ///
    /// # Errors
    /// [`Reason::UnknownService`] if it is no name's, [`Reason::UnknownPort`].
    pub(crate) fn lead(&self, address: SocketAddr) -> Result<Lead, Reason> {
        let number = self.network.number(address.ip()).ok_or(Reason::UnknownService)?;
        let names = self.names.lock();
        let host = names.numbers.get(&number).ok_or(Reason::UnknownService)?;
        let held = names.held.get(host).ok_or(Reason::UnknownService)?;
        let port = held.ports.get(&address.port()).ok_or(Reason::UnknownPort)?;
        let target = host.clone().at(address.port());
        let (used, verdict) = (Arc::clone(&held.used), Arc::clone(&port.verdict));
        Ok(Lead { target, protocol: port.protocol, used, verdict })
    }

    /// The addresses of `host`, whose service has these ports: they are open before this returns.
    ///
    /// # Errors
    /// See [`Discovery::address`].
    pub(crate) async fn hold(&self, host: &MeshHost, ports: &[ServicePort]) -> Result<Addresses, Reason> {
        let number = match self.discovery.address(host).await {
            Err(Reason::Overloaded) if self.make_room() => self.discovery.address(host).await?,
            told => told?,
        };
        let addresses = self.network.of(number).ok_or(Reason::Internal)?;
        let mut names = self.names.lock();
        let held = self.serve(&mut names, host, addresses, ports);
        held.used.touch(self.now());
        Ok(addresses)
    }

    /// Opens what is served at `addresses` and not open, and closes what is no longer served.
    fn serve<'a>(
        &self,
        names: &'a mut Names,
        host: &MeshHost,
        addresses: Addresses,
        ports: &[ServicePort],
    ) -> &'a mut Held {
        let held = names.held.entry(host.clone()).or_insert_with(|| {
            let used = Use { last: AtomicU64::new(self.now()), ..Use::default() };
            Held { addresses, ports: BTreeMap::new(), used: Arc::new(used) }
        });
        if held.addresses != addresses {
            // The cluster gave it another one, because its store had forgotten it.
            tracing::warn!(%host, before = %held.addresses.v4, now = %addresses.v4, "a name has another address now");
            names.numbers.remove(&held.addresses.number);
            held.addresses = addresses;
            held.ports.clear();
        }
        names.numbers.entry(addresses.number).or_insert_with(|| host.clone());
        held.ports.retain(|number, port| {
            port.open.is_ok() && ports.iter().any(|wanted| wanted.port == *number && wanted.protocol == port.protocol)
        });
        for ServicePort { port, protocol, .. } in ports {
            let used = &held.used;
            held.ports.entry(*port).or_insert_with(|| {
                let verdict = Arc::<Verdict>::default();
                let (target, used) = (host.clone().at(*port), Arc::clone(used));
                let lead = Lead { target, protocol: *protocol, used, verdict: Arc::clone(&verdict) };
                let open = self.open(SocketAddr::from((addresses.v4, *port)), &lead);
                if let Err(error) = &open {
                    warn(host, addresses.v4, *port, error);
                }
                Port { protocol: *protocol, verdict, open }
            });
        }
        held
    }

    fn open(&self, address: SocketAddr, lead: &Lead) -> io::Result<watch::Sender<()>> {
        let (open, closed) = watch::channel(());
        if self.network.addresses == DnsAddresses::Captured {
            return Ok(open);
        }
        for (worker, listener) in self.workers.iter().zip(tcp::bind_reuseport(address, self.workers.len())?) {
            // Fails only if the worker has ended.
            let _ = worker.send(Opened { listener, lead: lead.clone(), closed: closed.clone() });
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
            let Some(addresses) = self.network.of(number) else { continue };
            match self.services.entry(&host.service) {
                Some(entry) => {
                    self.serve(&mut names, &host, addresses, &entry.view().spec.ports);
                }
                // Held before a restart, and no gateway has said yet what is served there: it is to be followed until one does.
                None if !names.held.contains_key(&host) => self.discovery.touch(&host.service),
                None => {}
            }
        }
        let Names { held, numbers } = &mut *names;
        held.retain(|host, held| {
            let kept = held.used.unused(now) < KEPT;
            if !kept {
                numbers.remove(&held.addresses.number);
                self.discovery.release_address(host);
            }
            kept
        });
    }

    /// Lets go of the name that was not used for the longest time. False if all are in use.
    fn make_room(&self) -> bool {
        let mut names = self.names.lock();
        let now = self.now();
        let oldest = names.held.iter().map(|(host, held)| (held.used.unused(now), host)).max();
        let Some(host) = oldest.filter(|(unused, _)| *unused >= IN_USE).map(|(_, host)| host.clone()) else {
            throttled!(warn, "a name gets no address: as many as may be are in use (`limits.names`)");
            return false;
        };
        tracing::info!(%host, "a name that was not used makes room for another");
        if let Some(held) = names.held.remove(&host) {
            names.numbers.remove(&held.addresses.number);
        }
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
            found: served.verdict.found(),
            problem: served.open.as_ref().err().map(ToString::to_string),
        };
        let names = self.names.lock();
        let mut all: Vec<_> = names
            .held
            .iter()
            .map(|(host, held)| NameListing {
                name: host.to_string(),
                address: held.addresses.v4,
                address6: held.addresses.v6,
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
        for (host, held) in &names.held {
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
                        first: format!("{host} at {}", held.addresses.v4),
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
        f.debug_struct("Virtuals").field("names", &self.names.lock().held.len()).finish_non_exhaustive()
    }
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
}
