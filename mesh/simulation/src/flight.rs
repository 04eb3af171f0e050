//! Attempts under way: what the network, the queue and the drivers say of one.

use std::time::Duration;

use eastway_core::{LoadReport, Timestamp};

/// An attempt under way. Old ids of a reused place are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlightId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl FlightId {
    /// Its place, below the greatest number of flights at once.
    pub(crate) fn index(self) -> usize {
        self.index as usize
    }
}

/// One attempt of one request on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    /// The driver's own number of the request.
    pub(crate) request: usize,
    /// Where it goes.
    pub(crate) server: usize,
    /// It opened its connection itself.
    pub(crate) fresh: bool,
    /// The life of the endpoint that its connection belongs to.
    pub(crate) incarnation: u64,
    pub(crate) one_way: Duration,
    /// The request's number in order of arrival, and the attempt's.
    pub(crate) work: (u64, u64),
    pub(crate) stage: Stage,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Coming,
    There,
    Answered,
}

/// How an attempt ended, as its caller sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// A response, and the load that came with it.
    Answer { ok: bool, load: LoadReport },
    /// No connection: refused.
    Refused,
    /// No connection in time.
    ConnectTimeout,
    /// The connection broke.
    Reset,
    /// The host answered nothing any more.
    Unresponsive,
    /// No response in time.
    Deadline,
}

/// Where an attempt goes, and for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trip {
    pub(crate) request: usize,
    pub(crate) server: usize,
    pub(crate) one_way: Duration,
    pub(crate) work: (u64, u64),
    pub(crate) deadline: Timestamp,
}
