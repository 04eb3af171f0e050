//! The network: hosts that reach one another or not, and streams that deliver in order or break.

use std::collections::{BTreeMap, VecDeque};

use crate::world::names::Host;
use crate::world::statements::Said;

/// Names a stream.
pub(crate) type ConnectionId = u64;

/// Which end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum End {
    /// Who opened it.
    Opener,
    /// Who accepted it.
    Acceptor,
}

impl End {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Opener => Self::Acceptor,
            Self::Acceptor => Self::Opener,
        }
    }
}

/// An actor: a process of a gateway, or a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Actor {
    Gateway(usize),
    Sidecar(usize),
}

/// A stream between two actors.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) ends: [Actor; 2],
    pub(crate) hosts: [Host; 2],
    /// On the way to each end.
    pub(crate) waiting: [VecDeque<(u64, Said)>; 2],
    pub(crate) is_closed: bool,
    /// The next statement to the opener is lost, without the stream breaking: it delivers nothing that follows but signs of
    /// life, as a reliable stream that lost its end.
    pub(crate) loses_one: bool,
    pub(crate) has_hole: bool,
}

impl Connection {
    pub(crate) const fn actor(&self, end: End) -> Actor {
        self.ends[end as usize]
    }

    pub(crate) const fn host(&self, end: End) -> Host {
        self.hosts[end as usize]
    }
}

/// What is between the hosts.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) connections: BTreeMap<ConnectionId, Connection>,
    /// Until when nothing comes through, from one host to another.
    blocked: BTreeMap<(Host, Host), u64>,
    next: ConnectionId,
}

impl Network {
    /// Whether what one host sends to another comes through.
    pub(crate) fn passes(&self, from: Host, to: Host, now: u64) -> bool {
        self.blocked.get(&(from, to)).is_none_or(|until| *until <= now)
    }

    /// Whether two hosts reach one another.
    pub(crate) fn reaches(&self, a: Host, b: Host, now: u64) -> bool {
        self.passes(a, b, now) && self.passes(b, a, now)
    }

    /// Nothing comes through from one host to another until then.
    pub(crate) fn block(&mut self, from: Host, to: Host, until: u64) {
        let end = self.blocked.entry((from, to)).or_default();
        *end = until.max(*end);
    }

    /// Everything comes through.
    pub(crate) fn heal(&mut self) {
        self.blocked.clear();
    }

    /// A new stream.
    pub(crate) fn open(&mut self, ends: [Actor; 2], hosts: [Host; 2]) -> ConnectionId {
        self.next += 1;
        let waiting = [VecDeque::new(), VecDeque::new()];
        let connection = Connection { ends, hosts, waiting, is_closed: false, loses_one: false, has_hole: false };
        self.connections.insert(self.next, connection);
        self.next
    }
}
