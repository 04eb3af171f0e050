//! Connection ids whose first byte says which socket of the port a packet belongs to.
//!
//! Ids that an endpoint issues start with its shard. The id that a client invents for its first packets starts with 0 for
//! a control connection and with anything else for a data connection, which the server's steering spreads over its
//! workers. The other bytes are random: ids must not be guessable.

use std::sync::Arc;

use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::InvalidCid;

use crate::tunnel::Kind;

/// Issues the ids of one endpoint.
#[derive(Debug)]
pub(super) struct ShardedIds {
    shard: u8,
}

impl ShardedIds {
    pub(super) const fn new(shard: u8) -> Self {
        Self { shard }
    }
}

impl ConnectionIdGenerator for ShardedIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id: [u8; ISSUED_LEN] = random();
        id[0] = self.shard;
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        if id.len() == ISSUED_LEN && id[0] == self.shard { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        ISSUED_LEN
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// Invents the destination ids of a client's first packets.
pub(super) fn initial_ids(kind: Kind) -> Arc<dyn Fn() -> ConnectionId + Send + Sync> {
    Arc::new(move || {
        let mut id: [u8; INITIAL_LEN] = random();
        id[0] = match kind {
            Kind::Control => 0,
            Kind::Data => id[0].max(1),
        };
        ConnectionId::new(&id)
    })
}

/// What kind of connection a client wants, by the first destination id that it sent.
pub(super) fn kind_of(initial: &ConnectionId) -> Kind {
    if initial.first() == Some(&0) { Kind::Control } else { Kind::Data }
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = eastway_identity::provider().secure_random.fill(&mut bytes);
    filled.expect("the operating system's random source does not fail once it is seeded");
    bytes
}

/// Length of the ids that an endpoint issues.
const ISSUED_LEN: usize = 8;
/// Length of the ids that a client invents; QUIC wants at least 8 unpredictable bytes.
const INITIAL_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issued_ids_carry_the_shard_and_are_recognised_by_it_alone() {
        for shard in [0, 1, 7, 255] {
            let mut ids = ShardedIds::new(shard);
            let (first, second) = (ids.generate_cid(), ids.generate_cid());
            assert_eq!((first[0], first.len()), (shard, ids.cid_len()));
            assert_ne!(first, second);
            assert!(ids.validate(&first).is_ok());
            assert!(ShardedIds::new(shard.wrapping_add(1)).validate(&first).is_err());
        }
    }

    #[test]
    fn initial_ids_tell_the_kind() {
        for kind in [Kind::Control, Kind::Data] {
            let invent = initial_ids(kind);
            for _ in 0..600 {
                let id = invent();
                assert_eq!(kind_of(&id), kind);
                assert!(id.len() >= 8);
            }
        }
    }
}
