//! What is checked of a `Service`.

use std::collections::BTreeSet;

use eastway_core::name::is_label;
use eastway_core::policy::Mode;
use eastway_core::resource::Service;
use eastway_documents::Checks;
use eastway_documents::yaml::join;

use crate::common::repeated;
use crate::policy::{self, Said};

/// Ports and accounts of a service: as many as a gateway takes of what a peer exports.
const MAX_PORTS: usize = 64;
const MAX_ACCOUNTS: usize = 32;

pub(crate) fn alone(checks: &mut Checks<'_>, service: &Service) {
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
    if service.balancing.mode == Some(Mode::Envoy) && !service.locality_weights.is_empty() {
        checks.problem("spec.localityWeights", policy::UNKNOWN_TO_ENVOY);
    }
    let Service { balancing, breaker, retries, timeouts, .. } = service;
    policy::check(checks, Said { balancing, breaker, retries, timeouts });
}
