//! The engine: requests in tokens in, streams of tokens out.
//!
//! In: [`Job`]s. Out: for each a bounded stream of [`Event`]s, in which every choice ends by `Finished`, or all of
//! them by `Failed`. One thread owns model and cache ([`worker`]); everybody else has an [`EngineHandle`].
//! It must not know text, templates or HTTP.
//!
//! # Cancel safety
//! Dropping a stream cancels its request within one step.

pub mod block_pool;
pub mod constraint;
mod handle;
pub mod observe;
pub mod pool;
pub mod prefix;
pub mod rate;
pub mod sampler;
pub mod scheduler;
pub mod sequence;
mod shares;
pub mod tenants;
pub mod worker;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use constraint::{Constraint, ConstraintError};
pub use handle::{EngineHandle, Events, InvalidJob, Place, Refusals, Refused};
use pool::Pooling;
use rate::{Backlog, Rates};
use sampler::logprobs::Logprobs;
use sampler::{Corrupted, Sampling};
use scheduler::Counts;
use sequence::Class;

/// A request to the engine.
#[derive(Debug)]
pub struct Job {
    /// Tokens to go on from; not empty, and all of the model's vocabulary.
    pub prompt: Vec<u32>,
    /// Answers to it; at least one.
    pub n: u16,
    /// Most tokens of an answer; at least one.
    pub max_tokens: u32,
    /// Tokens that end an answer, which come last in it.
    pub ends: Arc<BTreeSet<u32>>,
    /// Tokens of an answer before which none of those is chosen.
    pub min_tokens: u32,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Whose it is and how urgent.
    pub class: Class,
    /// What of the vocabulary may come next.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Whether the probability of each token of an answer is told, and of how many of the most likely in its place.
    pub logprobs: Option<u32>,
    /// The same of the prompt's tokens, which are then all computed.
    pub prompt_logprobs: Option<u32>,
    /// When the answers must have ended.
    pub deadline: Option<Instant>,
    /// Instead of answers, the prompt's vector is wanted. Then `n` and `max_tokens` are one, and nothing is generated.
    pub embed: Option<Pooling>,
}

impl Job {
    /// The vector of a prompt, for nobody in particular.
    #[must_use]
    pub fn embedding(prompt: Vec<u32>, pooling: Pooling) -> Self {
        Self { embed: Some(pooling), ..Self::new(prompt, 1) }
    }

    /// The most likely tokens, as many as `max_tokens` whatever they are, for nobody in particular.
    #[must_use]
    pub fn new(prompt: Vec<u32>, max_tokens: u32) -> Self {
        Self {
            prompt,
            n: 1,
            max_tokens,
            ends: Arc::default(),
            min_tokens: 0,
            sampling: Sampling::default(),
            class: Class::default(),
            constraint: None,
            logprobs: None,
            prompt_logprobs: None,
            deadline: None,
            embed: None,
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It waits, behind so many others. Comes when that changes, at most each second, and only to who has read the
    /// last one.
    Queued {
        /// Requests that come first.
        ahead: u32,
    },
    /// It waits no longer. It comes once, before the first token.
    Admitted {
        /// Tokens of the prompt that the cache had already.
        cached: u32,
    },
    /// How probable the prompt's next token was, from its second on.
    Prompt(Box<Logprobs>),
    /// The next token of a choice.
    Token {
        /// Which of the `n`, from zero.
        choice: u16,
        /// The token.
        token: u32,
        /// How probable it was, if that was asked for.
        logprobs: Option<Box<Logprobs>>,
    },
    /// The prompt's vector; `Finished` follows.
    Embedded(Box<[f32]>),
    /// There are no more of a choice.
    Finished {
        /// Which of the `n`, from zero.
        choice: u16,
        /// Why.
        reason: FinishReason,
    },
    /// Something of the request could not be computed, and all of it ends.
    Failed(Failure),
}

/// Why a request could not be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It could never run.
    #[error("the request needs more of the cache than there is")]
    NoRoom,
    /// The model failed.
    #[error("the model could not be run: {0}")]
    Step(String),
    /// The model's numbers mean nothing.
    #[error(transparent)]
    Corrupted(#[from] Corrupted),
    /// What may come next is not known.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-text token, a stop string, or the end of what a grammar describes.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// The time that the request had is over, or too short for what is left to read.
    Deadline,
}

/// How busy the engine is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Sequences in the batch.
    pub running: usize,
    /// Sequences that wait for room in it.
    pub waiting: usize,
    /// Those of them that wait for another to read the prompt that they share.
    pub deferred: usize,
    /// Blocks of the cache in use.
    pub blocks_used: u32,
    /// Most blocks that were ever in use.
    pub blocks_touched: u32,
    /// All blocks of the cache.
    pub blocks: u32,
    /// What has happened so far.
    pub counts: Counts,
    /// Requests that were not taken so far.
    pub refusals: Refusals,
    /// What those who wait want.
    pub backlog: Backlog,
    /// How fast that becomes less.
    pub rates: Rates,
}

/// What the engine serves at most.
#[derive(Clone, Copy, Debug)]
pub struct EngineLimits {
    /// Tokens of one sequence.
    pub context: u32,
    /// Sequences in the batch.
    pub sequences: u32,
    /// Tokens of a step.
    pub step_tokens: u32,
    /// Requests that wait; a quarter more if they are of tenants that have few among them.
    pub queue: u32,
    /// Tokens of their prompts, likewise; a single one may always wait.
    pub queue_tokens: u32,
    /// Tokens that the model has.
    pub vocabulary: u32,
}

#[cfg(test)]
mod tests;
