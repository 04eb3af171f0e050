//! In which order the gateways of a peer are asked for a stream. Pure.
//!
//! They are equals: those that are as near as the nearest take turns, so that each carries its part, and a sidecar that has a
//! session by one of them gets its next by another.

use eastway_core::via;
use eastway_core::view::PathState;
use eastway_server::PeerPath;

/// A way whose round trip takes so many times as long as the shortest, and [`BESIDE_MS`] more, is as near.
const BESIDE: f64 = 1.5;
/// Milliseconds within which a difference says nothing.
const BESIDE_MS: f64 = 1.0;

/// The `paths` in the order of the stream number `turn`. Those to `avoid`, named as [`via`] does or by the address alone,
/// and those that are suspect come later, and gateways that drain last.
pub(crate) fn order(mut paths: Vec<PeerPath>, avoid: &[String], turn: usize) -> Vec<PeerPath> {
    paths.sort_by(|a, b| a.address.cmp(&b.address));
    let count = paths.len().max(1);
    paths.rotate_left(turn % count);
    let nearest = paths.iter().filter_map(|path| path.min_rtt_ms).fold(f64::INFINITY, f64::min);
    let is_far = |path: &PeerPath| path.min_rtt_ms.is_some_and(|rtt| rtt > nearest * BESIDE + BESIDE_MS);
    let is_avoided = |path: &PeerPath| {
        let addresses = avoid.iter().map(|name| via::gateway(name).map_or(name.as_str(), |(_, address)| address));
        addresses.into_iter().any(|address| address == path.address)
    };
    let doubts = |path: &PeerPath| {
        let suspect = matches!(path.state, PathState::Suspect | PathState::Down);
        u8::from(suspect) + u8::from(is_avoided(path))
    };
    paths.sort_by_key(|path| (path.draining, doubts(path), is_far(path)));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(address: &str, rtt: Option<f64>) -> PeerPath {
        PeerPath {
            address: address.to_owned(),
            gateway: None,
            state: PathState::Up,
            min_rtt_ms: rtt,
            draining: false,
            refuses: false,
            rtt_ms: None,
            loss: None,
            transport: None,
            transport_cause: None,
            transport_changes: 0,
            epoch: None,
            seq: None,
            age_seconds: None,
            offered: None,
        }
    }

    fn ordered(paths: &[PeerPath], avoid: &[&str], turn: usize) -> String {
        let avoid: Vec<String> = avoid.iter().map(|&avoid| avoid.to_owned()).collect();
        order(paths.to_vec(), &avoid, turn).into_iter().map(|path| path.address).collect()
    }

    #[test]
    fn those_that_are_as_near_as_the_nearest_take_turns() {
        let paths = [path("c", Some(80.0)), path("a", Some(70.0)), path("b", None), path("d", Some(140.0))];
        let first: String = (0..6).filter_map(|turn| ordered(&paths, &[], turn).chars().next()).collect();
        assert!(!first.contains('d') && "abc".chars().all(|near| first.contains(near)), "{first}");
        assert!((0..6).all(|turn| ordered(&paths, &[], turn).ends_with('d')));
    }

    #[test]
    fn what_is_avoided_or_suspect_comes_later_and_what_drains_last() {
        let mut paths = [path("a", None), path("b", None), path("c", None)];
        assert!((0..3).all(|turn| ordered(&paths, &["eu-west/a"], turn).ends_with('a')));
        paths[1].state = PathState::Suspect;
        assert!((0..3).all(|turn| ordered(&paths, &[], turn).ends_with('b')));
        assert!((0..3).all(|turn| ordered(&paths, &["eu-west/b"], turn).ends_with('b')), "twice in doubt");
        paths[2].draining = true;
        assert!((0..3).all(|turn| ordered(&paths, &["eu-west/a", "eu-west/b"], turn).ends_with('c')));
        assert_eq!(ordered(&paths[..1], &["eu-west/a"], 5), "a", "where there is nothing else");
        assert_eq!(ordered(&[], &[], 5), "");
    }
}
