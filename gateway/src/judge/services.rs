//! What is wrong with services: nobody serves them, nobody may, or they are offered to nobody.

use eastway_node::listing::{ClusterListing, ServiceListing};
use eastway_node::problem::Problem;

use super::Facts;

/// So many services with problems are told one by one; who has more has another problem.
const MOST: usize = 20;

pub(super) fn judge(facts: &Facts<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut left = 0;
    for service in facts.services {
        let found = of(facts, service);
        match problems.len() < MOST {
            true => problems.extend(found),
            false => left += usize::from(!found.is_empty()),
        }
    }
    if left > 0 {
        problems.push(Problem::error(
            "more_services",
            format!("{left} more services have problems"),
            "one cause, most likely: see the problems above that are none of services",
            facts.command("services"),
        ));
    }
    problems
}

fn of(facts: &Facts<'_>, service: &ServiceListing) -> Vec<Problem> {
    let mut problems: Vec<Problem> = serving(facts, service).into_iter().collect();
    problems.extend(accounts(facts, service));
    problems.extend(exports(facts, service));
    problems
}

/// Whether anybody serves it.
fn serving(facts: &Facts<'_>, service: &ServiceListing) -> Option<Problem> {
    let (name, cluster) = (&service.name, facts.cluster);
    let own = service.endpoints;
    match () {
        () if service.total() == 0 => Some(Problem::warning(
            "service_unserved",
            format!("nobody serves {name}"),
            "no workload has registered under one of its accounts, and no peer exports it to here",
            format!(
                "{}; the status of a sidecar that should serve it says why not: `eastway status` on its machine",
                facts.command("services")
            ),
        )),
        () if service.serving() == 0 => Some(Problem::error(
            "service_down",
            format!(
                "no endpoint of {name} is ready in any cluster ({} are known): callers are refused",
                service.total()
            ),
            "the applications have ended, or their health probes fail",
            facts.command(&format!("endpoints {name}")),
        )),
        () if own.total > 0 && own.serving() == 0 => Some(Problem::warning(
            "service_down_here",
            format!("no endpoint of {name} in {cluster} is ready ({} are known); other clusters serve it", own.total),
            "the applications here have ended, or their health probes fail",
            facts.command(&format!("endpoints {name}")),
        )),
        () => None,
    }
}

/// Where nobody may serve it: callers would refuse every endpoint.
fn accounts(facts: &Facts<'_>, service: &ServiceListing) -> Vec<Problem> {
    let name = &service.name;
    let nobody = service.clusters.iter().filter(|cluster| cluster.accounts.is_empty());
    let problem = |cluster: &ClusterListing| {
        let exported = if cluster.own && service.exported_to.is_empty() { "" } else { "exported " };
        Problem::error(
            "service_without_accounts",
            format!(
                "the {exported}service {name} of {} names no accounts: callers refuse every endpoint of it",
                cluster.cluster
            ),
            format!("`Service` {name} in {} lists no account that may serve it", cluster.cluster),
            format!(
                "list them under `accounts` there (`eastway apply` at one of its gateways, or its file and `kill -HUP`); what is known here: {}",
                facts.command(&format!("endpoints {name}"))
            ),
        )
    };
    nobody.map(problem).collect()
}

/// Clusters that it is offered to and that are no peers.
fn exports(facts: &Facts<'_>, service: &ServiceListing) -> Vec<Problem> {
    let name = &service.name;
    let is_peer = |to: &String| to == "*" || facts.server.peers.iter().any(|peer| peer.cluster == *to);
    let strangers = service.exported_to.iter().filter(|to| !is_peer(to));
    let problem = |to: &String| {
        Problem::warning(
            "export_unmatched",
            format!("{name} is exported to {to}, which is no peer of {}", facts.cluster),
            format!("the name has a typing error, or the `Peer` {to} is not declared here"),
            format!(
                "declare `Peer` {to} or correct `export` (`eastway apply`, or the file and `kill -HUP` of this gateway); the peers: {}",
                facts.command("peers")
            ),
        )
    };
    strangers.map(problem).collect()
}
