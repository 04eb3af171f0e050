//! From the file to the checked configuration, with every problem at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use eastway_client::convert::MAX_LABEL_BYTES;
use eastway_core::name::ServiceNameError;
use eastway_core::{Authority, ServiceName};
use eastway_documents::Problems;
use eastway_documents::check::is_stand_in;
use eastway_documents::{Checks, DurationText, FileText, Source};
use eastway_identity::IdentityFiles;
use eastway_runtime::sections::{IdentityPaths, otlp};

use super::raw::*;
use super::{
    Config, Dns, Gateway, Health, HealthKind, Inbound, Limits, Listener, Outbound, Telemetry, Timeouts, Workload,
};

mod capture;

/// The longest service name that a gRPC probe can ask for.
const MAX_GRPC_SERVICE: usize = 127;
/// Labels of a workload, and bytes of a label's name or value.
const MAX_LABELS: usize = 64;
const MAX_LISTENERS: usize = 64;
const MAX_UPSTREAMS: usize = 8;
const MAX_LABEL: usize = 253;

/// Checks what the schema cannot.
pub(super) fn check(raw: &RawConfig, source: &Source) -> Result<Config, Problems> {
    let mut owned = Checks::new(source);
    let checks = &mut owned;
    let IdentityPaths { certificate, key, bundle } = raw.identity.check(checks);
    let config = Config {
        cluster: checks.label("cluster", &raw.cluster),
        zone: checks.label("zone", &raw.zone),
        workload: workload(checks, &raw.workload),
        identity: IdentityFiles { certificate, key, bundle },
        gateways: gateways(checks, &raw.gateways),
        inbound: raw.inbound.as_ref().map(|raw| inbound(checks, raw)),
        outbound: outbound(checks, &raw.outbound),
        dns: raw.dns.as_ref().map(|raw| dns(checks, raw)),
        capture: None,
        health: None,
        admin: raw.admin.check(checks),
        metrics: raw.metrics.check(checks),
        state: raw.state.as_ref().map(|state| checks.folder("state", state)),
        suffix: checks.domain("suffix", &raw.suffix),
        timeouts: timeouts(checks, &raw.timeouts),
        limits: limits(checks, &raw.limits),
        telemetry: telemetry(checks, &raw.telemetry),
    };
    serving(checks, raw, &config);
    let health = health(checks, raw.health.as_ref(), config.inbound.as_ref());
    let capture = capture::check(checks, raw.capture.as_ref(), &config);
    owned.finish(Config { health, capture, ..config })
}

/// What goes together for a workload that serves, and has no effect for one that only calls.
fn serving(checks: &mut Checks<'_>, raw: &RawConfig, config: &Config) {
    let workload = &raw.workload;
    if workload.service.is_none() {
        let fix = "without `workload.service` the workload only calls: add the service, or remove this";
        let given = [
            ("inbound", raw.inbound.is_some()),
            ("health", raw.health.is_some()),
            ("workload.weight", workload.weight.is_some()),
            ("workload.capacity", workload.capacity.is_some()),
            ("workload.cgroup", workload.cgroup.is_some()),
            ("workload.labels", !workload.labels.is_empty()),
            ("workload.address", workload.address.is_some()),
        ];
        for (path, _) in given.into_iter().filter(|(_, given)| *given) {
            checks.problem(path, format!("has no effect: {fix}"));
        }
        return;
    }
    let Some(inbound) = &config.inbound else {
        return checks.problem("workload.service", "needs `inbound`: nobody could reach the service");
    };
    if inbound.listen.ip().is_unspecified() && workload.address.is_none() && !is_stand_in(inbound.listen) {
        let message = format!("`{}` is no address that callers can use: add `workload.address`", inbound.listen);
        checks.problem("inbound.listen", message);
    }
    let own = [
        ("inbound.listen", inbound.listen),
        ("outbound.proxy", config.outbound.proxy),
        ("admin.listen", config.admin),
        ("metrics.listen", config.metrics),
    ];
    for (path, listen) in own {
        let same = listen.ip() == inbound.app.ip() || (listen.ip().is_unspecified() && inbound.app.ip().is_loopback());
        if same && listen.port() == inbound.app.port() && !is_stand_in(listen) {
            checks.problem("inbound.app", format!("`{}` is {path}, not the application", inbound.app));
        }
    }
}

fn workload(checks: &mut Checks<'_>, raw: &RawWorkload) -> Workload {
    if raw.labels.len() > MAX_LABELS {
        checks.problem("workload.labels", format!("at most {MAX_LABELS} expected, found {}", raw.labels.len()));
    }
    let all: usize = raw.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    if all > MAX_LABEL_BYTES {
        let message = format!("all labels together have at most {MAX_LABEL_BYTES} bytes, found {all}");
        checks.problem("workload.labels", message);
    }
    for (key, value) in &raw.labels {
        if key.chars().chain(value.chars()).any(char::is_control) {
            checks.problem("workload.labels", format!("label {key:?}: no control characters expected"));
        }
        if key.is_empty() || key.len() > MAX_LABEL || value.len() > MAX_LABEL {
            let message = format!("label `{key}`: names have 1 to {MAX_LABEL} bytes, values at most {MAX_LABEL}");
            checks.problem("workload.labels", message);
        }
    }
    Workload {
        name: checks.label("workload.name", &raw.name),
        namespace: checks.label("workload.namespace", &raw.namespace),
        service: raw.service.as_ref().map(|service| checks.label("workload.service", service)),
        weight: raw.weight.unwrap_or(1.0),
        capacity: raw.capacity.unwrap_or(0),
        cgroup: raw.cgroup.as_ref().map(|folder| cgroup(checks, folder)),
        labels: raw.labels.clone(),
        address: raw.address.as_ref().map(|address| checks.target("workload.address", address)),
    }
}

