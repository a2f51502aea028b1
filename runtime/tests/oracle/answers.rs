//! Whether an answer is the oracle's.

use std::fmt::{Display, Formatter, Result};

use super::golden::Prompt;

/// How close the oracle's own best two logits are where rounding may decide between them.
const NEAR: f32 = 0.25;

/// What there is to say of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Token for token the oracle's.
    Exact,
    /// It first differs where the oracle itself was nearly undecided.
    NearTie(Difference),
    /// It first differs where the oracle was not.
    Wrong(Difference),
}

/// Where an answer first differs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Difference {
    /// The token.
    at: usize,
    /// How far the oracle's token is ahead of its second.
    gap: f32,
    /// The same without rounded activations; negative where the oracle would have said something else.
    unrounded: f32,
}

/// Compares an answer with the oracle's.
pub(crate) fn judge(prompt: &Prompt, answer: &[u32]) -> Verdict {
    assert_eq!(answer.len(), prompt.follows.len());
    let Some(at) = (0..answer.len()).find(|at| answer[*at] != prompt.follows[*at]) else {
        return Verdict::Exact;
    };
    let difference = Difference { at, gap: prompt.gaps[at], unrounded: prompt.unrounded[at] };
    if difference.gap < NEAR { Verdict::NearTie(difference) } else { Verdict::Wrong(difference) }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Exact => write!(f, "exact"),
            Self::NearTie(difference) => write!(f, "near tie at {difference}"),
            Self::Wrong(difference) => write!(f, "WRONG at {difference}"),
        }
    }
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { at, gap, unrounded } = self;
        write!(f, "token {at:2}: the oracle's is {gap:.4} ahead, {unrounded:+.4} unrounded")
    }
}
