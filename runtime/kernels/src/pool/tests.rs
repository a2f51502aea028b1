use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::ThreadPool;

#[test]
fn every_task_runs_once() {
    for threads in [1, 2, 5] {
        let pool = ThreadPool::new(threads);
        assert_eq!(pool.threads(), threads);
        for n_tasks in [0, 1, 2, 7, 300] {
            let runs: Vec<AtomicUsize> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.par_for(n_tasks, |task| {
                runs[task].fetch_add(1, SeqCst);
            });
            assert!(runs.iter().all(|runs| runs.load(SeqCst) == 1), "{threads} threads, {n_tasks} tasks");
        }
    }
}

#[test]
fn many_short_jobs_in_a_row_lose_nothing() {
    let pool = ThreadPool::new(4);
    let total = AtomicUsize::new(0);
    for _ in 0..20_000 {
        pool.par_for(5, |task| {
            total.fetch_add(task, SeqCst);
        });
    }
    assert_eq!(total.load(SeqCst), 20_000 * 10);
}

#[test]
fn parked_workers_wake_again() {
    let pool = ThreadPool::new(3);
    for _ in 0..20 {
        let seen = AtomicUsize::new(0);
        pool.par_for(8, |_| {
            seen.fetch_add(1, SeqCst);
        });
        assert_eq!(seen.load(SeqCst), 8);
        let parked_by = Instant::now() + Duration::from_secs(10);
        while pool.shared.sleepers.load(SeqCst) < 2 {
            assert!(Instant::now() < parked_by, "idle workers park");
            std::thread::yield_now();
        }
    }
}

#[test]
fn callers_of_several_threads_take_turns() {
    let pool = ThreadPool::new(3);
    let total = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..500 {
                    pool.par_for(6, |_| {
                        total.fetch_add(1, SeqCst);
                    });
                }
            });
        }
    });
    assert_eq!(total.load(SeqCst), 3 * 500 * 6);
}

#[test]
fn a_panic_in_a_task_reaches_the_caller_and_the_pool_lives_on() {
    let pool = ThreadPool::new(2);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        pool.par_for(4, |task| assert_ne!(task, 2, "task two fails"));
    }));
    assert!(panicked.is_err());
    let ran = AtomicUsize::new(0);
    pool.par_for(4, |_| {
        ran.fetch_add(1, SeqCst);
    });
    assert_eq!(ran.load(SeqCst), 4);
}
