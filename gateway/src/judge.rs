//! What is wrong: from facts to problems, each with its likely cause and what to do next.
//!
//! One pure function, called by `view.rs` for the admin API: every client is told the same. Never: gathering facts, or acting
//! on what it finds.

use std::net::SocketAddr;

use eastway_node::listing::ServiceListing;
use eastway_node::problem::{Certificate, Problem};
use eastway_server::ServerStatus;

mod peers;
mod services;

#[cfg(test)]
mod tests;

/// Where the admin API listens unless the configuration says otherwise: commands need not name it then.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 15_000);

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// The own cluster.
    pub(crate) cluster: &'a str,
    /// This gateway's id.
    pub(crate) gateway: &'a str,
    /// This gateway's identity.
    pub(crate) identity: &'a str,
    /// Where this gateway's admin API listens.
    pub(crate) admin: SocketAddr,
    /// This gateway ends.
    pub(crate) draining: bool,
    /// This gateway's certificate.
    pub(crate) certificate: Certificate,
    /// The cluster's state, its siblings and its peers.
    pub(crate) server: &'a ServerStatus,
    /// The services that are known.
    pub(crate) services: &'a [ServiceListing],
}

/// Everything that is wrong, the worst first.
pub(crate) fn judge(facts: &Facts<'_>) -> Vec<Problem> {
    let mut problems = own(facts);
    problems.extend(store(facts));
    problems.extend(beginning(facts));
    problems.extend(siblings(facts));
    problems.extend(facts.server.peers.iter().flat_map(|peer| peers::judge(facts, peer)));
    problems.extend(services::judge(facts));
    // Stable: what was judged first stays first among those that are as bad.
    problems.sort_by_key(|problem| problem.severity);
    problems
}

impl Facts<'_> {
    /// The command `eastway WORDS`, asked at this gateway.
    fn command(&self, words: &str) -> String {
        match self.admin {
            // Port 0 is no address to ask at.
            admin if admin == ADMIN || admin.port() == 0 => format!("`eastway {words}`"),
            admin => format!("`eastway {words} --admin {admin}`"),
        }
    }
}

/// This gateway itself.
fn own(facts: &Facts<'_>) -> Vec<Problem> {
    let Facts { gateway, server, .. } = facts;
    let mut problems = Vec::new();
    if let Some(epoch) = server.replaced_by {
        problems.push(Problem::error(
            "replaced",
            format!(
                "another process has taken over the id {gateway} in epoch {epoch}: this one (epoch {}) ends",
                server.epoch
            ),
            "two processes run with the same `gateway` on one store",
            "end one of them, or give each its own `gateway`; check a file by `eastway gateway --check --config FILE`",
        ));
    }
    for (identity, epoch) in &server.fenced_by {
        problems.push(Problem::error(
            "fenced",
            format!(
                "{identity} ignores this gateway: it knows a later life of it (epoch {epoch}; this is {})",
                server.epoch
            ),
            "the store was restored from an earlier state, or this machine's clock was set back",
            format!("set the clock right (`timedatectl`), start {gateway} again, then {}", facts.command("status")),
        ));
    }
    if facts.draining {
        problems.push(Problem::warning(
            "draining",
            format!("{gateway} is draining: it takes nothing new, and ends"),
            "it was told to end (SIGTERM)",
            format!("wait for its end, then see another gateway of {} by `eastway status` there", facts.cluster),
        ));
    }
    problems.extend(facts.certificate.judge(facts.identity));
    problems
}

/// What this gateway knows is as old as its start without a store.
fn beginning(facts: &Facts<'_>) -> Option<Problem> {
    let age = facts.server.state_age_seconds?;
    Some(Problem::warning(
        "started_without_store",
        format!("{} started without its store, from what that held {age} s ago", facts.gateway),
        "no member of the store has answered since the start",
        "see the problem of the store; what changed there meanwhile is taken over as soon as it answers",
    ))
}

fn store(facts: &Facts<'_>) -> Vec<Problem> {
    let store = &facts.server.store;
    let addresses: Vec<&str> = store.members.iter().map(|member| member.address.as_str()).collect();
    let etcd = store.kind == "etcd";
    let next = |addresses: &[&str]| match etcd {
        true => format!("`etcdctl endpoint status --endpoints {}`", addresses.join(",")),
        false => format!("`df -h {}`, and this gateway's log", addresses.join(" ")),
    };
    if !store.healthy {
        let error = store.last_error.as_deref().unwrap_or("no answer");
        return vec![Problem::error(
            "store_unhealthy",
            format!("the store ({}) fails: {error}; traffic goes on from memory, registrations wait", store.kind),
            if etcd {
                "no member of etcd can be reached from here, or etcd has lost its quorum"
            } else {
                "the disk is full, or it fails"
            },
            next(&addresses),
        )];
    }
    let failing = store.members.iter().filter(|member| member.failures > 0);
    let problem = |member: &eastway_server::store::MemberHealth| {
        let error = member.last_error.as_deref().unwrap_or("no answer");
        Problem::warning(
            "store_member_failing",
            format!("the member {} of the store fails ({} times): {error}", member.address, member.failures),
            "it has ended, or cannot be reached from here; the others answer",
            next(&[&member.address]),
        )
    };
    failing.map(problem).collect()
}

fn siblings(facts: &Facts<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (sibling, status) in &facts.server.siblings {
        let there = format!("`eastway status` on the machine of {sibling}");
        problems.extend(match (status.registered, status.speaks) {
            (true, true) => None,
            (true, false) => Some(Problem::warning(
                "sibling_silent",
                format!("{sibling} of {} is registered in the store, but says nothing: its endpoints are probed from here", facts.cluster),
                "it has just ended, or UDP does not pass between the gateways, or its `tunnel.advertise` is not where it is reached",
                there,
            )),
            (false, true) => Some(Problem::warning(
                "sibling_unregistered",
                format!("{sibling} of {} speaks, but is not registered in the store", facts.cluster),
                "it cannot reach the store: what registers there is not stored",
                there,
            )),
            (false, false) => Some(Problem::warning(
                "sibling_gone",
                format!("{sibling} of {} is gone, and endpoints are left of it: they are probed from here", facts.cluster),
                "its process has ended, and its sidecars have not all moved yet",
                format!("start it again; what is left otherwise: {}", facts.command("endpoints")),
            )),
        });
    }
    problems
}
