//! The receiving end of one stream of a peer's statements.
//!
//! For: telling a whole snapshot from half a one, and a complete stream from one with holes, before anything reaches
//! the catalogue. One reader per stream; when it fails, the stream is closed and opened anew. Of peers they are about
//! services, of siblings about endpoints. Never: deciding which of two streams is right; versions do that
//! ([`crate::Mirror`]). Called by peering (`federation/server`).

use std::collections::BTreeMap;

use eastway_core::{ServiceName, Version};

use crate::peers::Exported;

/// One message of the stream, after the welcome.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement<K = ServiceName, V = Exported> {
    /// A service is exported so; or of a sibling: an endpoint does so.
    Service(K, V),
    /// It is no longer stated.
    Removed(K),
    /// The snapshot is whole; it had this many entries.
    SnapshotEnd(usize),
    /// Sign of life, with the version of the stream's last statement.
    Heartbeat,
    /// The gateway is about to stop.
    GoAway,
}

/// What a stream has established.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact<K: Ord = ServiceName, V = Exported> {
    /// Everything that was stated at the version.
    Snapshot(Version, BTreeMap<K, V>),
    /// One entry changed (`None`: is no longer stated).
    Change(Version, K, Option<V>),
    /// The gateway lives.
    Alive,
    /// The gateway is about to stop.
    GoAway,
}

/// Why a stream cannot be believed any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// The epoch changed within the stream, or a version went backwards.
    #[error("version {found:?} after {last:?} on one stream")]
    Regressed {
        /// The last version.
        last: Version,
        /// The one that followed.
        found: Version,
    },
    /// Services are missing from the snapshot, or it has too many.
    #[error("the snapshot ended after {received} services, but states {stated}")]
    HalfSnapshot {
        /// How many came.
        received: usize,
        /// How many there should be.
        stated: usize,
    },
    /// The heartbeat speaks of a statement that never came.
    #[error("statements up to {stated:?} were sent, but the last received is {last:?}")]
    Lost {
        /// The last version received.
        last: Version,
        /// The one that the heartbeat states.
        stated: Version,
    },
    /// A message at the wrong place.
    #[error("{0} is not expected here")]
    Unexpected(&'static str),
    /// More services than are accepted from one peer.
    #[error("more than {0} services are exported to this cluster")]
    TooMany(usize),
}

/// Reads one stream.
#[derive(Clone, Debug)]
pub struct Reader<K = ServiceName, V = Exported> {
    /// The version of the last statement.
    last: Version,
    /// The entries so far, while the snapshot is being sent.
    snapshot: Option<BTreeMap<K, V>>,
    limit: usize,
}

impl<K: Ord, V> Reader<K, V> {
    /// A reader of a stream whose welcome bore `version`, accepting at most `limit` entries.
    pub const fn new(version: Version, limit: usize) -> Self {
        Self { last: version, snapshot: Some(BTreeMap::new()), limit }
    }

    /// Takes the next message.
    ///
    /// # Errors
    /// When the stream cannot be believed any further: close it.
    pub fn read(&mut self, version: Version, statement: Statement<K, V>) -> Result<Option<Fact<K, V>>, SyncError> {
        match statement {
            Statement::Heartbeat if version != self.last => {
                return Err(SyncError::Lost { last: self.last, stated: version });
            }
            Statement::Heartbeat => return Ok(Some(Fact::Alive)),
            Statement::GoAway => return Ok(Some(Fact::GoAway)),
            _ => {}
        }
        if version.epoch != self.last.epoch || version < self.last {
            return Err(SyncError::Regressed { last: self.last, found: version });
        }
        match &mut self.snapshot {
            Some(services) if version != self.last => {
                let received = services.len();
                Err(SyncError::HalfSnapshot { received, stated: received + 1 })
            }
            Some(_) => self.in_snapshot(statement),
            None => self.after_snapshot(version, statement),
        }
    }

    /// Whether the snapshot is whole.
    pub const fn is_live(&self) -> bool {
        self.snapshot.is_none()
    }

