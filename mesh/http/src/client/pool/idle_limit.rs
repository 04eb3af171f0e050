//! How long an upstream lets a connection be idle, learned from when it closes them.
//!
//! A request that is sent as the upstream closes is lost, and may not be repeated if it changes something. So a connection
//! is not used any more shortly before its upstream would close it.

use std::time::Duration;

/// A connection of which nothing is known may be idle for so long before a request that may not be repeated.
const UNPROVEN: Duration = Duration::from_secs(1);

/// What is known of one upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct IdleLimit(Option<Duration>);

impl IdleLimit {
    /// The upstream closed a connection that had been idle for `age`.
    pub(super) fn closed(&mut self, age: Duration) {
        self.0 = Some(age);
    }

    /// Whether a connection that has been idle for `age`, and lives, can be used. Its living may show that what was learned
    /// came from something else: a restart closes all, however young.
    pub(super) fn allows(&mut self, age: Duration, repeatable: bool) -> bool {
        if self.0.is_some_and(|limit| age > limit + limit / 4) {
            self.0 = None;
        }
        match self.0 {
            Some(limit) => age < limit - limit / 4,
            None => repeatable || age < UNPROVEN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_changes_something_is_not_sent_over_what_was_idle_for_long() {
        let mut limit = IdleLimit::default();
        assert!(limit.allows(ms(900), false) && !limit.allows(ms(1_100), false));
        assert!(limit.allows(ms(50_000), true));
    }

    #[test]
    fn nothing_is_sent_when_the_upstream_is_about_to_close() {
        let mut limit = IdleLimit::default();
        limit.closed(ms(50));
        for repeatable in [true, false] {
            assert!(limit.allows(ms(30), repeatable));
            assert!(!limit.allows(ms(49), repeatable));
        }
    }

    #[test]
    fn a_connection_that_outlives_the_limit_refutes_it() {
        let mut limit = IdleLimit::default();
        limit.closed(ms(2));
        assert!(!limit.allows(ms(2), true));
        assert!(limit.allows(ms(3), true));
        assert_eq!(limit, IdleLimit::default());
    }
}
