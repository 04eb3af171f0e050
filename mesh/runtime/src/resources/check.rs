//! What a schema cannot say about resources: names, rules, files, and how they fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use eastway_core::name::is_label;
use eastway_core::policy::{Algorithm, BreakerTrigger, Breakers, Mode};
use eastway_core::resource::{API_VERSION, Document, Peer, Resource, Service};

use super::LoadedResource;
use crate::config::check::is_host_and_port;
use crate::config::yaml::join;
use crate::config::{Checks, DurationText, FileText, Problem, Problems};

/// Ports and accounts of a service: as many as a gateway takes of what a peer exports.
const MAX_PORTS: usize = 64;
const MAX_ACCOUNTS: usize = 32;

/// Checks one resource and makes the files that it names independent of its own place.
pub(super) fn alone(checks: &mut Checks<'_>, resource: &mut Resource) {
    match resource {
        Resource::Peer(document) => {
            around(checks, document);
            if document.metadata.namespace != "default" {
                checks.problem("metadata.namespace", "a Peer is in no namespace: remove it");
            }
            peer(checks, &mut document.spec);
        }
        Resource::Service(document) => {
            around(checks, document);
            service(checks, &document.spec);
            policy(checks, &document.spec);
        }
    }
}

/// Checks what concerns several resources.
pub(super) fn together(loaded: &[LoadedResource], problems: &mut Problems) {
    let mut domains: BTreeMap<String, &str> = BTreeMap::new();
    for LoadedResource { resource, file, line } in loaded {
        let Resource::Peer(document) = resource else { continue };
        let name = &document.metadata.name;
        let domain = document.spec.trust_domain.clone().unwrap_or_else(|| format!("{name}.mesh.internal"));
        match domains.get(&domain) {
            // Declared twice: said already.
            Some(first) if first == name => {}
            Some(first) => {
                let message = format!("`{domain}` is the trust domain of the peer `{first}` already");
                problems.push(Problem::new(file, *line, "spec.trustDomain", message));
            }
            None => {
                domains.insert(domain, name);
            }
        }
    }
}

fn around<T>(checks: &mut Checks<'_>, document: &Document<T>) {
    if document.api_version != API_VERSION {
        let message = format!("unknown version `{}`; this program knows `{API_VERSION}`", document.api_version);
        checks.problem("apiVersion", message);
    }
    checks.label("metadata.name", &document.metadata.name);
    checks.label("metadata.namespace", &document.metadata.namespace);
}

fn peer(checks: &mut Checks<'_>, peer: &mut Peer) {
    if peer.gateways.is_empty() {
        checks.problem("spec.gateways", "a peer needs at least one gateway, HOST:PORT");
    }
    for (index, gateway) in peer.gateways.iter().enumerate() {
        if !is_host_and_port(gateway) {
            checks.problem(&format!("spec.gateways[{index}]"), format!("`{gateway}` is not HOST:PORT"));
        }
    }
    repeated(checks, "spec.gateways", &peer.gateways);
    if let Some(domain) = &peer.trust_domain {
        checks.trust_domain("spec.trustDomain", domain);
    }
    let bundle = checks.file("spec.trustBundle", &FileText::from(peer.trust_bundle.as_str()));
    peer.trust_bundle = bundle.to_string_lossy().into_owned();
    for (index, rule) in peer.imports.iter().enumerate() {
        let valid = match rule.split_once('/') {
            None => rule == "*",
            Some((namespace, service)) => is_label(namespace) && (service == "*" || is_label(service)),
        };
        if !valid {
            let message = format!("`{rule}` is not `*`, NAMESPACE/* or NAMESPACE/SERVICE");
            checks.problem(&format!("spec.imports[{index}]"), message);
        }
    }
    repeated(checks, "spec.imports", &peer.imports);
    if let Some(region) = &peer.region {
        checks.label("spec.region", region);
    }
}

fn service(checks: &mut Checks<'_>, service: &Service) {
    for (path, most, found) in
        [("spec.ports", MAX_PORTS, service.ports.len()), ("spec.accounts", MAX_ACCOUNTS, service.accounts.len())]
    {
        if found > most {
            checks.problem(path, format!("at most {most} expected, found {found}: peers take no more"));
        }
    }
    let mut ports = BTreeSet::new();
    for (index, port) in service.ports.iter().enumerate() {
        let path = format!("spec.ports[{index}].port");
        if port.port == 0 {
            checks.problem(&path, "0 is no port");
        } else if !ports.insert(port.port) {
            checks.problem(&path, format!("port {} is listed twice", port.port));
        }
    }
    for (index, account) in service.accounts.iter().enumerate() {
        checks.label(&format!("spec.accounts[{index}]"), account);
    }
    repeated(checks, "spec.accounts", &service.accounts);
    for (index, cluster) in service.export.iter().enumerate() {
        if cluster != "*" {
            checks.label(&format!("spec.export[{index}]"), cluster);
        }
    }
    repeated(checks, "spec.export", &service.export);
    for (index, cluster) in service.failover.iter().enumerate() {
        checks.label(&format!("spec.failover[{index}]"), cluster);
    }
    repeated(checks, "spec.failover", &service.failover);
    for (zone, weight) in &service.locality_weights {
        let path = join("spec.localityWeights", zone);
        if !zone.split_once('/').is_some_and(|(cluster, zone)| is_label(cluster) && is_label(zone)) {
            checks.problem(&path, format!("`{zone}` is not CLUSTER/ZONE"));
        }
        if !(weight.is_finite() && *weight >= 0.0) {
            checks.problem(&path, format!("{weight} is not a weight: it must not be negative"));
        }
    }
}