fn cgroup(checks: &mut Checks<'_>, folder: &FileText) -> PathBuf {
    let path = checks.folder("workload.cgroup", folder);
    if let Err(error) = crate::load::cgroup::usage(&path) {
        let message = format!("`{}` is no control group of version 2 that can be read: {error}", path.display());
        checks.problem("workload.cgroup", message);
    }
    path
}

fn gateways(checks: &mut Checks<'_>, raw: &[RawGateway]) -> Vec<Gateway> {
    let mut gateways: Vec<Gateway> = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let path = format!("gateways[{index}]");
        let gateway = Gateway {
            discovery: checks.target(&format!("{path}.discovery"), &raw.discovery),
            tunnel: checks.target(&format!("{path}.tunnel"), &raw.tunnel),
        };
        if gateway.discovery == gateway.tunnel && !is_stand_in(gateway.tunnel) {
            checks
                .problem(&format!("{path}.tunnel"), "is the same as `discovery`: these are two listeners of a gateway");
        }
        if gateways.contains(&gateway) && !is_stand_in(gateway.tunnel) {
            checks.problem(&path, "is listed twice");
        }
        gateways.push(gateway);
    }
    gateways
}

fn inbound(checks: &mut Checks<'_>, raw: &RawInbound) -> Inbound {
    Inbound {
        listen: checks.listen("inbound.listen", &raw.listen),
        app: checks.target("inbound.app", &raw.app),
        protocol: raw.protocol,
    }
}

fn outbound(checks: &mut Checks<'_>, raw: &RawOutbound) -> Outbound {
    let why = "whoever reaches the proxy acts with the workload's identity";
    if raw.listeners.len() > MAX_LISTENERS {
        checks
            .problem("outbound.listeners", format!("at most {MAX_LISTENERS} expected, found {}", raw.listeners.len()));
    }
    let listeners = raw.listeners.iter().enumerate().map(|(number, raw)| listener(checks, number, raw)).collect();
    Outbound { proxy: checks.listen_locally("outbound.proxy", &raw.proxy, why), via: raw.via, listeners }
}

fn listener(checks: &mut Checks<'_>, number: usize, raw: &RawListener) -> Listener {
    let path = |field: &str| format!("outbound.listeners[{number}].{field}");
    let why = "whoever reaches it acts with the workload's identity";
    let listen = checks.listen_locally(&path("listen"), &raw.listen, why);
    let service = raw.service.parse().unwrap_or_else(|error: ServiceNameError| {
        checks.problem(&path("service"), error.to_string());
        ServiceName::new("unknown", "unknown")
    });
    if raw.port == 0 {
        checks.problem(&path("port"), "a service has no port 0");
    }
    let cluster = raw.cluster.as_ref().map(|cluster| checks.label(&path("cluster"), cluster).as_str().into());
    Listener { listen, target: Authority { service, cluster, port: Some(raw.port) } }
}

fn dns(checks: &mut Checks<'_>, raw: &RawDns) -> Dns {
    let why = "whoever reaches it could ask the servers behind it";
    let listen = checks.listen_locally("dns.listen", &raw.listen, why);
    let upstreams = raw.upstreams.as_ref().map(|servers| {
        if servers.is_empty() || servers.len() > MAX_UPSTREAMS {
            let message =
                format!("1 to {MAX_UPSTREAMS} expected, found {}: leave it out for those of the host", servers.len());
            checks.problem("dns.upstreams", message);
        }
        let servers = servers.iter().enumerate().map(|(number, server)| {
            let (path, server) =
                (format!("dns.upstreams[{number}]"), checks.target(&format!("dns.upstreams[{number}]"), server));
            if server == listen && !is_stand_in(server) {
                checks.problem(&path, "is `dns.listen` itself");
            }
            server
        });
        servers.collect()
    });
    let prefix = raw.prefix.as_ref().and_then(|prefix| capture::prefix(checks, prefix, raw.addresses));
    Dns { listen, upstreams, addresses: raw.addresses, prefix }
}

