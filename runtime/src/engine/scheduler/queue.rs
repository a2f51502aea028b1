//! What those who wait, and those whose time runs out, are told. Integers only.

use super::{BLOCK_TOKENS, Scheduler, Sequence, SequenceId};
use crate::engine::rate::Backlog;

impl Scheduler {
    /// Who can no longer be answered in time: their deadline has passed, or comes before what they have left to read
    /// is read at so many tokens a second (zero: nobody knows). Times are milliseconds.
    ///
    /// Who would have the engine alone may try until the deadline: it takes nobody's time, and a rate that was measured
    /// in a bad moment is corrected only by reading.
    #[must_use]
    pub fn late(&self, now: u64, read_rate: u32) -> Vec<SequenceId> {
        let late = |s: &Sequence, others: bool, unread: u32| {
            let takes = u64::from(unread) * 1000 / u64::from(read_rate.max(1));
            let takes = if read_rate == 0 || !others { 0 } else { takes };
            s.deadline().is_some_and(|deadline| now.saturating_add(takes) >= deadline)
        };
        let others = |besides: usize| self.running.len() > besides;
        let waiting = self.waiting.iter().filter(|s| {
            // Who waits may find some of it in the cache, which takes longer to find out.
            late(s, others(0), s.n_tokens())
                && late(s, others(0), s.n_tokens() - self.pool.knows(s.readable()) * BLOCK_TOKENS)
        });
        let running = self.running.iter().filter(|s| late(s, others(1), s.n_todo()));
        waiting.chain(running).map(|s| s.id).collect()
    }

    /// Those who wait for the first time, the next first, with how many other such requests come before them.
    #[must_use]
    pub fn queue(&self) -> Vec<(SequenceId, u32)> {
        let mut waiting: Vec<_> =
            self.waiting.iter().filter(|s| s.after().is_none() && s.preemptions() == 0).collect();
        waiting.sort_by_key(|s| self.order(s));
        waiting.iter().map(|s| s.id).zip(0..).collect()
    }

    /// What those who wait want, if no answer gets longer than this.
    #[must_use]
    pub fn backlog(&self, answer_tokens: u32) -> Backlog {
        self.waiting.iter().fold(Backlog::default(), |sum, s| Backlog {
            // Of those who share a prompt, one reads it.
            read: sum.read + if s.after().is_none() { u64::from(s.n_tokens()) } else { 0 },
            write: sum.write + u64::from(s.n_left().min(answer_tokens)),
        })
    }
}
