//! The clock of discovery: tokio's, so that tests can pause it, on a time line that starts when it is made.

use eastway_core::Timestamp;
use tokio::time::Instant;

/// A time line. Its timestamps mean nothing to other clocks: between parts, only durations travel.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

/// Where the time line starts, so that instants before the clock was made can be told apart (ages of half an hour).
const HEAD_START: Timestamp = Timestamp::from_millis(3_600_000);

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        HEAD_START + self.origin.elapsed()
    }
}
