//! One step's input: which tokens, where in their sequences, and where their keys and values are kept.
//!
//! Every number that a kernel will follow as an index is checked here, once, so that kernels need not.

use kernels::{BlockTables, CACHE_BLOCK};

use super::cache::{Cache, CacheGroup};

/// The value of [`StepInput::adapter`] for a sequence that uses none.
pub const BASE_MODEL: u32 = 0;

/// Tokens of several sequences, sequence after sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepInput {
    /// Token ids, `[T]`.
    pub tokens: Vec<u32>,
    /// Each token's position in its sequence, `[T]`.
    pub positions: Vec<u32>,
    /// Where each sequence's tokens start, and where the last one's end, `[B + 1]`.
    pub seq_starts: Vec<u32>,
    /// For each cache group of the model, where its entries are.
    pub groups: Vec<GroupInput>,
    /// Which tokens want logits, `[R]`, as indices into `tokens`.
    pub logits_at: Vec<u32>,
    /// Each sequence's adapter, `[B]`; [`BASE_MODEL`] for none.
    pub adapter: Vec<u32>,
}

/// Where a step's entries of one paged cache group are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupInput {
    /// Where each token's entry is written, `[T]`: `block · 32 + place`.
    pub slots: Vec<u32>,
    /// The sequences' block tables one after the other, each covering all positions up to its last token's.
    pub blocks: Vec<u32>,
    /// Where each sequence's table starts in `blocks`, and where the last one ends, `[B + 1]`.
    pub block_starts: Vec<u32>,
}

/// One sequence's part of a step, for models with one cache group.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The tokens, in order.
    pub tokens: &'a [u32],
    /// The first one's position in the sequence.
    pub first_position: u32,
    /// The sequence's cache blocks, for all positions up to its last token's.
    pub table: &'a [u32],
    /// Whether the last token wants logits.
    pub wants_logits: bool,
}

impl GroupInput {
    pub(super) fn tables(&self) -> BlockTables<'_> {
        BlockTables { blocks: &self.blocks, starts: &self.block_starts }
    }
}

/// What a step may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of a step.
    pub tokens: usize,
    /// Rows of logits of a step.
    pub logits: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Positions of a sequence.
    pub positions: usize,
}

/// What is wrong with a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Two parts of the step disagree on how many tokens, sequences or groups there are.
    #[error("{what} has {found} entries where {needed} are needed")]
    Length {
        /// The part.
        what: &'static str,
        /// Its entries.
        found: usize,
        /// What the rest of the step asks for.
        needed: usize,
    },
    /// More than the model was set up for.
    #[error("{found} {what}, at most {limit} were planned")]
    TooMany {
        /// What is too many.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Starts that do not rise from zero to the end.
    #[error("{0} does not rise from 0 to the number of entries")]
    Starts(&'static str),
    /// An index past what it indexes.
    #[error("{what} {found} is not below {limit}")]
    Index {
        /// What the index is of.
        what: &'static str,
        /// The index.
        found: u32,
        /// The first that is too large.
        limit: usize,
    },
    /// A block table that ends before the sequence's last token.
    #[error("the table of sequence {0} does not reach its last token")]
    ShortTable(usize),
}

impl StepInput {
    /// A step over some sequences of a model with one cache group, all on the base model.
    ///
    /// # Errors
    /// Where a table does not reach its sequence's last token.
    pub fn of(parts: &[Part<'_>]) -> Result<Self, StepError> {
        let mut step = Self { seq_starts: vec![0], ..Self::default() };
        let mut group = GroupInput { block_starts: vec![0], ..GroupInput::default() };
        for (sequence, part) in parts.iter().enumerate() {
            for (position, token) in (part.first_position..).zip(part.tokens) {
                let (index, place) = (position as usize / CACHE_BLOCK, position % CACHE_BLOCK as u32);
                let block = part.table.get(index).ok_or(StepError::ShortTable(sequence))?;
                step.tokens.push(*token);
                step.positions.push(position);
                group.slots.push(block * CACHE_BLOCK as u32 + place);
            }
            if part.wants_logits && !part.tokens.is_empty() {
                step.logits_at.push(step.tokens.len() as u32 - 1);
            }
            step.seq_starts.push(step.tokens.len() as u32);
            group.blocks.extend(part.table);
            group.block_starts.push(group.blocks.len() as u32);
            step.adapter.push(BASE_MODEL);
        }
        step.groups.push(group);
        Ok(step)
    }

    /// Checks the step against the model's limits and the cache.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, limits: Limits, cache: &Cache) -> Result<(), StepError> {
        let (n_tokens, n_sequences) = (self.tokens.len(), self.adapter.len());
        length("positions", self.positions.len(), n_tokens)?;
        length("seq_starts", self.seq_starts.len(), n_sequences + 1)?;
        length("groups", self.groups.len(), cache.spec().groups.len())?;
        at_most("tokens", n_tokens, limits.tokens)?;
        at_most("rows of logits", self.logits_at.len(), limits.logits)?;
        rising("seq_starts", &self.seq_starts, n_tokens)?;
        below("token", &self.tokens, limits.vocabulary)?;
        below("position", &self.positions, limits.positions)?;
        below("logits_at", &self.logits_at, n_tokens)?;
        below("adapter", &self.adapter, BASE_MODEL as usize + 1)?;
        for (group, spec) in self.groups.iter().zip(&cache.spec().groups) {
            let CacheGroup::Paged(_) = spec;
            self.check_group(group, cache.n_blocks())?;
        }
        Ok(())
    }

    fn check_group(&self, group: &GroupInput, n_blocks: usize) -> Result<(), StepError> {
        length("slots", group.slots.len(), self.tokens.len())?;
        length("block_starts", group.block_starts.len(), self.seq_starts.len())?;
        rising("block_starts", &group.block_starts, group.blocks.len())?;
        below("slot", &group.slots, n_blocks * CACHE_BLOCK)?;
        below("block", &group.blocks, n_blocks)?;
        for (sequence, range) in self.seq_starts.windows(2).enumerate() {
            let n_blocks = group.block_starts[sequence + 1] - group.block_starts[sequence];
            let positions = &self.positions[range[0] as usize..range[1] as usize];
            if positions.iter().any(|position| *position as usize / CACHE_BLOCK >= n_blocks as usize) {
                return Err(StepError::ShortTable(sequence));
            }
        }
        Ok(())
    }
}

fn length(what: &'static str, found: usize, needed: usize) -> Result<(), StepError> {
    if found == needed { Ok(()) } else { Err(StepError::Length { what, found, needed }) }
}

fn at_most(what: &'static str, found: usize, limit: usize) -> Result<(), StepError> {
    if found <= limit { Ok(()) } else { Err(StepError::TooMany { what, found, limit }) }
}

fn below(what: &'static str, indices: &[u32], limit: usize) -> Result<(), StepError> {
    match indices.iter().find(|index| **index as usize >= limit) {
        Some(found) => Err(StepError::Index { what, found: *found, limit }),
        None => Ok(()),
    }
}

fn rising(what: &'static str, starts: &[u32], end: usize) -> Result<(), StepError> {
    let ends = starts.first() == Some(&0) && starts.last().is_some_and(|last| *last as usize == end);
    if ends && starts.is_sorted() { Ok(()) } else { Err(StepError::Starts(what)) }
}
