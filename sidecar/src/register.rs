//! Registration: tells a gateway that the workload exists, how it does and how loaded it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eastway_client::{Link, Registrar, Workload, incarnation};
use eastway_core::{EndpointId, ServiceName};
use eastway_runtime::clock;
use eastway_runtime::tasks::TaskGroup;

use crate::config::HealthKind;
use crate::health::{self, ProbeKind, ProbeOptions};
use crate::load::cgroup::CpuGroup;
use crate::node::SidecarNode;

/// How often the load is looked at; it is reported when it changed, and now and then when it did not.
const LOAD_PERIOD: Duration = Duration::from_millis(100);
/// How often the application's processor time is looked at.
const PROCESSOR_PERIOD: Duration = Duration::from_secs(1);

/// Registers the workload, if there is one, at the inbound listener's address, and starts probing the application.
pub(crate) fn start(
    tasks: &TaskGroup,
    node: &Arc<SidecarNode>,
    link: Link,
    inbound: Option<SocketAddr>,
) -> Option<Arc<Registrar>> {
    let workload = workload(node, inbound?)?;
    let (registrar, keep) = Registrar::new(link, workload);
    tasks.spawn("registration", keep);
    if let Some(folder) = &node.config.workload.cgroup {
        tasks.spawn_loop("processor", watch_processor(Arc::clone(node), CpuGroup::new(folder)));
    }
    tasks.spawn_loop("load", report_load(Arc::clone(node), Arc::clone(&registrar)));
    if let Some(options) = probe_options(node) {
        let registrar = Arc::clone(&registrar);
        tasks.spawn_loop("health", health::watch(options, move |health, words| registrar.set_health(health, words)));
    }
    Some(registrar)
}

fn workload(node: &SidecarNode, inbound: SocketAddr) -> Option<Workload> {
    let config = &node.config.workload;
    let service = config.service.as_deref()?;
    Some(Workload {
        service: ServiceName::new(config.namespace.as_str(), service),
        endpoint: EndpointId::new(config.name.as_str()),
        zone: node.config.zone.clone(),
        address: config.address.unwrap_or(inbound),
        weight: config.weight,
        capacity: config.capacity,
        labels: config.labels.clone(),
        incarnation: incarnation::next(node.config.state.as_deref()),
    })
}

fn probe_options(node: &SidecarNode) -> Option<ProbeOptions> {
    let health = node.config.health.as_ref()?;
    let kind = match &health.kind {
        HealthKind::Http { path } => ProbeKind::Http { path: path.clone() },
        HealthKind::Grpc { service } => ProbeKind::Grpc { service: service.clone() },
        HealthKind::Tcp => ProbeKind::Tcp,
        HealthKind::Command { argv } => ProbeKind::Command { argv: argv.clone() },
    };
    Some(ProbeOptions {
        kind,
        target: health.target,
        interval: health.interval,
        timeout: health.timeout,
        healthy_after: health.healthy_after,
        unhealthy_after: health.unhealthy_after,
    })
}

/// Looks at the application's processor time.
async fn watch_processor(node: Arc<SidecarNode>, mut group: CpuGroup) {
    let mut ticks = tokio::time::interval(PROCESSOR_PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        node.load.processor(group.utilisation(clock::now()));
    }
}

async fn report_load(node: Arc<SidecarNode>, registrar: Arc<Registrar>) {
    let mut ticks = tokio::time::interval(LOAD_PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        registrar.set_load(node.load.report(clock::now()));
    }
}
