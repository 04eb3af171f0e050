//! What is checked of a residency fence: that something can lie inside of it.

use eastway_core::resource::Peer;
use eastway_documents::{Checks, Severity};

use crate::world::{World, instead, list};

const PATH: &str = "spec.balancing.residency";

/// Compares the fence `regions` with this cluster and with `peers`, those that requests may go to were there no fence.
///
/// All of it are warnings: a peer that lies inside may be declared elsewhere, or later.
pub(crate) fn check(checks: &mut Checks<'_>, regions: &[String], peers: &[&str], world: &World<'_>) {
    let own = &world.cluster.region;
    if !regions.contains(own) && !peers.iter().any(|name| world.may_lie_in(name, regions)) {
        let peer = if peers.is_empty() { "no peer may serve instead" } else { "no peer lies inside" };
        let cause = format!("it keeps out every request: this cluster lies in `{own}`, and {peer}");
        let otherwise = format!("add `{own}`, or the region of a peer that is imported from");
        let suggestion = match regions {
            [region] => instead(region, world.regions().into_iter().filter(|known| *known != own), &otherwise),
            _ => otherwise,
        };
        checks.advise(Severity::Warning, PATH, cause, suggestion);
        return;
    }
    for (index, region) in regions.iter().enumerate().filter(|(_, region)| *region != own) {
        inside(checks, &format!("{PATH}[{index}]"), region, world);
    }
}

/// Whether something lies in one region of the fence.
fn inside(checks: &mut Checks<'_>, path: &str, region: &String, world: &World<'_>) {
    let only = std::slice::from_ref(region);
    let possible = || world.peers.iter().filter(|(name, _)| world.may_lie_in(name, only));
    // A peer that declares none may say so itself, if it has not said another.
    let lies_there = |name: &str, peer: &Peer| {
        peer.region.is_some() || name == region || world.live_peer(name).is_some_and(|live| live.region == *region)
    };
    let (cause, otherwise) = if possible().next().is_none() {
        let cause = format!("neither this cluster nor a peer lies in `{region}`");
        (cause, format!("remove it: something lies in {}", list(world.regions())))
    } else if possible().any(|(name, peer)| lies_there(name, peer)) {
        return;
    } else {
        let cause = format!("no peer is known to lie in `{region}`");
        (cause, format!("declare `region: {region}` for the peer that does, or remove it here"))
    };
    checks.advise(Severity::Warning, path, cause, instead(region, world.regions(), &otherwise));
}
