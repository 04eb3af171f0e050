//! From the file to the checked configuration, with every problem at once.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use eastway_admission::{Declared, judge};
use eastway_core::view::Transport;
use eastway_core::{Coordinates, Network};
use eastway_documents::Problems;
use eastway_documents::{Checks, DurationText, FileText, Source};
use eastway_identity::IdentityFiles;
use eastway_registry::PeerBounds;
use eastway_runtime::sections::{IdentityPaths, otlp};

use super::raw::*;
use super::{Config, Etcd, EtcdTls, EtcdUser, Limits, Registration, Store, Telemetry, Timeouts, TunnelConfig};

/// Zones of a cluster: as many as a gateway takes of what a peer says of itself.
const MAX_ZONES: usize = 64;
/// How long a peer may stay connected of which nothing is wanted.
const PEER_IDLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// Checks what the schema cannot, and the resources.
pub(super) fn check(raw: &RawConfig, source: &Source) -> Result<Config, Problems> {
    let mut owned = Checks::new(source);
    let checks = &mut owned;
    let IdentityPaths { certificate, key, bundle } = raw.identity.check(checks);
    let default_domain = format!("{}.mesh.internal", raw.cluster);
    let config = Config {
        cluster: checks.label("cluster", &raw.cluster),
        region: checks.label("region", &raw.region),
        gateway: checks.label("gateway", &raw.gateway),
        zones: zones(checks, &raw.zones),
        identity: IdentityFiles { certificate, key, bundle },
        trust_domain: match &raw.trust_domain {
            Some(domain) => checks.trust_domain("trustDomain", domain),
            None => default_domain,
        },
        tunnel: TunnelConfig {
            listen: checks.listen("tunnel.listen", &raw.tunnel.listen),
            transports: transports(checks, &raw.tunnel.transports),
            advertise: raw.tunnel.advertise.as_ref().map(|address| checks.target("tunnel.advertise", address)),
            record: raw.tunnel.record.as_ref().map(|record| checks.folder("tunnel.record", record)),
        },
        discovery: checks.listen("discovery.listen", &raw.discovery.listen),
        admin: raw.admin.check(checks),
        operators: raw.operators.as_ref().map(|operators| checks.listen("operators.listen", &operators.listen)),
        metrics: raw.metrics.check(checks),
        store: store(checks, &raw.store),
        state: state(checks, raw),
        resources: raw.resources.iter().map(|path| source.resolve(path.as_str())).collect(),
        suffix: checks.domain("suffix", &raw.suffix),
        registration: Registration {
            networks: networks(checks, &raw.registration),
            per_account: raw.registration.per_account as usize,
        },
        peering: peering(&raw.peering),
        tokens: raw.peering.tokens as usize,
        peer_idle: raw.peering.idle.as_ref().map(|idle| checks.duration("peering.idle", idle, PEER_IDLE)),
        timeouts: timeouts(checks, &raw.timeouts),
        limits: limits(&raw.limits),
        telemetry: Telemetry {
            otlp: otlp(checks, raw.telemetry.otlp.as_ref(), raw.telemetry.sampling),
            log: raw.telemetry.log.check(),
        },
    };
    for (index, path) in config.resources.iter().enumerate() {
        if config.resources[..index].contains(path) {
            checks.problem(&format!("resources[{index}]"), format!("`{}` is listed twice", path.display()));
        }
    }
    if let Err(problems) = resources(&config) {
        checks.extend(problems);
    }
    owned.finish(config)
}

/// The resources, checked by themselves and against the gateway's own cluster.
/// Warnings come with what is valid.
pub(super) fn resources(config: &Config) -> Result<(Vec<Declared>, Problems), Problems> {
    let mut paths = config.resources.clone();
    // A path that is listed twice was reported where it is listed.
    paths.sort();
    paths.dedup();
    let declared = eastway_admission::load(&paths)?;
    let found = judge(&declared, &config.as_cluster(), None);
    if found.has_errors() { Err(found) } else { Ok((declared, found)) }
}

fn zones(checks: &mut Checks<'_>, raw: &BTreeMap<String, RawZone>) -> BTreeMap<String, Option<Coordinates>> {
    if raw.is_empty() {
        checks.problem("zones", "at least one expected");
    }
    if raw.len() > MAX_ZONES {
        checks.problem("zones", format!("at most {MAX_ZONES} expected, found {}: peers take no more", raw.len()));
    }
    let mut zones = BTreeMap::new();
    for (name, zone) in raw {
        let path = format!("zones.{name}");
        checks.label(&path, name);
        let coordinates = match (zone.latitude, zone.longitude) {
            (Some(latitude), Some(longitude)) => Some(Coordinates { latitude, longitude }),
            (None, None) => None,
            (Some(_), None) => {
                checks.problem(&path, "`latitude` has no effect without `longitude`");
                None
            }
            (None, Some(_)) => {
                checks.problem(&path, "`longitude` has no effect without `latitude`");
                None
            }
        };
        zones.insert(name.clone(), coordinates);
    }
    zones
}

fn networks(checks: &mut Checks<'_>, raw: &RawRegistration) -> Vec<Network> {
    let mut networks = Vec::new();
    for (index, text) in raw.networks.iter().enumerate() {
        match text.parse::<Network>() {
            Ok(network) => networks.push(network),
            Err(error) => checks.problem(&format!("registration.networks[{index}]"), error.to_string()),
        }
    }
    networks
}

fn store(checks: &mut Checks<'_>, raw: &RawStore) -> Store {
    match raw {
        RawStore::Embedded(raw) => Store::Embedded { path: checks.folder("store.embedded.path", &raw.path) },
        RawStore::Etcd(raw) => Store::Etcd(etcd(checks, raw)),
    }
}

