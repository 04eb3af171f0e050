//! What is wrong, as far as a sidecar can know: whether a gateway hears it, whether its workload is registered, and how long
//! its certificate lasts. A pure function, called by `admin.rs`. The mesh as a whole is judged by gateways.

use eastway_client::discovery::DiscoveryStatus;
use eastway_client::registrar::RegistrarStatus;
use eastway_node::problem::{Certificate, Problem, Severity};

use crate::plaintext::PlainCaller;
use crate::virtuals::{Unserved, hint};

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// The workload's name.
    pub(crate) name: &'a str,
    /// The sidecar's identity.
    pub(crate) identity: &'a str,
    /// It ends.
    pub(crate) draining: bool,
    /// Its certificate.
    pub(crate) certificate: Certificate,
    /// How discovery does.
    pub(crate) discovery: &'a DiscoveryStatus,
    /// How the registration stands, if the workload serves.
    pub(crate) registration: Option<&'a RegistrarStatus>,
    /// The ports of names that are not served.
    pub(crate) unserved: &'a [Unserved],
    /// Who came around the mesh lately, where that is let through.
    pub(crate) plaintext: &'a [PlainCaller],
}

/// Everything that is wrong, the worst first.
pub(crate) fn judge(facts: &Facts<'_>) -> Vec<Problem> {
    let mut problems: Vec<Problem> = discovery(facts).into_iter().chain(registration(facts)).collect();
    if facts.draining {
        problems.push(Problem::warning(
            "draining",
            format!("the sidecar of {} is draining: it takes nothing new, and ends", facts.name),
            "it was told to end (SIGTERM)",
            "wait for its end",
        ));
    }
    problems.extend(facts.certificate.judge(facts.identity));
    problems.extend(facts.unserved.iter().map(unserved));
    problems.extend(plaintext(facts));
    // Stable: what was judged first stays first among those that are as bad.
    problems.sort_by_key(|problem| problem.severity);
    problems
}

fn discovery(facts: &Facts<'_>) -> Option<Problem> {
    if facts.discovery.gateway.is_some() {
        return None;
    }
    let silent = match facts.discovery.silent_seconds {
        Some(seconds) => format!("none has said anything for {seconds:.0} s, what it said last is still used"),
        None => "none was ever heard, what is on disk from an earlier life is used".to_owned(),
    };
    Some(Problem {
        severity: Severity::Error,
        kind: "no_gateway",
        what: format!("the sidecar of {} has no gateway: {silent}", facts.name),
        cause: "the gateways of its cluster have ended, or cannot be reached at the addresses in `gateways`, or refuse its identity"
            .to_owned(),
        next: "`eastway status` on the machine of a gateway of its cluster, and this sidecar's log".to_owned(),
    })
}

fn registration(facts: &Facts<'_>) -> Option<Problem> {
    let status = facts.registration.filter(|status| status.gateway.is_none())?;
    let (kind, why, cause) = match &status.rejected {
        Some(why) => (
            "registration_rejected",
            format!(": {why}"),
            "its `Service` does not list its account, or its zone, name or address is not what the gateway accepts",
        ),
        None => ("not_registered", String::new(), "no gateway answers, or the store of the cluster does not"),
    };
    Some(Problem::error(
        kind,
        format!("{} is registered at no gateway{why}", facts.name),
        cause,
        "`eastway services` on the machine of a gateway of its cluster, and this sidecar's log",
    ))
}

fn unserved(unserved: &Unserved) -> Problem {
    let Unserved { port, kind, error, names, first } = unserved;
    let others = if *names > 1 { format!(" and of {} more names", names - 1) } else { String::new() };
    let (cause, next) = hint(*kind);
    Problem::error("port_unserved", format!("port {port} of {first}{others} is not served: {error}"), cause, next)
}

/// Callers that are named in one problem.
const NAMED: usize = 5;

fn plaintext(facts: &Facts<'_>) -> Option<Problem> {
    let (first, rest) = facts.plaintext.split_first()?;
    let from = |caller: &PlainCaller| format!("{} (port {}, {} times)", caller.from, caller.port, caller.connections);
    let named: Vec<String> = [first].into_iter().chain(rest).take(NAMED).map(from).collect();
    let more = facts.plaintext.len() - named.len();
    let others = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(Problem::warning(
        "plaintext_callers",
        format!("{} is called in plain text, around the mesh, by {}{others}", facts.name, named.join(", ")),
        "`capture.inbound.mode` is `permissive`, and these callers do not go through a sidecar yet",
        "give them sidecars, and have them call by name; once nobody is listed, set `mode: strict`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kinds of problems of a workload that a gateway hears, or not, and that is registered, rejected, or serves nothing.
    fn kinds(
        gateway: Option<&str>,
        registration: Option<RegistrarStatus>,
        draining: bool,
        days_left: f64,
    ) -> Vec<&'static str> {
        let discovery = DiscoveryStatus {
            gateway: gateway.map(str::to_owned),
            subscriptions: 0,
            known: 0,
            silent_seconds: Some(2.0),
        };
        let judged = judge(&Facts {
            name: "payments-1",
            identity: "spiffe://us-east.mesh.internal/ns/shop/sa/payments",
            draining,
            certificate: Certificate { days_left, days: 90.0 },
            discovery: &discovery,
            registration: registration.as_ref(),
            unserved: &[],
            plaintext: &[],
        });
        assert!(judged.iter().all(|problem| !problem.cause.is_empty() && !problem.next.is_empty()), "{judged:?}");
        judged.into_iter().map(|problem| problem.kind).collect()
    }

    #[test]
    fn each_fact_has_its_problem() {
        let at = |gateway: Option<&str>, rejected: Option<&str>| RegistrarStatus {
            gateway: gateway.map(str::to_owned),
            rejected: rejected.map(str::to_owned),
            accepted: 1,
        };
        let gateway = Some("127.1.0.1:15010");
        assert_eq!(kinds(gateway, None, false, 60.0), Vec::<&str>::new());
        assert_eq!(kinds(gateway, Some(at(gateway, None)), false, 60.0), Vec::<&str>::new());
        assert_eq!(kinds(None, None, false, 60.0), ["no_gateway"]);
        assert_eq!(kinds(gateway, Some(at(None, None)), false, 60.0), ["not_registered"]);
        assert_eq!(kinds(gateway, Some(at(None, Some("taken"))), false, 60.0), ["registration_rejected"]);
        assert_eq!(kinds(gateway, None, true, -1.0), ["certificate_expired", "draining"]);
    }

    #[test]
    fn a_port_that_is_not_served_is_told_with_what_to_do() {
        let denied = Unserved {
            port: 80,
            kind: std::io::ErrorKind::PermissionDenied,
            error: "Permission denied".to_owned(),
            names: 3,
            first: "shop/payments at 127.64.1.0".to_owned(),
        };
        let problem = unserved(&denied);
        assert_eq!(
            problem.what,
            "port 80 of shop/payments at 127.64.1.0 and of 2 more names is not served: Permission denied"
        );
        assert!(problem.next.contains("CAP_NET_BIND_SERVICE"), "{problem:?}");
    }
}
