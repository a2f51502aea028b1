//! From the rows of a step's logits to what they say, on all threads of the kernels.
//!
//! In: rows, and for each the request and the sequence that it is of. Out: tokens and probabilities. What a row says
//! depends on nothing but itself.

use std::sync::{Mutex, PoisonError};

use kernels::Kernels;

use super::request::Request;
use crate::engine::Failure;
use crate::engine::constraint::{Allowed, ConstraintError, allows};
use crate::engine::sampler::adjust::Past;
use crate::engine::sampler::logprobs::{Logprobs, logprobs};
use crate::engine::sampler::{Corrupted, Draw, Sampling, Scratch, sample, sound};
use crate::engine::sequence::Sequence;

/// More threads than these are not worth the memory, some bytes for each token of the vocabulary.
const MOST_THREADS: usize = 4;

/// A row of logits and what is asked of it.
pub(super) struct Row<'a> {
    pub(super) logits: &'a [f32],
    pub(super) request: &'a Request,
    pub(super) choice: u16,
    pub(super) sequence: &'a Sequence,
    /// Of the token that it is about.
    pub(super) position: u32,
    pub(super) allowed: Allowed<'a>,
}

/// What a row says.
pub(super) enum Said {
    /// How probable the token was that the prompt has there.
    Prompt(Box<Logprobs>),
    /// The token that comes next.
    Chosen(u32, Option<Box<Logprobs>>),
    /// The state of a token of a prompt whose vector is wanted, and whether it is the last.
    State(Box<[f32]>, bool),
    /// Nothing, for nobody listens any more.
    Nothing,
}

/// Why a row says nothing that its request could go on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Silent {
    #[error(transparent)]
    Corrupted(#[from] Corrupted),
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

impl From<Silent> for Failure {
    fn from(silent: Silent) -> Self {
        match silent {
            Silent::Corrupted(corrupted) => Self::Corrupted(corrupted),
            Silent::Constraint(error) => Self::Constraint(error),
        }
    }
}

impl Row<'_> {
    fn say(&self, scratch: &mut Scratch) -> Result<Said, Silent> {
        let (prompt, answer) = self.sequence.tokens();
        let logprobs = |token, n: Option<u32>| n.map(|n| Box::new(logprobs(self.logits, token, n)));
        if let Some(token) = prompt.get(self.position as usize) {
            sound(self.logits)?;
            return Ok(logprobs(*token, self.request.prompt_logprobs).map_or(Said::Nothing, Said::Prompt));
        }
        let early = answer.len() < self.request.min_tokens as usize;
        let forbidden = early.then_some(&*self.request.ends);
        let past = Past { prompt, answer, forbidden, allowed: self.allowed.clone()? };
        let draw = Draw { position: self.position, choice: self.choice.into() };
        let token = pick(self.logits, &self.request.sampling, past, draw, scratch)?;
        Ok(Said::Chosen(token, logprobs(token, self.request.logprobs)))
    }
}

/// A token that the mask allows. Where all of those would end the answer too early, it ends early.
fn pick(
    logits: &[f32],
    sampling: &Sampling,
    past: Past,
    draw: Draw,
    scratch: &mut Scratch,
) -> Result<u32, Silent> {
    let token = sample(logits, sampling, &past, draw, scratch)?;
    match past {
        Past { allowed: Some(mask), .. } if !allows(mask, token) => {}
        _ => return Ok(token),
    }
    match past.forbidden {
        Some(_) => pick(logits, sampling, Past { forbidden: None, ..past }, draw, scratch),
        None => Err(ConstraintError("no token may come next".into()).into()),
    }
}

/// How many threads hear rows at the same time.
pub(super) fn threads(kernels: Option<&Kernels>) -> usize {
    kernels.map_or(1, Kernels::threads).min(MOST_THREADS)
}

/// What all of them say. `None` are rows that nobody asks anything of.
pub(super) fn say(
    rows: &[Option<Row<'_>>],
    kernels: Option<&Kernels>,
    scratch: &mut Vec<Scratch>,
) -> Vec<Result<Said, Silent>> {
    let threads = threads(kernels).min(rows.len()).max(1);
    scratch.resize_with(threads.max(scratch.len()), Scratch::default);
    let of =
        |row: &Option<Row>, scratch: &mut Scratch| row.as_ref().map_or(Ok(Said::Nothing), |r| r.say(scratch));
    let parts = rows.chunks(rows.len().div_ceil(threads).max(1));
    let parts: Vec<_> =
        parts.zip(scratch).map(|(part, scratch)| Mutex::new((part, scratch, Vec::new()))).collect();
    let task = |index: usize| {
        // Each is taken once, so nobody ever waits.
        let mut part = parts[index].lock().unwrap_or_else(PoisonError::into_inner);
        let (rows, scratch, said) = &mut *part;
        said.extend(rows.iter().map(|row| of(row, scratch)));
    };
    match kernels {
        Some(kernels) => kernels.par_for(parts.len(), task),
        None => (0..parts.len()).for_each(task),
    }
    parts.into_iter().flat_map(|part| part.into_inner().unwrap_or_else(PoisonError::into_inner).2).collect()
}
