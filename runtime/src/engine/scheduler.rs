//! What the next step computes. Pure, synchronous, integers.
//!
//! In: arrivals, tokens that were chosen, departures. Out: [`Step`]s.
//! It must not know tensors, text, channels or HTTP.
//!
//! Rules:
//! - Who waits is ordered by what their tenant has had ([`Tenants`]), then by priority, then by arrival: clients name
//!   their own priority, so it says something among requests of one tenant only. Nobody overtakes the first of them.
//! - A sequence is admitted with blocks for the tokens that it has, some of which others may have filled already, and
//!   grows block by block.
//! - When there is no block to grow, somebody gives their blocks back and waits again; they find most of them unchanged
//!   if they are soon admitted again. It is whose tenant has the latest arrival that runs, and of this tenant's the least
//!   urgent. The first to arrive of all who run never gives way, and alone it has all blocks, so that something is
//!   always finished.
//! - Several answers to one prompt are sequences of their own. The first reads the prompt; the others begin when it
//!   has, find its full blocks in the cache and share them. Of the last block, which is not full, each computes the
//!   up to 32 tokens again: it will write there, so it needs a copy, and a token's entry is the same to the bit
//!   however it came to be. That costs less than one step each, and the pool stays what it is: a block has one writer.
//! - A step first takes one token of every sequence that generates, then fills up with prompts, the first to arrive
//!   first, in chunks. Generating is never held up by a long prompt for more than one step, and that step is not
//!   filled up to the last token: the worker says how many keep it short.

mod queue;
mod step;

use std::collections::BTreeSet;

use contract::memory::BLOCK_TOKENS;

use super::Load;
use super::block_pool::BlockPool;
use super::sequence::{Sequence, SequenceId, Stage};
use super::tenants::{Tenant, Tenants};
pub use step::Step;

/// Bounds of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepLimits {
    /// Sequences in flight, and rows of logits of a step; at most as many as its tokens.
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
    /// In the order of their arrival.
    running: Vec<Sequence>,
    counts: Counts,
    /// Tokens of prompts in a step where others generate.
    beside: u32,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tokens of sequences that were looked for in the cache when they were first admitted.
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

