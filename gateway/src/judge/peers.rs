//! What is wrong with one peer: the paths to it, its word, what it may say, and what is imported of it.

use eastway_core::view::{PathState, Staleness, Transport};
use eastway_node::problem::{Certificate, Problem, span};
use eastway_server::{PeerPath, PeerStatus};

use super::Facts;

/// From this share of lost pings on a path is told to lose some. One of a minute's 240 says nothing.
const LOSS: f64 = 0.05;

/// A gateway that has said nothing for so many seconds is silent: it speaks every second.
const SILENT: f64 = 3.0;

pub(super) fn judge(facts: &Facts<'_>, peer: &PeerStatus) -> Vec<Problem> {
    let is_down = |path: &PeerPath| path.state == PathState::Down;
    let mut problems = Vec::new();
    if peer.idle {
        // Nothing is expected of it.
    } else if peer.paths.iter().all(is_down) {
        let refuses = peer.paths.iter().any(|path| path.refuses);
        problems.push(if refuses { refusing(facts, peer) } else { unreachable(facts, peer) });
    } else {
        problems.extend(peer.paths.iter().filter_map(|path| of_path(facts, peer, path)));
        problems.extend(word(facts, peer));
    }
    problems.extend(bundle(peer));
    problems.extend(peer.cut.iter().map(|(what, count)| cut(facts, peer, what, *count)));
    problems.extend(peer.unmatched_imports.iter().map(|rule| unmatched(facts, peer, rule)));
    problems
}

/// The gateway at the end of a path, in words.
fn gateway(peer: &PeerStatus, path: &PeerPath) -> String {
    match &path.gateway {
        Some(gateway) => format!("{gateway} of {} ({})", peer.cluster, path.address),
        None => format!("the gateway of {} at {}", peer.cluster, path.address),
    }
}

/// The peer answers, and has taken this cluster for its peer no longer, or never.
fn refusing(facts: &Facts<'_>, peer: &PeerStatus) -> Problem {
    let (cluster, own) = (&peer.cluster, facts.cluster);
    let addresses: Vec<&str> =
        peer.paths.iter().filter(|path| path.refuses).map(|path| path.address.as_str()).collect();
    Problem::error(
        "peer_refuses",
        format!("{cluster} answers (at {}), and refuses {own}: it is no peer of {cluster}", addresses.join(", ")),
        format!(
            "{cluster} has ended it (`eastway peer remove {own}`), has no `Peer` {own} yet, or pins another CA than that of {own}"
        ),
        format!(
            "if that is meant, end it here as well: {}; if not, make a token at a gateway of {cluster} (`eastway peer token`) and \
             join with it here",
            facts.command(&format!("peer remove {cluster}"))
        ),
    )
}

fn unreachable(facts: &Facts<'_>, peer: &PeerStatus) -> Problem {
    let cluster = &peer.cluster;
    let addresses: Vec<&str> = peer.paths.iter().map(|path| path.address.as_str()).collect();
    let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(", ") };
    let word = match (peer.staleness, peer.age_seconds) {
        (Some(staleness), Some(age)) => format!("its last word is {age:.0} s old ({})", rung(staleness)),
        _ => "it was never heard".to_owned(),
    };
    let never = peer.staleness.is_none();
    Problem::error(
        "peer_unreachable",
        format!("no gateway of {cluster} can be reached (at {addresses}): {word}"),
        match never {
            true => format!(
                "its gateways do not run yet, UDP to these addresses is blocked, the addresses in `Peer` {cluster} are wrong, or one \
                 side does not trust the other's CA (this gateway's log says which)"
            ),
            false => "its gateways have ended, or the network between the clusters is cut".to_owned(),
        },
        format!(
            "`eastway status` on the machine of a gateway of {cluster}; from here, {} shows whether paths return",
            facts.command("peers")
        ),
    )
}

fn of_path(facts: &Facts<'_>, peer: &PeerStatus, path: &PeerPath) -> Option<Problem> {
    let there = format!("`eastway status` on the machine of {}", gateway(peer, path));
    let who = gateway(peer, path);
    match path.state {
        PathState::Down => Some(Problem::warning(
            "path_down",
            format!("{who} cannot be reached; other paths to {} work", peer.cluster),
            "its process has ended, or UDP to this address does not pass",
            there,
        )),
        PathState::Suspect => Some(Problem::warning(
            "path_suspect",
            format!("{who} does not answer pings right now"),
            "the network loses packets, or that machine is overloaded",
            facts.command("peers"),
        )),
        PathState::Unknown => Some(Problem::warning(
            "path_unknown",
            format!("{who} has not answered a ping yet"),
            "the connection was just made",
            format!("ask again: {}", facts.command("status")),
        )),
        PathState::Up if path.draining => Some(Problem::warning(
            "path_draining",
            format!("{who} is draining: streams move to other paths"),
            "it was told to end (SIGTERM)",
            there,
        )),
        // If nobody of the peer speaks, that is told of the peer.
        PathState::Up
            if peer.staleness == Some(Staleness::Fresh) && path.age_seconds.is_none_or(|age| age >= SILENT) =>
        {
            Some(Problem::warning(
                "path_silent",
                format!("{who} answers pings, but states nothing; others of {} do", peer.cluster),
                format!("it does not take {} for its peer, has just been reached, or is overloaded", facts.cluster),
                there,
            ))
        }
        PathState::Up if path.transport_cause.is_some() => fallen_back(facts, peer, path),
        PathState::Up => path.loss.filter(|loss| *loss >= LOSS).map(|loss| {
            Problem::warning(
                "path_loss",
                format!("{who} left {:.0} % of the last pings unanswered", loss * 100.0),
                "the network between the clusters loses packets or is congested, or that machine is overloaded",
                format!("watch it by {}, and the way by `mtr --udp {}`", facts.command("peers"), host(&path.address)),
            )
        }),
    }
}

