//! A count over the last seconds, shared by threads without a lock.
//!
//! Used by the retry budget and by the error rates of localities. It never forgets an event early by more than one bucket:
//! callers choose whether a partly expired bucket counts.

use std::time::Duration;

use eastway_core::Timestamp;

use crate::sync::atomic::{AtomicU64, Ordering};

/// Events counted in `N` buckets of equal width.
///
/// Each bucket packs the number of its period and its count into one word, so that a bucket that comes round again is
/// cleared by the first who writes to it, with one compare-and-swap.
#[derive(Debug)]
pub struct Window<const N: usize> {
    width: u64,
    buckets: [AtomicU64; N],
}

const COUNT_BITS: u32 = 32;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

impl<const N: usize> Window<N> {
    /// An empty window whose buckets are `width` wide each.
    pub fn new(width: Duration) -> Self {
        let width = u64::try_from(width.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self { width, buckets: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Counts one event.
    pub fn record(&self, now: Timestamp) {
        self.add(now, 1);
    }

    /// Counts `events` events.
    pub fn add(&self, now: Timestamp, events: u32) {
        let period = self.period(now);
        let bucket = &self.buckets[(period % N as u64) as usize];
        let tag = (period & COUNT_MASK) << COUNT_BITS;
        // The count saturates instead of spilling into the period.
        let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let count = if word & !COUNT_MASK == tag { word & COUNT_MASK } else { 0 };
            Some(tag | (count + u64::from(events)).min(COUNT_MASK))
        });
    }

    /// Takes one event back that was counted in the current bucket; does nothing if that bucket is empty.
    pub fn take_back(&self, now: Timestamp) {
        let period = self.period(now);
        let tag = (period & COUNT_MASK) << COUNT_BITS;
        let _ = self.buckets[(period % N as u64) as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            (word & !COUNT_MASK == tag && word & COUNT_MASK > 0).then(|| word - 1)
        });
    }

    /// The events of the current bucket and of the `buckets - 1` before it (at most `N`).
    ///
    /// Later ones count too: another thread may have read the time after this one did, and what it took is taken.
    pub fn count(&self, now: Timestamp, buckets: usize) -> u64 {
        let period = self.period(now);
        self.buckets.iter().map(|bucket| Self::recent(bucket.load(Ordering::Relaxed), period, buckets)).sum()
    }

    /// The events of the bucket `word`, if it is of `period`, of a later one or of the `buckets - 1` before it.
    fn recent(word: u64, period: u64, buckets: usize) -> u64 {
        let age = (period as u32).wrapping_sub((word >> COUNT_BITS) as u32) as i32;
        // An untouched bucket may look recent, but it holds nothing.
        if age < buckets.min(N) as i32 { word & COUNT_MASK } else { 0 }
    }

    fn period(&self, now: Timestamp) -> u64 {
        now.as_nanos() / self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_expire_with_their_bucket_and_buckets_are_reused() {
        let window = Window::<4>::new(Duration::from_secs(1));
        for second in 0..4 {
            window.add(Timestamp::from_millis(second * 1000), 10);
        }
        assert_eq!(window.count(Timestamp::from_millis(3_500), 4), 40);
        assert_eq!(window.count(Timestamp::from_millis(3_500), 2), 20);
        assert_eq!(window.count(Timestamp::from_millis(4_000), 4), 30);
        window.record(Timestamp::from_millis(4_000));
        assert_eq!(window.count(Timestamp::from_millis(4_999), 4), 31);
        assert_eq!(window.count(Timestamp::from_millis(60_000), 4), 0);
    }

    #[test]
    fn what_a_thread_with_a_later_clock_counted_is_seen() {
        let window = Window::<4>::new(Duration::from_secs(1));
        window.record(Timestamp::from_millis(10_001));
        assert_eq!(window.count(Timestamp::from_millis(9_999), 2), 1);
        assert_eq!(window.count(Timestamp::from_millis(11_999), 2), 1);
        assert_eq!(window.count(Timestamp::from_millis(12_000), 2), 0);
    }

    #[test]
    fn an_event_taken_back_leaves_no_trace_and_nothing_underflows() {
        let window = Window::<2>::new(Duration::from_secs(1));
        let now = Timestamp::from_millis(100);
        window.record(now);
        window.take_back(now);
        window.take_back(now);
        assert_eq!(window.count(now, 2), 0);
    }

    #[test]
    fn counts_saturate() {
        let window = Window::<2>::new(Duration::from_secs(1));
        window.add(Timestamp::ZERO, u32::MAX);
        window.add(Timestamp::ZERO, u32::MAX);
        assert_eq!(window.count(Timestamp::ZERO, 2), u64::from(u32::MAX));
    }
}
