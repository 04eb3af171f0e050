//! The process's clock, the only source of [`Timestamp`]s outside tests.
//!
//! It is monotonic: setting the wall clock back or forth changes nothing that is decided by it. It reads tokio's clock, so
//! that a test with paused time moves it.

use std::sync::LazyLock;

use eastway_core::Timestamp;
use tokio::time::Instant;

/// The origin of the process's time line: when the clock was first read.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time since the process first read its clock.
pub fn now() -> Timestamp {
    let origin = *ORIGIN;
    let passed = Instant::now().saturating_duration_since(origin);
    Timestamp::ZERO + passed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn paused_time_moves_the_clock() {
        let before = now();
        assert_eq!(now(), before);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(now() - before, Duration::from_secs(3));
    }
}
