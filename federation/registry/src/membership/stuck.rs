//! Slices that the store refuses although it answers: too large, or forbidden. Each is tried again after a pause of its own,
//! so that one which can never be written delays none of the others.

use std::collections::BTreeMap;
use std::time::Duration;

use eastway_core::Timestamp;

use super::{RETRY, RETRY_MAX, SliceName};

/// The refused slices, with when each is tried again and the pause before that.
#[derive(Clone, Debug, Default)]
pub(super) struct Stuck(BTreeMap<SliceName, (Timestamp, Duration)>);

impl Stuck {
    /// The store refused it: it waits twice as long as before.
    pub(super) fn refused(&mut self, slice: SliceName, now: Timestamp) {
        let pause = self.0.get(&slice).map_or(RETRY, |(_, pause)| (*pause * 2).min(RETRY_MAX));
        self.0.insert(slice, (now + pause, pause));
    }

    /// The store took it.
    pub(super) fn written(&mut self, slice: &SliceName) {
        self.0.remove(slice);
    }

    /// When the next is to be tried again.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.values().map(|(due, _)| *due).min()
    }

    /// Those that are to be tried again now. Until their end is told, they wait no more than before.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<SliceName> {
        let due: Vec<_> = self.0.iter().filter(|(_, (due, _))| *due <= now).map(|(slice, _)| slice.clone()).collect();
        for slice in &due {
            if let Some((next, pause)) = self.0.get_mut(slice) {
                *next = now + *pause;
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use eastway_core::ServiceName;

    use super::*;

    #[test]
    fn each_refused_slice_has_a_pause_of_its_own() {
        let (mut stuck, start) = (Stuck::default(), Timestamp::ZERO);
        let slice = |index| (ServiceName::new("shop", "payments"), index);
        for _ in 0..10 {
            stuck.refused(slice(0), start);
        }
        stuck.refused(slice(1), start);
        assert_eq!(stuck.next(), Some(start + RETRY), "the one that was refused often delays nobody else");
        assert_eq!(stuck.due(start + RETRY), [slice(1)]);
        assert_eq!(stuck.due(start + RETRY_MAX), [slice(0), slice(1)]);
        stuck.written(&slice(1));
        stuck.written(&slice(0));
        assert_eq!(stuck.next(), None);
    }
}