/// What a step did for a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Who.
    pub tenant: Tenant,
    /// Tokens that were there.
    pub read: u32,
    /// Tokens that were chosen.
    pub written: u32,
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
            beside: u32::MAX,
        }
    }

    /// From now on, no more tokens of prompts than these are read in a step where others generate.
    pub fn read_beside(&mut self, tokens: u32) {
        self.beside = tokens.max(1);
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

    /// Forgets a sequence, wherever it stands, and gives it back. Of those who wait for it to read their prompt, the
    /// first does so now.
    pub fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        let at = |list: &[Sequence]| list.iter().position(|s| s.id == id);
        let mut sequence = match (at(&self.waiting), at(&self.running)) {
            (Some(at), _) => self.waiting.remove(at),
            (None, Some(at)) => self.running.remove(at),
            (None, None) => return None,
        };
        self.pool.give(&sequence.release());
        self.tenants.leave(sequence.tenant);
        let next = self.waiting.iter().filter(|s| s.after() == Some(id)).map(|s| s.id).min();
        for other in self.waiting.iter_mut().filter(|s| s.after() == Some(id)) {
            other.wait_for(next.filter(|next| *next != other.id));
        }
        Some(sequence)
    }

    /// Admits whom there is room for.
    pub fn admit(&mut self) -> Vec<Admitted> {
        let mut admitted = Vec::new();
        let unread = self.unread();
        while self.running.len() < self.limits.sequences as usize {
            let ready = |s: &Sequence| s.after().is_none_or(|leader| !unread.contains(&leader));
            let ready = (0..self.waiting.len()).filter(|at| ready(&self.waiting[*at]));
            let Some(at) = ready.min_by_key(|at| self.order(&self.waiting[*at])) else { break };
            let next = &mut self.waiting[at];
            let shared = self.pool.share(next.readable());
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
            next.wait_for(None);
            // Once for each, as vLLM counts; and nobody looks for what is computed anyway.
            if next.preemptions() == 0 && !next.wants_rows() {
                self.counts.looked_for += u64::from(next.n_tokens());
                self.counts.found += u64::from(cached);
            }
            admitted.push(Admitted { id: next.id, cached });
            let at = self.running.partition_point(|s| s.id < next.id);
            self.running.insert(at, next);
        }
        admitted
    }

    /// Who has not read the prompt that others wait for.
    fn unread(&self) -> BTreeSet<SequenceId> {
        let unread = self.waiting.iter().chain(&self.running).filter(|s| !s.has_read()).map(|s| s.id);
        if self.waiting.iter().any(|s| s.after().is_some()) { unread.collect() } else { BTreeSet::new() }
    }

    /// Whose turn is first.
    fn order(&self, waiting: &Sequence) -> (u64, Tenant, i32, SequenceId) {
        // Of tenants that have had as much, one is first, whatever its requests say of themselves.
        (self.tenants.served(waiting.tenant), waiting.tenant, waiting.priority(), waiting.id)
    }

    /// The next step, or `None` when nobody runs. Who finds no block to grow gives way first.
    #[must_use]
    pub fn plan(&mut self) -> Option<Step> {
        self.grow();
        let decoding = self.running.iter().filter(|s| s.stage() == Stage::Decode).count();
        let mut room = self.limits.tokens.saturating_sub(u32::try_from(decoding).unwrap_or(u32::MAX));
        if decoding > 0 {
            room = room.min(self.beside);
        }
        // Everybody may take one row; what is left of them is for prompts of which every token is asked for.
        let mut rows = self.limits.sequences.saturating_sub(count(&self.running));
        let mut step = Step::new(self.limits.groups);
        for sequence in &self.running {
            let n = match sequence.stage() {
                Stage::Decode => 1,
                _ if sequence.wants_rows() => sequence.n_todo().min(room).min(rows + 1),
                _ => sequence.n_todo().min(room),
            };
            if sequence.stage() != Stage::Decode {
                room -= n;
            }
            if sequence.wants_rows() {
                rows -= n.saturating_sub(1);
            }
            if n > 0 {
                step.append(sequence, n);
            }
        }
        (!step.parts.is_empty()).then_some(step)
    }

    /// Gives everybody the blocks that they lack; who gives way may have had theirs already.
    fn grow(&mut self) {
        let mut at = 0;
        while at < self.running.len() {
            match self.pool.take(self.running[at].lacks()) {
                Some(blocks) => {
                    self.running[at].grow(blocks);
                    at += 1;
                }
                None => {
                    let gone = self.preempt();
                    at -= usize::from(gone < at);
                }
            }
        }
    }

    /// Whoever has to give way does; says where it was.
    fn preempt(&mut self) -> usize {
        let last = self.running.len() - 1;
        let tenant = self.running[last].tenant;
        let others = (1..=last).filter(|at| self.running[*at].tenant == tenant);
        let gives = others.max_by_key(|at| (self.running[*at].priority(), *at)).unwrap_or(last);
        let mut sequence = self.running.remove(gives);
        self.pool.give(&sequence.preempt());
        self.waiting.push(sequence);
        self.counts.preemptions += 1;
        gives
    }

    /// The step was computed; says for whom.
    pub fn computed(&mut self, step: &Step) -> Vec<Served> {
        let mut served = Vec::new();
        for (id, n) in &step.parts {
            if let Some(sequence) = self.running.iter_mut().find(|s| s.id == *id) {
                let written = sequence.chosen_after(*n);
                let read = n - written;
                self.tenants.serve(sequence.tenant, read, written);
                served.push(Served { tenant: sequence.tenant, read, written });
                for (block, name) in sequence.cached(*n) {
                    self.pool.learn(block, name);
                }
            }
        }
        served
    }

    /// A token was chosen; says whether the sequence may have another.
    pub fn push(&mut self, id: SequenceId, token: u32) -> bool {
        self.running.iter_mut().find(|s| s.id == id).is_some_and(|s| s.push(token))
    }

    /// A sequence that runs.
    #[must_use]
    pub fn running(&self, id: SequenceId) -> Option<&Sequence> {
        self.running.iter().find(|s| s.id == id)
    }

    /// How busy it is.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            running: self.running.len(),
            waiting: self.waiting.len(),
            deferred: self.waiting.iter().filter(|s| s.after().is_some()).count(),
            blocks_used: self.pool.used(),
            blocks_touched: self.pool.touched(),
            blocks: self.pool.total(),
            counts: self.counts,
            ..Load::default()
        }
    }
}

fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).expect("a step is bounded by its limits, which are u32")
}

#[cfg(test)]
mod tests;
