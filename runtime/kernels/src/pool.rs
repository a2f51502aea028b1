//! One pool of threads for all kernels: `par_for` runs numbered tasks and returns when all are done.
//!
//! Which numbers exist and what each means is the caller's fixed partition; which thread takes a number is free,
//! so results never depend on it. Idle workers spin for some microseconds, since the next call of a forward pass
//! follows at once, and then park: an idle model uses no CPU.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Rounds of spinning before a thread parks, some tens of microseconds.
const SPINS: u32 = 600;

/// A fixed set of threads; the one that calls [`ThreadPool::par_for`] is one of them.
#[derive(Debug)]
pub(crate) struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held for the whole of a `par_for`: one job at a time.
    caller: Mutex<()>,
}

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// A [`Ticket`] is claimed by one compare-and-swap, so a worker that wakes late can never touch a finished job:
/// its ticket is of an older job and the swap fails. A claimed ticket keeps its job alive, because the caller
/// waits until as many tasks are done as there are.
#[derive(Debug, Default)]
struct Shared {
    ticket: AtomicU64,
    task: Mutex<Option<TaskPointer>>,
    done: AtomicUsize,
    stop: AtomicBool,
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: AtomicUsize,
    asleep: Mutex<()>,
    wake: Condvar,
    caller_waits: AtomicBool,
    finished: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct TaskPointer(*const Task<'static>);

// SAFETY: the pointer is to a `Sync` closure, and only threads that hold a ticket of its job follow it.
unsafe impl Send for TaskPointer {}

/// A job's number, how many tasks it has, and the next one to be taken, in one word.
#[derive(Clone, Copy)]
struct Ticket {
    job: u32,
    n_tasks: u16,
    next: u16,
}

impl Ticket {
    fn pack(self) -> u64 {
        u64::from(self.job) << 32 | u64::from(self.n_tasks) << 16 | u64::from(self.next)
    }

    fn unpack(word: u64) -> Self {
        Self { job: (word >> 32) as u32, n_tasks: (word >> 16) as u16, next: word as u16 }
    }
}

impl ThreadPool {
    /// A pool of `n` threads, at least one: the caller's and `n - 1` workers.
    ///
    /// # Panics
    /// Where the system refuses to start a thread.
    #[must_use]
    pub(crate) fn new(n: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let workers = (1..n)
            .map(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("kernels-{index}"))
                    .spawn(move || shared.work())
                    .expect("the system can start the few threads of the pool")
            })
            .collect();
        Self { shared, workers, caller: Mutex::new(()) }
    }

    /// How many threads work on a job.
    #[must_use]
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0)` to `task(n_tasks - 1)`, each once, and returns when all are done.
    ///
    /// # Panics
    /// Where a task does, after all others are done; or on more than 65,535 tasks.
    pub(crate) fn par_for(&self, n_tasks: usize, task: impl Fn(usize) + Sync) {
        if n_tasks <= 1 || self.workers.is_empty() {
            (0..n_tasks).for_each(task);
            return;
        }
        let n_tasks = u16::try_from(n_tasks).expect("callers cut work into a few tasks per thread");
        let _only = lock(&self.caller);
        self.shared.publish(&task, n_tasks);
        self.shared.take_tickets();
        self.shared.wait_until_done(usize::from(n_tasks));
        *lock(&self.shared.task) = None;
        let panicked = lock(&self.shared.panicked).take();
        if let Some(payload) = panicked {
            panic::resume_unwind(payload);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.wake_workers();
        for worker in self.workers.drain(..) {
            // A worker catches what its tasks throw, so this fails only if the process is already coming down.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn publish(&self, task: &Task<'_>, n_tasks: u16) {
        // SAFETY: only the lifetime changes. `par_for` returns, and so ends the borrow, only when all tasks are
        // done, and no thread follows the pointer without one of their tickets.
        let pointer = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) };
        *lock(&self.task) = Some(TaskPointer(pointer));
        self.done.store(0, SeqCst);
        let job = Ticket::unpack(self.ticket.load(SeqCst)).job.wrapping_add(1);
        self.ticket.store(Ticket { job, n_tasks, next: 0 }.pack(), SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            self.wake_workers();
        }
    }

    fn wake_workers(&self) {
        let _guard = lock(&self.asleep);
        self.wake.notify_all();
    }

    /// Claims the next task of the current job, if there is one.
    fn claim(&self) -> Option<Ticket> {
        let mut word = self.ticket.load(SeqCst);
        loop {
            let ticket = Ticket::unpack(word);
            if ticket.next >= ticket.n_tasks {
                return None;
            }
            let taken = Ticket { next: ticket.next + 1, ..ticket }.pack();
            match self.ticket.compare_exchange_weak(word, taken, SeqCst, SeqCst) {
                Ok(_) => return Some(ticket),
                Err(now) => word = now,
            }
        }
    }

    /// Does tasks until none is left to claim; says whether it did any.
    fn take_tickets(&self) -> bool {
        let mut did = false;
        while let Some(ticket) = self.claim() {
            did = true;
            let TaskPointer(task) = lock(&self.task).expect("a job with open tickets has its task");
            // SAFETY: this thread holds a ticket of the job, so the job's caller still waits and the task lives.
            let run = AssertUnwindSafe(|| unsafe { (*task)(usize::from(ticket.next)) });
            if let Err(payload) = panic::catch_unwind(run) {
                lock(&self.panicked).get_or_insert(payload);
            }
            let done = self.done.fetch_add(1, SeqCst) + 1;
            if done == usize::from(ticket.n_tasks) && self.caller_waits.load(SeqCst) {
                let _guard = lock(&self.asleep);
                self.finished.notify_all();
            }
        }
        did
    }

    fn wait_until_done(&self, n_tasks: usize) {
        for _ in 0..SPINS {
            if self.done.load(SeqCst) == n_tasks {
                return;
            }
            std::hint::spin_loop();
        }
        self.caller_waits.store(true, SeqCst);
        let mut guard = lock(&self.asleep);
        while self.done.load(SeqCst) != n_tasks {
            guard = self.finished.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_waits.store(false, SeqCst);
    }

    fn work(&self) {
        let mut spins = 0;
        while !self.stop.load(SeqCst) {
            if self.take_tickets() {
                spins = 0;
            } else if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                self.park();
                spins = 0;
            }
        }
    }

    /// Sleeps until there is a ticket to claim, or the pool stops.
    fn park(&self) {
        let mut guard = lock(&self.asleep);
        self.sleepers.fetch_add(1, SeqCst);
        while !self.stop.load(SeqCst) && !self.has_tickets() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }

    fn has_tickets(&self) -> bool {
        let ticket = Ticket::unpack(self.ticket.load(SeqCst));
        ticket.next < ticket.n_tasks
    }
}

/// Locks; a panic elsewhere leaves nothing half-written behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
