//! What the next step computes. Pure, synchronous, integers.
//!
//! In: arrivals, tokens that were chosen, departures. Out: [`Step`]s.
//! It must not know tensors, text, channels or HTTP.
//!
//! Rules:
//! - Who waits is ordered by priority, then by what their tenant has had ([`Tenants`]), then by arrival. Nobody
//!   overtakes the first of them.
//! - A sequence is admitted with blocks for the tokens that it has, some of which others may have filled already, and
//!   grows block by block.
//! - When there is no block to grow, the last in rank (the least urgent, then the latest) gives its blocks back and
//!   waits again; it finds most of them unchanged if it is soon admitted again. The first in rank never gives way,
//!   and alone it has all blocks, so that something is always finished.
//! - A step first takes one token of every sequence that generates, then fills up with prompts, the first in rank
//!   first, in chunks. Generating is never held up by a long prompt for more than one step.

use contract::memory::BLOCK_TOKENS;

use super::Load;
use super::block_pool::BlockPool;
use super::sequence::{Sequence, SequenceId, Stage};
use super::tenants::Tenants;
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
    tenants: Tenants,
    waiting: Vec<Sequence>,
    /// In the order of their rank.
    running: Vec<Sequence>,
    counts: Counts,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tokens of admitted sequences that were looked for in the cache.
    pub looked_for: u64,
    /// Those of them that were there.
    pub found: u64,
    /// Times that a sequence gave way.
    pub preemptions: u64,
}

/// A sequence that runs from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Which.
    pub id: SequenceId,
    /// Its first tokens, which need not be computed.
    pub cached: u32,
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
        Self {
            limits,
            pool: BlockPool::new(n_blocks),
            tenants: Tenants::default(),
            waiting: Vec::new(),
            running: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Lets a sequence wait for its turn. `false` if it could never run, for there are not that many blocks.
    pub fn add(&mut self, sequence: Sequence) -> bool {
        let fits = sequence.most_blocks() <= self.pool.total();
        if fits {
            self.tenants.enter(sequence.tenant);
            self.waiting.push(sequence);
        }
        fits
    }

    /// Forgets a sequence, wherever it stands.
    pub fn remove(&mut self, id: SequenceId) {
        for list in [&mut self.waiting, &mut self.running] {
            if let Some(at) = list.iter().position(|s| s.id == id) {
                let mut sequence = list.remove(at);
                self.pool.give(&sequence.release());
                self.tenants.leave(sequence.tenant);
            }
        }
    }

    /// Admits whom there is room for.
    pub fn admit(&mut self) -> Vec<Admitted> {
        let mut admitted = Vec::new();
        while self.running.len() < self.limits.sequences as usize {
            let order = |s: &Sequence| (s.priority(), self.tenants.served(s.tenant), s.id);
            let Some(at) = (0..self.waiting.len()).min_by_key(|at| order(&self.waiting[*at])) else { break };
            let next = &mut self.waiting[at];
            let readable = next.readable();
            let looked_for = readable.len();
            let shared = self.pool.share(readable);
            let cached = next.begin(shared);
            // Room for one more block of everybody, or those who run would soon have to give way.
            let kept = count(&self.running);
            let lacks = next.lacks();
            if lacks.saturating_add(kept) > self.pool.available() {
                self.pool.give(&next.release());
                break;
            }
            let fresh = self.pool.take(lacks).expect("there are as many, and more");
            let mut next = self.waiting.swap_remove(at);
            next.grow(fresh);
            self.counts.looked_for += looked_for as u64 * u64::from(BLOCK_TOKENS);
            self.counts.found += u64::from(cached);
            admitted.push(Admitted { id: next.id, cached });
            let at = self.running.partition_point(|s| s.rank() < next.rank());
            self.running.insert(at, next);
        }
        admitted
    }

    /// The next step, or `None` when nobody runs. Who finds no block to grow gives way first.
    #[must_use]
    pub fn plan(&mut self) -> Option<Step> {
        self.grow();
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

    /// Gives everybody the blocks that they lack; the first in rank take from the last.
    fn grow(&mut self) {
        let mut at = 0;
        while at < self.running.len() {
            match self.pool.take(self.running[at].lacks()) {
                Some(blocks) => {
                    self.running[at].grow(blocks);
                    at += 1;
                }
                None => self.preempt_the_last(),
            }
        }
    }

    fn preempt_the_last(&mut self) {
        let Some(mut last) = self.running.pop() else { return };
        self.pool.give(&last.release());
        self.waiting.push(last);
        self.counts.preemptions += 1;
    }

    /// The step was computed.
    pub fn computed(&mut self, step: &Step) {
        for (id, n) in &step.parts {
            if let Some(sequence) = self.running.iter_mut().find(|s| s.id == *id) {
                // A row of logits is computed for what has no token left.
                let written = u32::from(sequence.n_todo() == *n);
                self.tenants.serve(sequence.tenant, n - written, written);
                for (block, name) in sequence.cached(*n) {
                    self.pool.learn(block, name);
                }
            }
        }
    }

    /// A token was chosen; says whether the sequence may have another.
    pub fn push(&mut self, id: SequenceId, token: u32) -> bool {
        self.running.iter_mut().find(|s| s.id == id).is_some_and(|s| s.push(token))
    }

    /// Prompt and answer of a sequence that runs.
    #[must_use]
    pub fn tokens(&self, id: SequenceId) -> Option<(&[u32], &[u32])> {
        self.running.iter().find(|s| s.id == id).map(Sequence::tokens)
    }

    /// How busy it is.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            running: self.running.len(),
            waiting: self.waiting.len(),
            blocks_used: self.pool.used(),
            blocks_touched: self.pool.touched(),
            blocks: self.pool.total(),
            counts: self.counts,
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

fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).expect("a step is bounded by its limits, which are u32")
}

#[cfg(test)]
mod tests;