fn health(checks: &mut Checks<'_>, raw: Option<&RawHealth>, inbound: Option<&Inbound>) -> Option<Health> {
    let app = inbound?.app;
    let default = RawHealth::default();
    let raw = raw.unwrap_or(&default);
    let kinds: Vec<&str> = [
        ("http", raw.http.is_some()),
        ("grpc", raw.grpc.is_some()),
        ("tcp", raw.tcp.is_some()),
        ("command", raw.command.is_some()),
    ]
    .into_iter()
    .filter_map(|(kind, given)| given.then_some(kind))
    .collect();
    if kinds.len() > 1 {
        checks.problem("health", format!("only one of {} can be used", kinds.join(", ")));
    }
    let (kind, port) = if let Some(http) = &raw.http {
        if !http.path.starts_with('/') || !http.path.bytes().all(|b| b.is_ascii_graphic()) {
            checks.problem("health.http.path", format!("`{}` is not a path such as /healthz", http.path));
        }
        (HealthKind::Http { path: http.path.clone() }, http.port)
    } else if let Some(grpc) = &raw.grpc {
        if grpc.service.len() > MAX_GRPC_SERVICE {
            checks.problem("health.grpc.service", format!("longer than {MAX_GRPC_SERVICE} bytes"));
        }
        (HealthKind::Grpc { service: grpc.service.clone() }, grpc.port)
    } else if let Some(argv) = &raw.command {
        if argv.first().is_none_or(String::is_empty) {
            checks.problem("health.command", "needs at least the program");
        }
        (HealthKind::Command { argv: argv.clone() }, None)
    } else {
        (HealthKind::Tcp, raw.tcp.as_ref().and_then(|tcp| tcp.port))
    };
    let interval =
        checks.duration("health.interval", &raw.interval, Duration::from_millis(50)..=Duration::from_secs(3600));
    let timeout =
        checks.duration("health.timeout", &raw.timeout, Duration::from_millis(10)..=Duration::from_secs(3600));
    Some(Health {
        kind,
        target: SocketAddr::new(app.ip(), port.unwrap_or_else(|| app.port())),
        interval,
        timeout,
        healthy_after: raw.healthy_after,
        unhealthy_after: raw.unhealthy_after,
    })
}

fn timeouts(checks: &mut Checks<'_>, raw: &RawTimeouts) -> Timeouts {
    let mut read = |name: &str, text: &DurationText, least: Duration, most: Duration| {
        checks.duration(&format!("timeouts.{name}"), text, least..=most)
    };
    let (milli, minute, day) = (Duration::from_millis(1), Duration::from_secs(60), Duration::from_secs(24 * 3600));
    Timeouts {
        connect: read("connect", &raw.connect, milli, minute),
        stream_open: read("streamOpen", &raw.stream_open, milli, minute),
        request: read("request", &raw.request, milli, day),
        idle: read("idle", &raw.idle, Duration::from_secs(1), day),
        failback: read("failback", &raw.failback, Duration::from_secs(1), day),
        discovery: read("discovery", &raw.discovery, milli, minute),
        drain: read("drain", &raw.drain, Duration::ZERO, day),
        tcp_user: read("tcpUserTimeout", &raw.tcp_user_timeout, 10 * milli, 60 * minute),
        tcp_keepalive: read("tcpKeepalive", &raw.tcp_keepalive, Duration::from_secs(1), 60 * minute),
        ping_after: read("pingAfter", &raw.ping_after, 10 * milli, 60 * minute),
        ping_timeout: read("pingTimeout", &raw.ping_timeout, 10 * milli, 60 * minute),
        header: read("header", &raw.header, 10 * milli, 60 * minute),
        continue_after: read("continue", &raw.continue_after, milli, minute),
        handshake: read("handshake", &raw.handshake, 10 * milli, minute),
    }
}

fn limits(checks: &mut Checks<'_>, raw: &RawLimits) -> Limits {
    if raw.unsent_attempts < raw.attempts {
        let message = format!("{} is less than `attempts`, which is {}", raw.unsent_attempts, raw.attempts);
        checks.problem("limits.unsentAttempts", message);
    }
    if raw.connection_window < raw.stream_window {
        let message = format!("{} is less than `streamWindow`, which is {}", raw.connection_window, raw.stream_window);
        checks.problem("limits.connectionWindow", message);
    }
    Limits {
        workers: raw.workers as usize,
        connections: raw.connections,
        handshakes: raw.handshakes,
        address_handshakes: raw.address_handshakes,
        idle_connections: raw.idle_connections as usize,
        requests: raw.requests,
        opaque_streams: raw.opaque_streams,
        pending: raw.pending,
        endpoint_requests: raw.endpoint_requests,
        endpoint_connections: raw.endpoint_connections,
        subscriptions: raw.subscriptions,
        names: raw.names,
        attempts: raw.attempts,
        unsent_attempts: raw.unsent_attempts,
        header_bytes: raw.header_bytes,
        kept_body: raw.kept_body as usize,
        held_response: raw.held_response as usize,
        streams: raw.streams,
        stream_window: raw.stream_window,
        connection_window: raw.connection_window,
        send_buffer: raw.send_buffer as usize,
        metric_series: raw.metric_series as usize,
    }
}

fn telemetry(checks: &mut Checks<'_>, raw: &RawTelemetry) -> Telemetry {
    let access_log = raw.access_log.as_ref().map(|log| checks.output("telemetry.accessLog.path", &log.path));
    Telemetry { otlp: otlp(checks, raw.otlp.as_ref(), raw.sampling), log: raw.log.check(), access_log }
}
