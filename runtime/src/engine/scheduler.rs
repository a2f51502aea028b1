//! What the next step computes. Pure, synchronous, integers.
//!
//! In: arrivals, tokens that were chosen, departures. Out: [`Step`]s.
//! It must not know tensors, text, channels or HTTP.
//!
//! Rules:
//! - Sequences are admitted in the order of arrival, each with all the blocks that it may ever need, so a running
//!   one never waits for memory. Nobody overtakes the first who waits.
//! - A step first takes one token of every sequence that generates, then fills up with prompts, the oldest first,
//!   in chunks. Generating is never held up by a long prompt for more than one step.

use std::collections::VecDeque;

use contract::memory::BLOCK_TOKENS;

use super::Load;
use super::block_pool::BlockPool;
use super::sequence::{Sequence, SequenceId, Stage};
use crate::model::{BASE_MODEL, GroupInput, StepInput};

/// Bounds of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepLimits {
    /// Sequences in flight; at most as many as tokens of a step.
    pub sequences: u32,
    /// Tokens of a step.
    pub tokens: u32,
    /// Cache groups of the model, all paged, which share block numbers.
    pub groups: usize,
}

/// Decides who computes what.
#[derive(Debug)]
pub struct Scheduler {
    limits: StepLimits,
    pool: BlockPool,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
}

/// One step, and whose tokens are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What the model computes.
    pub input: StepInput,
    /// The sequences and how many tokens of each, in the order of the input.
    pub parts: Vec<(SequenceId, u32)>,
    /// Whom each row of logits belongs to, and the position of the token that is chosen from it.
    pub rows: Vec<(SequenceId, u32)>,
}

impl Scheduler {
    /// A scheduler without sequences.
    #[must_use]
    pub fn new(limits: StepLimits, n_blocks: u32) -> Self {
        Self { limits, pool: BlockPool::new(n_blocks), waiting: VecDeque::new(), running: Vec::new() }
    }

    /// Lets a sequence wait for its turn. `false` if it could never run, for there are not that many blocks.
    pub fn add(&mut self, sequence: Sequence) -> bool {
        let fits = sequence.n_blocks() <= self.pool.total();
        if fits {
            self.waiting.push_back(sequence);
        }
        fits
    }

    /// Forgets a sequence, wherever it stands.
    pub fn remove(&mut self, id: SequenceId) {
        self.waiting.retain(|s| s.id != id);
        if let Some(at) = self.running.iter().position(|s| s.id == id) {
            let blocks = self.running.remove(at).release();
            self.pool.give(blocks);
        }
    }

    /// Admits whom there is room for, and names them.
    pub fn admit(&mut self) -> Vec<SequenceId> {
        let mut admitted = Vec::new();
        while self.running.len() < self.limits.sequences as usize {
            let Some(blocks) = self.waiting.front().and_then(|next| self.pool.take(next.n_blocks())) else {
                break;
            };
            let mut next = self.waiting.pop_front().expect("the first of those who wait was just looked at");
            next.admit(blocks);
            admitted.push(next.id);
            self.running.push(next);
        }
        admitted
    }

    /// The next step, or `None` when nobody runs.
    #[must_use]
    pub fn plan(&self) -> Option<Step> {
        let decoding = self.running.iter().filter(|s| s.stage() == Stage::Decode).count();
        let mut room = self.limits.tokens.saturating_sub(u32::try_from(decoding).unwrap_or(u32::MAX));
        let mut step = Step::default();
        step.input.seq_starts.push(0);
        step.input.groups =
            vec![GroupInput { block_starts: vec![0], ..GroupInput::default() }; self.limits.groups];
        for sequence in &self.running {
            let n = match sequence.stage() {
                Stage::Decode => 1,
                _ => sequence.n_todo().min(room),
            };
            if sequence.stage() != Stage::Decode {
                room -= n;
            }
            if n > 0 {
                step.append(sequence, n);
            }
        }
        (!step.parts.is_empty()).then_some(step)
    }

    /// The step was computed.
    pub fn computed(&mut self, step: &Step) {
        for (id, n) in &step.parts {
            if let Some(sequence) = self.running.iter_mut().find(|s| s.id == *id) {
                sequence.cached(*n);
            }
        }
    }

    /// A token was chosen; says whether the sequence may have another.
    pub fn push(&mut self, id: SequenceId, token: u32) -> bool {
        self.running.iter_mut().find(|s| s.id == id).is_some_and(|s| s.push(token))
    }

    /// How busy it is.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            running: self.running.len(),
            waiting: self.waiting.len(),
            blocks_used: self.pool.used(),
            blocks_touched: self.pool.most_used(),
            blocks: self.pool.total(),
        }
    }
}

impl Step {
    fn append(&mut self, sequence: &Sequence, n: u32) {
        let (first, tokens) = sequence.todo(n);
        let end = first + n;
        let table = sequence.table(end);
        let slot = |position: u32| {
            table[(position / BLOCK_TOKENS) as usize] * BLOCK_TOKENS + position % BLOCK_TOKENS
        };
        let input = &mut self.input;
        input.tokens.extend(tokens);
        input.positions.extend(first..end);
        input.seq_starts.push(count(&input.tokens));
        input.adapter.push(BASE_MODEL);
        for group in &mut input.groups {
            group.slots.extend((first..end).map(slot));
            group.blocks.extend(table);
            group.block_starts.push(count(&group.blocks));
        }
        self.parts.push((sequence.id, n));
        if n == sequence.n_todo() {
            input.logits_at.push(count(&input.tokens) - 1);
            self.rows.push((sequence.id, end));
        }
    }
}

fn count(items: &[u32]) -> u32 {
    u32::try_from(items.len()).expect("a step is bounded by its limits, which are u32")
}

#[cfg(test)]
mod tests;
