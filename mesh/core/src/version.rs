//! Versions of facts: who said it, in which life, and how late in it.

use serde::{Deserialize, Serialize};

/// The version of a gateway's statement: its epoch (one for each life of the gateway's process) and a sequence number.
///
/// Within one `(cluster_uid, gateway)` a higher epoch always supersedes a lower one, and starts with a full snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Grows with each start of the gateway; kept in its state, so that a clock set back does not lower it.
    pub epoch: u64,
    /// Grows with each change within an epoch; a snapshot bears the number of the last change that is in it.
    pub seq: u64,
}

impl Version {
    /// Version `seq` of epoch `epoch`.
    pub const fn new(epoch: u64, seq: u64) -> Self {
        Self { epoch, seq }
    }

    /// Whether `next` follows directly: the next number of the same epoch.
    pub const fn is_followed_by(self, next: Self) -> bool {
        self.epoch == next.epoch && next.seq == self.seq + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_outrank_sequence_numbers() {
        assert!(Version::new(2, 0) > Version::new(1, 900));
        assert!(Version::new(1, 3).is_followed_by(Version::new(1, 4)));
        assert!(!Version::new(1, 3).is_followed_by(Version::new(1, 5)));
        assert!(!Version::new(1, 3).is_followed_by(Version::new(2, 0)));
    }
}
