//! In which order a sidecar tries the gateways of its cluster. Pure.
//!
//! Every sidecar has an order of its own, which follows from its name alone: so each gateway is the first one of as many, and
//! those of a gateway that is gone divide themselves among all others.

use std::hash::{DefaultHasher, Hash, Hasher};

/// The `gateways` in the order that the sidecar named `of` prefers, whatever order they are given in.
pub fn preference(mut gateways: Vec<String>, of: &str) -> Vec<String> {
    gateways.sort_by_cached_key(|gateway| (weight(of, gateway), gateway.clone()));
    gateways
}

fn weight(of: &str, gateway: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (of, gateway).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const GATEWAYS: [&str; 3] = ["10.0.0.1:15010", "10.0.0.2:15010", "10.0.0.3:15010"];

    fn preferred(number: usize, order: [usize; 3]) -> Vec<String> {
        preference(order.map(|place| GATEWAYS[place].to_owned()).to_vec(), &format!("payments-{number}"))
    }

    #[test]
    fn each_gateway_is_the_first_of_as_many_and_the_second_of_as_many_of_those() {
        let mut counts: BTreeMap<Vec<String>, usize> = BTreeMap::new();
        for number in 0..6_000 {
            *counts.entry(preferred(number, [0, 1, 2])).or_default() += 1;
        }
        assert_eq!(counts.len(), 6, "every order");
        assert!(counts.values().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_order_in_the_configuration_changes_nothing() {
        assert!((0..100).all(|number| preferred(number, [0, 1, 2]) == preferred(number, [2, 0, 1])));
    }
}
