//! What threads share, under every interleaving of their accesses, or under very many: see [`crate::sync`].
//!
//! `make test` builds and runs them apart from the other tests. A failure prints its schedule, which `shuttle::replay` repeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use eastway_core::Timestamp;

use crate::breaker::ProbePermit;
use crate::budget::RetryBudget;
use crate::limits::Limit;
use crate::window::Window;

const NOW: Timestamp = Timestamp::from_millis(20_000);

/// What the tests count on the side; the checker does not see it.
#[derive(Clone, Debug, Default)]
struct Count(Arc<AtomicU32>);

impl Count {
    fn up(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn down(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Runs `work` in so many threads at once, and waits for them.
fn at_once(threads: usize, work: impl Fn(usize) + Clone + Send + Sync + 'static) {
    let spawn = |i| {
        let work = work.clone();
        shuttle::thread::spawn(move || work(i))
    };
    let running: Vec<_> = (0..threads).map(spawn).collect();
    running.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
}

#[test]
fn a_permit_has_one_holder_at_a_time_in_every_interleaving() {
    shuttle::check_dfs(
        || {
            let (permit, holders, takers) = (Arc::new(ProbePermit::default()), Count::default(), Count::default());
            let (shared, held, taken) = (Arc::clone(&permit), holders.clone(), takers.clone());
            at_once(3, move |_| {
                if shared.try_take() {
                    taken.up();
                    assert_eq!(held.up(), 1, "two holders");
                    assert!(shared.is_taken());
                    held.down();
                    shared.release();
                }
            });
            assert!(takers.get() >= 1 && !permit.is_taken(), "{} takers", takers.get());
        },
        None,
    );
}

#[test]
fn a_limit_is_never_exceeded_and_all_places_come_back_in_every_interleaving() {
    shuttle::check_dfs(
        || {
            let (limit, holders) = (Limit::new(1), Count::default());
            let (shared, held) = (Arc::clone(&limit), holders.clone());
            at_once(2, move |_| {
                if let Some(permit) = shared.try_acquire() {
                    assert_eq!(held.up(), 1, "more than there are");
                    assert_eq!(shared.taken(), 1);
                    held.down();
                    drop(permit);
                }
            });
            assert_eq!(limit.taken(), 0);
        },
        None,
    );
}

#[test]
fn many_threads_share_a_limit() {
    let test = || {
        let (limit, holders) = (Limit::new(2), Count::default());
        let (shared, held) = (Arc::clone(&limit), holders.clone());
        at_once(4, move |_| {
            for _ in 0..3 {
                let Some(permit) = shared.try_acquire() else { continue };
                assert!(held.up() <= 2 && shared.taken() <= 2, "more than there are");
                held.down();
                drop(permit);
            }
        });
        assert_eq!(limit.taken(), 0);
        assert!(limit.try_acquire().is_some());
    };
    shuttle::check_random(test, 2_000);
    shuttle::check_pct(test, 2_000, 3);
}

#[test]
fn a_window_loses_and_invents_no_event() {
    let test = || {
        let window = Arc::new(Window::<2>::new(Duration::from_secs(1)));
        // What the bucket held two seconds ago must go exactly once.
        window.add(Timestamp::from_millis(18_000), 7);
        let shared = Arc::clone(&window);
        at_once(3, move |i| {
            shared.record(NOW);
            if i == 0 {
                shared.take_back(NOW);
            }
        });
        assert_eq!(window.count(NOW, 2), 2);
    };
    shuttle::check_random(test, 2_000);
    shuttle::check_pct(test, 2_000, 3);
}

#[test]
fn threads_together_never_retry_more_than_the_budget() {
    let test = || {
        let (budget, granted) = (Arc::new(RetryBudget::new(0.5, 0)), Count::default());
        (0..4).for_each(|_| budget.record_first(NOW));
        let (shared, grants) = (Arc::clone(&budget), granted.clone());
        at_once(3, move |i| {
            for second in 0..2 {
                let now = NOW + Duration::from_secs(i as u64 * second);
                if shared.try_retry(now) {
                    grants.up();
                }
            }
        });
        let last = NOW + Duration::from_secs(2);
        assert!(granted.get() <= 2, "{} of 2", granted.get());
        assert_eq!(budget.used(last), u64::from(granted.get()), "a refused retry leaves no trace");
    };
    shuttle::check_random(test, 3_000);
    shuttle::check_pct(test, 3_000, 3);
}
