//! Long contexts of few sequences: their spans go to tasks of their own, and what these found is merged afterwards.
//!
//! The merges are those of one task that goes through a whole context, in the same order, so that results do not depend
//! on which way is taken.

#![allow(clippy::needless_range_loop, reason = "tokens index several arrays at once")]

use std::ops::Range;

use super::kernel::{SPAN, Softmax, TAIL};
use super::{Attention, TokenTile};
use crate::lanes::{Kernel, Lanes};
use crate::shared::Shared;

/// Numbers of the scratch that spans leave their results in: small, for it is there from the start.
pub(crate) const SCRATCH: usize = 1 << 16;

/// How a step's spans pass through the scratch.
#[derive(Clone, Copy)]
pub(super) struct Waves {
    /// Spans of the longest context.
    pub(super) n_spans: usize,
    /// How many of them the scratch holds at once.
    pub(super) at_once: usize,
    /// Numbers of the states in the scratch, which stay from wave to wave.
    pub(super) states: usize,
    /// Numbers that one span leaves.
    pub(super) a_span: usize,
}

impl Waves {
    /// Nothing where the threads have enough to do without, or the scratch is too small.
    pub(super) fn of(attention: &Attention<'_>, threads: usize) -> Option<Self> {
        let Attention { heads, positions, tiles, .. } = *attention;
        let n_spans = *positions.iter().max()? as usize / SPAN + 1;
        let n_rows = positions.len() * heads.heads;
        let (states, a_span) = (n_rows * TAIL, n_rows * (heads.head_dim + TAIL));
        let at_once = SCRATCH.checked_sub(states)? / a_span;
        let few = threads > 1 && tiles.len() * heads.kv_heads < 4 * threads;
        (few && n_spans > 1 && at_once > 1).then_some(Self { n_spans, at_once, states, a_span })
    }

    /// The spans of each wave.
    pub(super) fn all(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.n_spans)
            .step_by(self.at_once)
            .map(move |first| first..self.n_spans.min(first + self.at_once))
    }
}

/// Merges what a wave's spans found for a tile's tokens and the query heads of a key-value head.
pub(super) struct Merge<'a> {
    pub(super) attention: &'a Attention<'a>,
    pub(super) tile: TokenTile,
    pub(super) head: usize,
    pub(super) spans: Range<usize>,
    /// What each of the spans left, one after the other.
    pub(super) partials: &'a [f32],
    /// The softmax of each row so far.
    pub(super) states: &'a Shared<'a, f32>,
    pub(super) y: &'a Shared<'a, f32>,
}

impl Kernel for Merge<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Attention { heads, positions, .. } = *self.attention;
        let (group, width) = (heads.heads / heads.kv_heads, heads.head_dim + TAIL);
        let a_span = positions.len() * heads.heads * width;
        for token in self.tile.first as usize..self.tile.last as usize {
            let last = positions[token] as usize / SPAN;
            for head in self.head * group..(self.head + 1) * group {
                let row = token * heads.heads + head;
                // SAFETY: a row belongs to one tile and head, hence to one task.
                let (state, y) = unsafe {
                    let y = self.y.piece(row * heads.head_dim..(row + 1) * heads.head_dim);
                    (self.states.piece(row * TAIL..(row + 1) * TAIL), y)
                };
                let mut softmax = Softmax { largest: state[0], sum: state[1] };
                for span in self.spans.start..self.spans.end.min(last + 1) {
                    let partial = &self.partials[(span - self.spans.start) * a_span + row * width..][..width];
                    let (sums, tail) = partial.split_at(heads.head_dim);
                    let other = Softmax { largest: tail[0], sum: tail[1] };
                    if span == 0 {
                        y.copy_from_slice(sums);
                        softmax = other;
                    } else {
                        softmax.merge(l, y, other, sums);
                    }
                }
                if self.spans.contains(&last) {
                    softmax.divide(y);
                }
                state.copy_from_slice(&[softmax.largest, softmax.sum]);
            }
        }
    }
}
