//! How far this process is: phases and bytes, written by whoever loads, read by the admin listener.
//!
//! In: phase changes and byte counts. Out: [`Progress`] at any moment.
//! It must not know what is loaded, nor who asks.

use std::sync::Arc;
use std::time::Instant;

use contract::bytes::Bytes;
use contract::http::{Phase, Progress};
use tokio::sync::watch;

/// One process's progress. Clones write and read the same.
#[derive(Clone, Debug)]
pub struct Tracker {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug)]
struct State {
    progress: Progress,
    entered: Instant,
}

impl Default for Tracker {
    fn default() -> Self {
        let progress = Progress {
            phase: Phase::Starting,
            bytes_done: Bytes::ZERO,
            bytes_total: Bytes::ZERO,
            seconds: Vec::new(),
        };
        Self { state: Arc::new(watch::Sender::new(State { progress, entered: Instant::now() })) }
    }
}

impl Tracker {
    /// Ends the current phase and begins this one. Phases never go backwards: an earlier one is ignored.
    pub fn enter(&self, phase: Phase) {
        self.state.send_if_modified(|state| {
            if phase <= state.progress.phase {
                return false;
            }
            let ended = (state.progress.phase, state.entered.elapsed().as_secs_f64());
            state.progress.seconds.push(ended);
            state.progress.phase = phase;
            state.entered = Instant::now();
            true
        });
    }

    /// States how many bytes there are in all.
    pub fn expect_bytes(&self, total: Bytes) {
        self.state.send_modify(|state| state.progress.bytes_total = total);
    }

    /// Counts bytes as done.
    pub fn add_bytes(&self, n: u64) {
        self.state.send_modify(|state| state.progress.bytes_done.0 += n);
    }

    /// States how many bytes are done, also when an attempt has to begin again.
    pub fn set_bytes(&self, done: Bytes) {
        self.state.send_modify(|state| state.progress.bytes_done = done);
    }

    /// Current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.borrow().progress.phase
    }

    /// All of it.
    #[must_use]
    pub fn snapshot(&self) -> Progress {
        self.state.borrow().progress.clone()
    }

    /// Waits until this phase, or a later one, has begun.
    pub async fn reached(&self, phase: Phase) {
        let mut receiver = self.state.subscribe();
        // The sender is held by `self`, so the channel cannot close under us.
        let _ = receiver.wait_for(|state| state.progress.phase >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_go_forward_and_are_timed() {
        let tracker = Tracker::default();
        tracker.enter(Phase::Loading);
        tracker.enter(Phase::Starting);
        tracker.expect_bytes(Bytes(10));
        tracker.add_bytes(4);
        tracker.reached(Phase::SelfTest).await;
        let progress = tracker.snapshot();
        assert_eq!(
            (progress.phase, progress.bytes_done, progress.bytes_total),
            (Phase::Loading, Bytes(4), Bytes(10))
        );
        assert_eq!(progress.seconds.iter().map(|s| s.0).collect::<Vec<_>>(), [Phase::Starting]);
    }
}
