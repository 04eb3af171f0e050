use super::*;

fn local<F: Future<Output = ()>>(future: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing");
    tokio::task::LocalSet::new().block_on(&runtime, future);
}

#[test]
fn a_deadline_fires_late_by_at_most_a_period_and_never_early() {
    local(async {
        let sweeper = Sweeper::new();
        for millis in [1, 30, 100, 333] {
            let start = Instant::now();
            sweeper.after(Duration::from_millis(millis)).await;
            let took = start.elapsed();
            assert!(took >= Duration::from_millis(millis), "{millis} ms fired after {took:?}");
            assert!(took <= Duration::from_millis(millis) + 2 * PERIOD, "{millis} ms fired after {took:?}");
        }
        assert_eq!(sweeper.live(), 0);
    });
}

#[test]
fn touching_puts_an_idle_limit_off() {
    local(async {
        let sweeper = Sweeper::new();
        let mut idle = sweeper.after(Duration::from_millis(200));
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            idle.touch();
            assert!(!idle.is_expired());
        }
        let start = Instant::now();
        (&mut idle).await;
        assert!(start.elapsed() >= Duration::from_millis(200));
        idle.reset(Duration::from_millis(50));
        assert!(!idle.is_expired());
        idle.await;
    });
}

#[test]
fn what_ends_in_time_disarms_its_deadline() {
    local(async {
        let sweeper = Sweeper::new();
        let quick = sweeper.within(Duration::from_secs(1), async { 7 }).await;
        let slow = sweeper.within(Duration::from_secs(1), std::future::pending::<()>()).await;
        assert_eq!((quick, slow), (Ok(7), Err(Elapsed)));
        assert_eq!(sweeper.live(), 0);
    });
}

#[test]
fn cells_are_used_again() {
    local(async {
        let sweeper = Sweeper::new();
        for _ in 0..100 {
            let first = sweeper.after(Duration::from_secs(1));
            let second = sweeper.after(Duration::MAX);
            drop((first, second));
        }
        assert_eq!(sweeper.0.cells.borrow().slots.len(), 2);
    });
}

#[test]
fn the_task_ends_with_the_last_handle() {
    local(async {
        let sweeper = Sweeper::new();
        let deadline = sweeper.after(Duration::from_secs(9));
        let notify = Rc::downgrade(&sweeper.0.notify);
        drop(sweeper);
        tokio::time::sleep(PERIOD * 2).await;
        assert!(notify.upgrade().is_some(), "a deadline keeps it");
        drop(deadline);
        tokio::time::sleep(PERIOD * 2).await;
        assert!(notify.upgrade().is_none(), "the task held the last reference");
    });
}