    fn in_snapshot(&mut self, statement: Statement<K, V>) -> Result<Option<Fact<K, V>>, SyncError> {
        let services = self.snapshot.get_or_insert_default();
        match statement {
            Statement::Service(..) if services.len() >= self.limit => Err(SyncError::TooMany(self.limit)),
            Statement::Service(name, exported) => match services.insert(name, exported) {
                None => Ok(None),
                Some(_) => Err(SyncError::Unexpected("a service twice in one snapshot")),
            },
            Statement::SnapshotEnd(stated) if services.len() != stated => {
                Err(SyncError::HalfSnapshot { received: services.len(), stated })
            }
            Statement::SnapshotEnd(_) => {
                let services = std::mem::take(services);
                self.snapshot = None;
                Ok(Some(Fact::Snapshot(self.last, services)))
            }
            _ => Err(SyncError::Unexpected("a change before the end of the snapshot")),
        }
    }

    fn after_snapshot(
        &mut self,
        version: Version,
        statement: Statement<K, V>,
    ) -> Result<Option<Fact<K, V>>, SyncError> {
        let (name, exported) = match statement {
            Statement::Service(name, exported) => (name, Some(exported)),
            Statement::Removed(name) => (name, None),
            _ => return Err(SyncError::Unexpected("a second end of the snapshot")),
        };
        self.last = version;
        Ok(Some(Fact::Change(version, name, exported)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> ServiceName {
        ServiceName::new("shop", name)
    }

    fn whole() -> Reader {
        let mut reader = Reader::new(Version::new(1, 4), 10);
        let exported = Statement::Service(service("a"), Exported::default());
        assert_eq!(reader.read(Version::new(1, 4), exported), Ok(None));
        let fact = reader.read(Version::new(1, 4), Statement::SnapshotEnd(1));
        assert!(matches!(fact, Ok(Some(Fact::Snapshot(version, services))) if version.seq == 4 && services.len() == 1));
        reader
    }

    #[test]
    fn a_half_sent_snapshot_is_never_taken_for_a_whole_one() {
        let mut reader = Reader::new(Version::new(1, 4), 10);
        let exported = Statement::Service(service("a"), Exported::default());
        assert_eq!(reader.read(Version::new(1, 4), exported), Ok(None));
        assert!(!reader.is_live());
        let end = reader.read(Version::new(1, 4), Statement::SnapshotEnd(2));
        assert_eq!(end, Err(SyncError::HalfSnapshot { received: 1, stated: 2 }));
    }

    #[test]
    fn changes_follow_the_snapshot() {
        let mut reader = whole();
        let fact = reader.read(Version::new(1, 6), Statement::Removed(service("a")));
        assert_eq!(fact, Ok(Some(Fact::Change(Version::new(1, 6), service("a"), None))));
        assert_eq!(reader.read(Version::new(1, 6), Statement::Heartbeat), Ok(Some(Fact::Alive)));
    }

    #[test]
    fn a_lost_statement_is_noticed_by_the_heartbeat() {
        let mut reader = whole();
        let error = reader.read(Version::new(1, 5), Statement::Heartbeat);
        assert_eq!(error, Err(SyncError::Lost { last: Version::new(1, 4), stated: Version::new(1, 5) }));
    }

    #[test]
    fn neither_epoch_nor_sequence_moves_wrongly_within_a_stream() {
        for version in [Version::new(2, 9), Version::new(0, 9), Version::new(1, 3)] {
            let error = whole().read(version, Statement::Removed(service("a")));
            assert!(matches!(error, Err(SyncError::Regressed { .. })), "{version:?}");
        }
    }

    #[test]
    fn misplaced_and_excessive_messages_are_refused() {
        let mut reader: Reader = Reader::new(Version::new(1, 0), 1);
        assert!(reader.read(Version::new(1, 0), Statement::Removed(service("a"))).is_err());
        assert!(whole().read(Version::new(1, 5), Statement::SnapshotEnd(0)).is_err());
        let mut reader: Reader = Reader::new(Version::new(1, 0), 1);
        let exported = |name| Statement::Service(service(name), Exported::default());
        assert_eq!(reader.read(Version::new(1, 0), exported("a")), Ok(None));
        assert_eq!(reader.read(Version::new(1, 0), exported("b")), Err(SyncError::TooMany(1)));
    }
}
