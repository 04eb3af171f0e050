//! Apportionment: turning parts into whole numbers that sum exactly, and the locality table that a pick reads.

/// Divides `total` units by `parts` (not negative), by largest remainder; equal remainders go to the earlier part.
///
/// All zeros if no part is positive.
pub fn apportion(parts: &[f64], total: u32) -> Vec<u32> {
    let sum: f64 = parts.iter().sum();
    if sum <= 0.0 || !sum.is_finite() {
        return vec![0; parts.len()];
    }
    let exact: Vec<f64> = parts.iter().map(|part| part / sum * f64::from(total)).collect();
    let mut units: Vec<u32> = exact.iter().map(|e| *e as u32).collect();
    let mut left = total.saturating_sub(units.iter().sum());
    let mut order: Vec<usize> = (0..parts.len()).filter(|i| parts[*i] > 0.0).collect();
    // Remainders are compared coarsely, so that noise in the last bits does not reorder equal parts.
    let remainder = |i: usize| ((exact[i] - f64::from(units[i])) * 1e9).round() as i64;
    order.sort_by_key(|i| (-remainder(*i), *i));
    for i in order.into_iter().cycle() {
        if left == 0 {
            break;
        }
        units[i] += 1;
        left -= 1;
    }
    units
}

/// How a slot of the locality table is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum HealthBand {
    /// By the locality's healthy endpoints.
    Healthy = 0,
    /// By its degraded ones.
    Degraded = 1,
    /// By any without a hard mark.
    Panic = 2,
}

/// Slots of the locality table.
pub const SLOTS: usize = 1024;

const NONE: u16 = u16::MAX;
const MODE_BITS: u16 = 2;

/// 1,024 slots, each naming a locality and how it serves; a random slot is a locality by share.
#[derive(Clone, PartialEq, Eq)]
pub struct LocalityTable {
    slots: [u16; SLOTS],
}

impl LocalityTable {
    /// The table of `bins`, each a locality, a mode and a share. Localities beyond 16,382 are not addressed.
    pub fn new(bins: &[(usize, HealthBand, u32)]) -> Self {
        let parts: Vec<f64> = bins.iter().map(|(_, _, share)| f64::from(*share)).collect();
        let mut slots = [NONE; SLOTS];
        let mut free = slots.iter_mut();
        for ((locality, mode, _), count) in bins.iter().zip(apportion(&parts, SLOTS as u32)) {
            let Ok(locality) = u16::try_from(*locality).map(|locality| locality.min(NONE >> MODE_BITS)) else {
                continue;
            };
            let slot = locality << MODE_BITS | *mode as u16;
            free.by_ref().take(count as usize).for_each(|free| *free = slot);
        }
        Self { slots }
    }

    /// The locality and mode in the slot that `random` selects; `None` if no locality has a share.
    #[inline]
    pub fn get(&self, random: u32) -> Option<(usize, HealthBand)> {
        let slot = self.slots[random as usize % SLOTS];
        if slot == NONE {
            return None;
        }
        let mode = match slot & 3 {
            0 => HealthBand::Healthy,
            1 => HealthBand::Degraded,
            _ => HealthBand::Panic,
        };
        Some((usize::from(slot >> MODE_BITS), mode))
    }

    /// How many slots a locality has.
    pub fn slots_of(&self, locality: usize) -> usize {
        self.slots.iter().filter(|slot| **slot != NONE && usize::from(**slot >> MODE_BITS) == locality).count()
    }
}

impl std::fmt::Debug for LocalityTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let localities = self.slots.iter().filter(|slot| **slot != NONE).map(|slot| slot >> MODE_BITS).max();
        let counts: Vec<usize> = (0..localities.map_or(0, |l| usize::from(l) + 1)).map(|l| self.slots_of(l)).collect();
        f.debug_struct("LocalityTable").field("slots", &counts).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_without_a_sum_get_nothing() {
        for parts in [[0.0, 0.0], [f64::INFINITY, 1.0], [f64::NAN, 1.0]] {
            assert_eq!(apportion(&parts, 10), [0, 0], "{parts:?}");
        }
        assert!(apportion(&[], 10).is_empty());
    }

    #[test]
    fn equal_parts_differ_by_the_order_only() {
        assert_eq!(apportion(&[1.0, 1.0, 1.0], 10_000), [3334, 3333, 3333]);
        assert_eq!(apportion(&[0.0, 0.0], 10), [0, 0]);
        assert_eq!(apportion(&[], 10), Vec::<u32>::new());
    }

    #[test]
    fn slots_follow_shares() {
        let table = LocalityTable::new(&[
            (0, HealthBand::Healthy, 9_800),
            (1, HealthBand::Healthy, 100),
            (1, HealthBand::Degraded, 100),
        ]);
        assert_eq!((table.slots_of(0), table.slots_of(1)), (1004, 20));
        assert_eq!(LocalityTable::new(&[(0, HealthBand::Healthy, 0)]).get(7), None);
        assert_eq!(LocalityTable::new(&[(3, HealthBand::Panic, 1)]).get(7), Some((3, HealthBand::Panic)));
    }

    proptest! {
        #[test]
        fn units_sum_up_and_stray_from_the_exact_part_by_less_than_one(
            parts in prop::collection::vec(prop_oneof![Just(0.0), 0.001f64..1e6], 1..20),
            total in 1u32..20_000,
        ) {
            let units = apportion(&parts, total);
            let sum: f64 = parts.iter().sum();
            prop_assert_eq!(units.iter().sum::<u32>(), if sum > 0.0 { total } else { 0 });
            for (part, unit) in parts.iter().zip(&units) {
                let exact = if sum > 0.0 { part / sum * f64::from(total) } else { 0.0 };
                prop_assert!((f64::from(*unit) - exact).abs() < 1.0 + 1e-6);
                prop_assert!(*part > 0.0 || *unit == 0);
            }
        }
    }
}