/// What is said of calls: lengths of time, and nothing that would have no effect.
fn policy(checks: &mut Checks<'_>, service: &Service) {
    balancing(checks, service);
    let Breakers { endpoint, locality, base_ejection, max_ejection, .. } = &service.breaker;
    for (path, rule) in [("spec.breaker.endpoint", endpoint), ("spec.breaker.locality", locality)] {
        if let Some(rule) = rule {
            trigger(checks, path, rule);
        }
    }
    let base = time(checks, "spec.breaker.baseEjection", base_ejection.as_ref(), MILLISECOND * 10..=HOUR);
    let max = time(checks, "spec.breaker.maxEjection", max_ejection.as_ref(), MILLISECOND * 10..=HOUR);
    if let (Some(base), Some(max)) = (base, max)
        && max < base
    {
        checks.problem("spec.breaker.maxEjection", "it is shorter than `baseEjection`, the first ejection");
    }
    time(checks, "spec.retries.perTry", service.retries.per_try.as_ref(), MILLISECOND..=HOUR);
    time(checks, "spec.retries.backoff", service.retries.backoff.as_ref(), Duration::ZERO..=MINUTE);
    time(checks, "spec.timeouts.request", service.timeouts.request.as_ref(), MILLISECOND..=HOUR * 24);
    if service.retries.attempts == Some(1) && service.retries.backoff.is_some() {
        let message = "it has no effect with `attempts: 1`: nothing is repeated once it was sent";
        checks.problem("spec.retries.backoff", message);
    }
}

fn balancing(checks: &mut Checks<'_>, service: &Service) {
    let set = &service.balancing;
    time(checks, "spec.balancing.ramp", set.ramp.as_ref(), Duration::ZERO..=MINUTE * 10);
    time(checks, "spec.balancing.slowStart", set.slow_start.as_ref(), Duration::ZERO..=MINUTE * 10);
    let is_envoy = set.mode == Some(Mode::Envoy);
    for (path, given) in [
        ("spec.balancing.ramp", set.ramp.is_some()),
        ("spec.balancing.targetUtilisation", set.target_utilisation.is_some()),
        ("spec.localityWeights", !service.locality_weights.is_empty()),
    ] {
        if is_envoy && given {
            checks.problem(path, "it has no effect with `mode: envoy`, which knows hosts and their health only");
        }
    }
    if matches!(set.algorithm, Some(Algorithm::Random | Algorithm::RoundRobin)) && set.latency_veto.is_some() {
        checks.problem("spec.balancing.latencyVeto", "it has no effect with an algorithm that compares nothing");
    }
    let regions = set.residency.as_deref().unwrap_or_default();
    for (index, region) in regions.iter().enumerate() {
        checks.label(&format!("spec.balancing.residency[{index}]"), region);
    }
    repeated(checks, "spec.balancing.residency", regions);
}

fn trigger(checks: &mut Checks<'_>, path: &str, rule: &BreakerTrigger<DurationText>) {
    let windows = MILLISECOND * 100..=MINUTE * 10;
    match rule {
        BreakerTrigger::Cusum { .. } | BreakerTrigger::Consecutive { .. } => {}
        BreakerTrigger::ErrorRate { window, .. } => {
            time(checks, &format!("{path}.window"), Some(window), windows);
        }
        BreakerTrigger::Latency { limit, window, .. } => {
            time(checks, &format!("{path}.window"), Some(window), windows);
            time(checks, &format!("{path}.limit"), Some(limit), MILLISECOND..=MINUTE * 10);
        }
    }
}

fn time(
    checks: &mut Checks<'_>,
    path: &str,
    text: Option<&DurationText>,
    range: RangeInclusive<Duration>,
) -> Option<Duration> {
    text.map(|text| checks.duration(path, text, range))
}

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn repeated(checks: &mut Checks<'_>, path: &str, texts: &[String]) {
    let mut seen = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        if !seen.insert(text) {
            checks.problem(&format!("{path}[{index}]"), format!("`{text}` is listed twice"));
        }
    }
}
