//! An answer that a grammar guides, token by token, perhaps from the end of its reasoning on.

use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

use crate::engine::constraint::{Constraint, ConstraintError};

/// Tokens that enclose the reasoning that may come before the answer proper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thinking {
    /// What opens it; empty where nothing does.
    pub open: Vec<u32>,
    /// What closes it.
    pub close: Vec<u32>,
    /// Whether the prompt has opened it already.
    pub inside: bool,
}

/// A grammar and how far an answer has come in it.
#[derive(Clone)]
pub struct Guided {
    matcher: Matcher,
    /// Tokens that may come next, as they were last asked for.
    mask: SimpleVob,
    phase: Phase,
    thinking: Option<Thinking>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet, and reasoning may.
    Before,
    /// So many tokens of the mark that opens reasoning have come.
    Opening(usize),
    /// Reasoning, whose last tokens are so many of the mark that closes it.
    Reasoning(usize),
    /// The grammar says what comes.
    Answer,
}

impl std::fmt::Debug for Guided {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guided").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl Guided {
    pub(super) fn new(matcher: Matcher) -> Self {
        Self { matcher, mask: SimpleVob::new(), phase: Phase::Answer, thinking: None }
    }

    /// The same from its beginning; nothing that it learns is shared with others, so that no answer depends on them.
    pub(super) fn fresh(&self) -> Self {
        Self::new(self.matcher.deep_clone())
    }

    /// The grammar begins after reasoning.
    #[must_use]
    pub fn after(mut self, thinking: Thinking) -> Self {
        self.phase = match (thinking.inside, thinking.open.is_empty()) {
            (true, _) => Phase::Reasoning(0),
            (false, false) => Phase::Before,
            (false, true) => Phase::Answer,
        };
        self.thinking = Some(thinking);
        self
    }

    fn answer_mask(&mut self) -> Result<(), ConstraintError> {
        self.mask = self.matcher.compute_mask_or_eos().map_err(|error| failed(&error))?;
        Ok(())
    }

    fn answer(&mut self, token: u32) -> Result<bool, ConstraintError> {
        // What is complete only ends.
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(true);
        }
        self.matcher.consume_token(token).map_err(|error| failed(&error))?;
        Ok(self.matcher.is_stopped())
    }

    fn reasoning(&mut self, token: u32, matched: usize) {
        let close = self.thinking.as_ref().map_or(&[][..], |thinking| &thinking.close);
        let matched = advanced(close, matched, token);
        self.phase = if matched == close.len() { Phase::Answer } else { Phase::Reasoning(matched) };
    }
}

/// Tokens of `mark` that the text ends with after one more token, where it ended with `matched` of them.
fn advanced(mark: &[u32], matched: usize, token: u32) -> usize {
    let ended = [&mark[..matched], &[token]].concat();
    (0..=ended.len().min(mark.len())).rev().find(|n| ended.ends_with(&mark[..*n])).unwrap_or(0)
}

fn failed(error: &impl std::fmt::Display) -> ConstraintError {
    ConstraintError(format!("{error:#}"))
}

impl Constraint for Guided {
    fn allowed(&mut self) -> Result<Option<&[u32]>, ConstraintError> {
        match (&self.phase, &self.thinking) {
            (Phase::Reasoning(_), _) => return Ok(None),
            (Phase::Opening(came), Some(thinking)) => {
                let next = thinking.open[*came];
                self.mask = SimpleVob::alloc(next as usize + 1);
                self.mask.allow_token(next);
            }
            (Phase::Before, Some(thinking)) => {
                let first = thinking.open[0];
                self.answer_mask()?;
                if (first as usize) < self.mask.len() {
                    self.mask.allow_token(first);
                }
            }
            _ => self.answer_mask()?,
        }
        Ok(Some(self.mask.as_slice()))
    }

    fn chosen(&mut self, token: u32) -> Result<bool, ConstraintError> {
        let open = self.thinking.as_ref().map_or(&[][..], |thinking| &thinking.open);
        match self.phase {
            Phase::Answer => return self.answer(token),
            Phase::Reasoning(matched) => self.reasoning(token, matched),
            Phase::Before if open.first() != Some(&token) => {
                self.phase = Phase::Answer;
                return self.answer(token);
            }
            Phase::Before if open.len() == 1 => self.phase = Phase::Reasoning(0),
            Phase::Before => self.phase = Phase::Opening(1),
            Phase::Opening(came) if came + 1 == open.len() => self.phase = Phase::Reasoning(0),
            Phase::Opening(came) => self.phase = Phase::Opening(came + 1),
        }
        Ok(false)
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(Self { matcher: self.matcher.deep_clone(), ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_wherever_it_begins() {
        let mark = [1, 2, 1, 3];
        let found = |tokens: &[u32]| tokens.iter().fold(0, |matched, token| advanced(&mark, matched, *token));
        assert_eq!(found(&[1, 2, 1, 3]), 4);
        assert_eq!(found(&[1, 2, 1, 2, 1, 3]), 4);
        assert_eq!(found(&[9, 1, 1, 2, 1, 3]), 4);
        assert_eq!((found(&[1, 2, 1]), found(&[1, 2, 9]), found(&[])), (3, 0, 0));
    }
}