fn state(checks: &mut Checks<'_>, raw: &RawConfig) -> Option<std::path::PathBuf> {
    if let (Some(_), RawStore::Embedded(_)) = (&raw.state, &raw.store) {
        checks.problem("state", "it has no effect with `store.embedded`, which is always there: remove it");
    }
    raw.state.as_ref().map(|state| checks.folder("state", state))
}

fn etcd(checks: &mut Checks<'_>, raw: &RawEtcd) -> Etcd {
    let mut endpoints: Vec<String> = Vec::new();
    for (index, url) in raw.endpoints.iter().enumerate() {
        let path = format!("store.etcd.endpoints[{index}]");
        if endpoints.contains(url) {
            checks.problem(&path, format!("`{url}` is listed twice"));
        }
        endpoints.push(checks.url(&path, url, &["http", "https"]));
    }
    let https = endpoints.iter().filter(|url| url.starts_with("https://")).count();
    if https > 0 && https < endpoints.len() {
        checks.problem("store.etcd.endpoints", "either all members are reached by https, or none");
    } else if https > 0 && raw.tls.is_none() {
        checks.problem("store.etcd.tls", "missing: `https` needs at least `ca`");
    } else if https == 0 && raw.tls.is_some() {
        checks.problem("store.etcd.tls", "has no effect: no member is reached by https");
    }
    Etcd {
        endpoints,
        user: etcd_user(checks, raw),
        tls: raw.tls.as_ref().map(|tls| etcd_tls(checks, tls)),
        prefix: raw.prefix.clone(),
    }
}

fn etcd_user(checks: &mut Checks<'_>, raw: &RawEtcd) -> Option<EtcdUser> {
    let file = |checks: &mut Checks<'_>, path: &FileText| checks.file("store.etcd.passwordFile", path);
    match (&raw.username, &raw.password_file) {
        (Some(name), Some(path)) => {
            if name.is_empty() {
                checks.problem("store.etcd.username", "must not be empty");
            }
            Some(EtcdUser { name: name.clone(), password_file: file(checks, path) })
        }
        (Some(_), None) => {
            checks.problem("store.etcd.username", "needs `passwordFile`");
            None
        }
        (None, Some(_)) => {
            checks.problem("store.etcd.passwordFile", "has no effect without `username`");
            None
        }
        (None, None) => None,
    }
}

fn etcd_tls(checks: &mut Checks<'_>, raw: &RawEtcdTls) -> EtcdTls {
    let identity = match (&raw.certificate, &raw.key) {
        (Some(certificate), Some(key)) => {
            let certificate = checks.file("store.etcd.tls.certificate", certificate);
            Some((certificate, checks.file("store.etcd.tls.key", key)))
        }
        (None, None) => None,
        (Some(_), None) => {
            checks.problem("store.etcd.tls.certificate", "needs `key`");
            None
        }
        (None, Some(_)) => {
            checks.problem("store.etcd.tls.key", "has no effect without `certificate`");
            None
        }
    };
    EtcdTls { ca: checks.file("store.etcd.tls.ca", &raw.ca), identity, server_name: raw.server_name.clone() }
}

fn transports(checks: &mut Checks<'_>, raw: &[RawTransport]) -> Vec<Transport> {
    if raw.windows(2).any(|two| two[0] == two[1]) {
        checks.problem("tunnel.transports", "name each of `quic` and `tcp` at most once");
    }
    let transport = |raw: &RawTransport| match raw {
        RawTransport::Quic => Transport::Quic,
        RawTransport::Tcp => Transport::Tcp,
    };
    raw.iter().map(transport).collect()
}

fn timeouts(checks: &mut Checks<'_>, raw: &RawTimeouts) -> Timeouts {
    let mut read = |name: &str, text: &DurationText, least: Duration, most: Duration| {
        checks.duration(&format!("timeouts.{name}"), text, least..=most)
    };
    let (milli, minute, day) = (Duration::from_millis(1), Duration::from_secs(60), Duration::from_secs(24 * 3600));
    Timeouts {
        connect: read("connect", &raw.connect, milli, minute),
        stream_open: read("streamOpen", &raw.stream_open, milli, minute),
        idle: read("idle", &raw.idle, Duration::from_secs(1), day),
        drain: read("drain", &raw.drain, Duration::ZERO, day),
        tcp_user: read("tcpUserTimeout", &raw.tcp_user_timeout, 10 * milli, 60 * minute),
        tcp_keepalive: read("tcpKeepalive", &raw.tcp_keepalive, Duration::from_secs(1), 60 * minute),
        header: read("header", &raw.header, 10 * milli, 60 * minute),
        session: read("session", &raw.session, Duration::from_secs(2), 10 * minute),
        collect: read("collect", &raw.collect, Duration::from_secs(1), day),
        handshake: read("handshake", &raw.handshake, 10 * milli, minute),
    }
}

fn peering(raw: &RawPeering) -> PeerBounds {
    PeerBounds {
        gateways: raw.gateways as usize,
        zones: raw.zones as usize,
        ports: raw.ports as usize,
        accounts: raw.accounts as usize,
        endpoints: raw.endpoints,
        entries: raw.entries as usize,
    }
}

fn limits(raw: &RawLimits) -> Limits {
    Limits {
        workers: raw.workers as usize,
        connections: raw.connections,
        handshakes: raw.handshakes,
        address_handshakes: raw.address_handshakes,
        tunnel_connections: raw.tunnel_connections,
        peer_connections: raw.peer_connections,
        streams: raw.streams,
        workload_streams: raw.workload_streams,
        header_bytes: raw.header_bytes,
        metric_series: raw.metric_series as usize,
    }
}
