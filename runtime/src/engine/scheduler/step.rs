//! One step: the flat batch that the model computes, and whose it is.
//!
//! In: sequences and how many tokens of each. Out: a [`StepInput`].

use contract::memory::BLOCK_TOKENS;

use super::{Sequence, SequenceId, count};
use crate::model::{BASE_MODEL, GroupInput, StepInput};

/// One step, and whose tokens are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What the model computes.
    pub input: StepInput,
    /// The sequences and how many tokens of each, in the order of the input.
    pub parts: Vec<(SequenceId, u32)>,
    /// Whom each row of logits belongs to, and the position of the token that it is about: one of the prompt, if its
    /// logits are wanted, or the one that is chosen from it.
    pub rows: Vec<(SequenceId, u32)>,
}

impl Step {
    pub(super) fn new(groups: usize) -> Self {
        let group = GroupInput { block_starts: vec![0], ..GroupInput::default() };
        let input = StepInput { seq_starts: vec![0], groups: vec![group; groups], ..StepInput::default() };
        Self { input, ..Self::default() }
    }

    /// The same as steps of one sequence each, which give the same to the bit.
    #[must_use]
    pub fn split(&self) -> Vec<Self> {
        (0..self.parts.len()).map(|part| self.alone(part)).collect()
    }

    fn alone(&self, part: usize) -> Self {
        let Self { input, parts, rows } = self;
        let (start, end) = (input.seq_starts[part], input.seq_starts[part + 1]);
        let tokens = start as usize..end as usize;
        let group = |group: &GroupInput| {
            let (from, to) = (group.block_starts[part], group.block_starts[part + 1]);
            let blocks = group.blocks[from as usize..to as usize].to_vec();
            let slots = group.slots[tokens.clone()].to_vec();
            GroupInput { slots, block_starts: vec![0, count(&blocks)], blocks }
        };
        let mine = |at: &u32| (start..end).contains(at);
        let of_rows = input.logits_at.iter().zip(rows).filter(|(at, _)| mine(at)).map(|(_, row)| *row);
        let input = StepInput {
            tokens: input.tokens[tokens.clone()].to_vec(),
            positions: input.positions[tokens.clone()].to_vec(),
            seq_starts: vec![0, end - start],
            groups: input.groups.iter().map(group).collect(),
            logits_at: input.logits_at.iter().copied().filter(mine).map(|at| at - start).collect(),
            adapter: vec![input.adapter[part]],
        };
        Self { rows: of_rows.collect(), parts: vec![parts[part]], input }
    }

    pub(super) fn append(&mut self, sequence: &Sequence, n: u32) {
        let (first, tokens) = sequence.todo(n);
        let end = first + n;
        let table = sequence.table(end);
        let slot = |position: u32| {
            table[(position / BLOCK_TOKENS) as usize] * BLOCK_TOKENS + position % BLOCK_TOKENS
        };
        let input = &mut self.input;
        let start = count(&input.tokens);
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
        let chosen = (n == sequence.n_todo()).then_some(end - 1);
        for position in (first..end).filter(|at| sequence.wants_row(*at) || chosen == Some(*at)) {
            input.logits_at.push(start + (position - first));
            self.rows.push((sequence.id, position + 1));
        }
    }
}