/// The path does not go over the preferred transport.
fn fallen_back(facts: &Facts<'_>, peer: &PeerStatus, path: &PeerPath) -> Option<Problem> {
    let (who, used, cause) = (gateway(peer, path), path.transport?, path.transport_cause?);
    let (over, preferred, port, lossy, blocked) = match used {
        Transport::Tcp => ("TCP", "QUIC", "UDP", "udp_lossy", "udp_blocked"),
        Transport::Quic => ("QUIC", "TCP", "TCP", "tcp_lossy", "tcp_blocked"),
    };
    let address = &path.address;
    Some(match cause {
        // A gateway that was started again: nothing is to be done.
        "recovering" => return None,
        "lossy" => Problem::warning(
            lossy,
            format!("what goes to {who} goes over {over}, because {preferred} leaves far more pings unanswered"),
            format!("a firewall or a provider between the clusters limits {port}, or its queues are full"),
            format!("measure both ways, `iperf3 -u` beside `iperf3`, and watch {}", facts.command("peers")),
        ),
        _ => Problem::warning(
            blocked,
            format!("what goes to {who} goes over {over}, because it does not answer over {preferred}"),
            format!("a firewall between the clusters drops {port} to {address}, or its answers"),
            format!(
                "let {port} to {address} pass, both ways: {preferred} is then used again by itself; if it is meant so, name only \
                 `{used}` in `tunnel.transports`"
            ),
        ),
    })
}

/// The peer's word is old, or never came, although it can be reached.
fn word(facts: &Facts<'_>, peer: &PeerStatus) -> Option<Problem> {
    let cluster = &peer.cluster;
    let next = format!("`eastway status` on the machine of a gateway of {cluster}, and this gateway's log");
    let Some(staleness) = peer.staleness else {
        return Some(Problem::error(
            "peer_unheard",
            format!("{cluster} answers, but never stated what it exports"),
            format!("{cluster} does not declare {} as its peer, or has just been reached", facts.cluster),
            next,
        ));
    };
    let age = peer.age_seconds.unwrap_or_default();
    let (effect, severe) = match staleness {
        Staleness::Fresh => return None,
        Staleness::Stale1 => ("the division of traffic among its zones is frozen", false),
        Staleness::Stale2 => ("it is second choice", true),
        Staleness::Stale3 => ("it is the last resort", true),
    };
    let what = format!("the word of {cluster} is {age:.0} s old ({}): {effect}", rung(staleness));
    let cause = "its statements do not arrive although it answers: it is overloaded, or refuses this cluster";
    Some(match severe {
        true => Problem::error("peer_stale", what, cause, next),
        false => Problem::warning("peer_stale", what, cause, next),
    })
}

fn bundle(peer: &PeerStatus) -> Option<Problem> {
    let (cluster, bundle) = (&peer.cluster, &peer.bundle);
    let certificate = Certificate { days_left: bundle.days_left?, days: bundle.days? };
    let cause = format!("{cluster} has not sent the CA certificates that follow, or they are not in the file yet");
    let next = format!(
        "put the new CA certificate of {cluster} beside the old one into the `trustBundle` of its `Peer` (`eastway apply`, or the \
         file and `kill -HUP` of this gateway)"
    );
    let left = span(certificate.days_left);
    match () {
        () if certificate.is_expired() => Some(Problem::error(
            "bundle_expired",
            format!("the pinned CA of {cluster} expired {left} ago: nobody of it is believed"),
            cause,
            next,
        )),
        () if certificate.expires_soon() => Some(Problem::warning(
            "bundle_expiring",
            format!("the pinned CA of {cluster} expires in {left}"),
            cause,
            next,
        )),
        () => None,
    }
}

fn cut(facts: &Facts<'_>, peer: &PeerStatus, what: &str, count: u64) -> Problem {
    let cluster = &peer.cluster;
    let (cause, next) = match what {
        "region" => (
            format!("{cluster} says that it lies in a region which its `Peer` does not declare"),
            format!("if it is right, set `region` in `Peer` {cluster}"),
        ),
        "capacity" => (
            format!("{cluster} states more capacity for each endpoint than `Peer` {cluster} allows"),
            format!("if it is right, raise `endpointCapacity` in `Peer` {cluster}"),
        ),
        _ => (
            format!("{cluster} has grown beyond the bounds of `peering` in this gateway's configuration"),
            "if it is right, raise the bound under `peering` and start the gateways of this cluster again".to_owned(),
        ),
    };
    Problem::warning(
        "cut",
        format!("of what {cluster} says, `{what}` exceeded a bound {count} times and was left out or replaced"),
        cause,
        format!("{next}; what is taken: {}", facts.command("peers")),
    )
}

fn unmatched(facts: &Facts<'_>, peer: &PeerStatus, rule: &str) -> Problem {
    let cluster = &peer.cluster;
    Problem::warning(
        "import_unmatched",
        format!("the import rule `{rule}` of `Peer` {cluster} matches nothing that {cluster} offers"),
        format!(
            "{cluster} does not export it to {} (`export` of its `Service`), or the rule has a typing error",
            facts.cluster
        ),
        format!(
            "`eastway services` on the machine of a gateway of {cluster} shows what it exports, {} what arrives",
            facts.command("services")
        ),
    )
}

/// A rung of the ladder, as operators read it.
const fn rung(staleness: Staleness) -> &'static str {
    match staleness {
        Staleness::Fresh => "fresh",
        Staleness::Stale1 => "stale-1",
        Staleness::Stale2 => "stale-2",
        Staleness::Stale3 => "stale-3",
    }
}

fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host.trim_matches(['[', ']']))
}
