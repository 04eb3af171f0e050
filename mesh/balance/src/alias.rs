//! Alias tables (Walker, Vose): drawing by weight in constant time.

use std::sync::Arc;

/// A table that draws `0..n` by weight. Equal weights need none: draw uniformly.
#[derive(Clone, Debug)]
pub struct AliasTable {
    slots: Arc<[Slot]>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The slot keeps its own index below this, and gives the alias from it on; `u32::MAX` keeps always.
    threshold: u32,
    alias: u32,
}

impl AliasTable {
    /// The table of `weights`; `None` if all are equal (or none is positive), where a uniform draw is the same.
    pub fn new(weights: &[f64]) -> Option<Self> {
        let sum: f64 = weights.iter().sum();
        let first = *weights.first()?;
        if weights.iter().all(|w| *w == first) || sum <= 0.0 || !sum.is_finite() {
            return None;
        }
        let scale = weights.len() as f64 / sum;
        let mut heights: Vec<f64> = weights.iter().map(|w| w * scale).collect();
        let mut slots: Vec<Slot> = (0..weights.len()).map(|i| Slot { threshold: u32::MAX, alias: i as u32 }).collect();
        let (mut low, mut high): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|i| heights[*i] < 1.0);
        while let (Some(small), Some(large)) = (low.pop(), high.last().copied()) {
            slots[small] = Slot { threshold: (heights[small] * f64::from(u32::MAX)) as u32, alias: large as u32 };
            heights[large] -= 1.0 - heights[small];
            if heights[large] < 1.0 {
                high.pop();
                low.push(large);
            }
        }
        Some(Self { slots: slots.into() })
    }

    /// The index that 64 random bits select.
    #[inline]
    pub fn draw(&self, random: u64) -> usize {
        // One number in [0, n): its whole part is the slot, its fraction the coin. (A sequence that is spread evenly
        // over 64 bits is so over the weights, which turns rely on.)
        let place = u128::from(random) * self.slots.len() as u128;
        let index = (place >> 64) as usize;
        let coin = (place >> 32) as u32;
        let slot = self.slots[index];
        if coin < slot.threshold || slot.threshold == u32::MAX { index } else { slot.alias as usize }
    }
}

/// The index below `n` that the upper 32 of 64 random bits select.
#[inline]
pub fn uniform(random: u64, n: usize) -> usize {
    (((random >> 32) * n as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_weights_need_no_table() {
        assert!(AliasTable::new(&[2.0, 2.0]).is_none());
        assert!(AliasTable::new(&[]).is_none());
        assert!(AliasTable::new(&[0.0, 0.0]).is_none());
    }

    /// The probability of each index, computed from the table itself.
    fn probabilities(table: &AliasTable) -> Vec<f64> {
        let n = table.slots.len();
        let mut p = vec![0.0; n];
        for (i, slot) in table.slots.iter().enumerate() {
            let keep = if slot.threshold == u32::MAX { 1.0 } else { f64::from(slot.threshold) / 2f64.powi(32) };
            p[i] += keep / n as f64;
            p[slot.alias as usize] += (1.0 - keep) / n as f64;
        }
        p
    }

    proptest! {
        #[test]
        fn draws_follow_the_weights(weights in prop::collection::vec(prop_oneof![Just(0.0), 0.01f64..100.0], 2..40)) {
            if let Some(table) = AliasTable::new(&weights) {
                let sum: f64 = weights.iter().sum();
                for (p, w) in probabilities(&table).iter().zip(&weights) {
                    prop_assert!((p - w / sum).abs() < 1e-6, "{p} for {w} of {sum}");
                }
                let mut rng = fastrand::Rng::with_seed(5);
                for _ in 0..200 {
                    prop_assert!(weights[table.draw(rng.u64(..))] > 0.0);
                }
            }
        }
    }
}
