//! The engine: requests in tokens in, streams of tokens out.
//!
//! In: [`Job`]s. Out: for each a bounded stream of [`Event`]s, ended by `Finished` or `Failed`.
//! One thread owns model and cache ([`worker`]); everybody else has an [`EngineHandle`].
//! It must not know text, templates or HTTP.
//!
//! # Cancel safety
//! Dropping a stream cancels its request within one step.

pub mod block_pool;
pub mod constraint;
pub mod prefix;
pub mod sampler;
pub mod scheduler;
pub mod sequence;
pub mod tenants;
pub mod worker;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use constraint::Constraint;
use sampler::Sampling;
use scheduler::Counts;
use sequence::Class;

/// A request to the engine.
#[derive(Debug)]
pub struct Job {
    /// Tokens to go on from; not empty.
    pub prompt: Vec<u32>,
    /// Most tokens to generate; at least one.
    pub max_tokens: u32,
    /// Tokens that end the answer, which come last in it.
    pub ends: Arc<BTreeSet<u32>>,
    /// Tokens of the answer before which none of those is chosen.
    pub min_tokens: u32,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Whose it is and how urgent.
    pub class: Class,
    /// What of the vocabulary may come next.
    pub constraint: Option<Box<dyn Constraint>>,
}

impl Job {
    /// The most likely tokens, as many as `max_tokens` whatever they are, for nobody in particular.
    #[must_use]
    pub fn new(prompt: Vec<u32>, max_tokens: u32) -> Self {
        Self {
            prompt,
            max_tokens,
            ends: Arc::default(),
            min_tokens: 0,
            sampling: Sampling::default(),
            class: Class::default(),
            constraint: None,
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It waits no longer. It is the first event, and comes once.
    Admitted {
        /// Tokens of the prompt that the cache had already.
        cached: u32,
    },
    /// The next token.
    Token(u32),
    /// There are no more.
    Finished(FinishReason),
    /// The step that it was part of could not be computed.
    Failed(String),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-text token, or a stop string.
    Stop,
    /// As many tokens as were asked for.
    Length,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many wait as may.
    #[error("{waiting} requests are waiting already, which is the most")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The prompt and the answer are longer than the context.
    #[error("{asked} tokens are more than the context of {context}")]
    TooLong {
        /// Prompt and answer.
        asked: u64,
        /// Most tokens of a sequence.
        context: u32,
    },
    /// The engine has ended.
    #[error("the engine has ended")]
    Ended,
}

/// How busy the engine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests in the batch.
    pub running: usize,
    /// Requests that wait for room in it.
    pub waiting: usize,
    /// Blocks of the cache in use.
    pub blocks_used: u32,
    /// Most blocks that were ever in use.
    pub blocks_touched: u32,
    /// All blocks of the cache.
    pub blocks: u32,
    /// What has happened so far.
    pub counts: Counts,
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
    /// Requests that wait.
    pub queue: u32,
}

/// Submits requests. Clones submit to the same engine, which ends after the last of them is gone.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    arrivals: mpsc::UnboundedSender<Arrival>,
    /// As many permits as requests may wait, so the channel is bounded by them.
    room: Arc<Semaphore>,
    load: watch::Receiver<Load>,
    limits: EngineLimits,
}

/// A place among those who wait. Dropping it lets the next one in.
#[derive(Debug)]
pub struct Place(OwnedSemaphorePermit);

/// A job on its way to the worker.
#[derive(Debug)]
struct Arrival {
    job: Job,
    events: mpsc::Sender<Event>,
    /// Held while the request waits.
    waits: OwnedSemaphorePermit,
}

impl EngineHandle {
    /// Most tokens of one sequence.
    #[must_use]
    pub const fn context(&self) -> u32 {
        self.limits.context
    }

    /// How busy the engine is.
    #[must_use]
    pub fn load(&self) -> Load {
        // The worker sees arrivals between two steps; places are taken at once. Those who wait again have none.
        let places = (self.limits.queue as usize).saturating_sub(self.room.available_permits());
        let load = *self.load.borrow();
        Load { waiting: places + load.waiting, ..load }
    }

    /// Takes a place among those who wait, before any work is done for the request, or says that there is none.
    pub fn reserve(&self) -> Result<Place, Refused> {
        let waiting = self.limits.queue as usize;
        let place = self.room.clone().try_acquire_owned();
        place.map(Place).map_err(|_| Refused::QueueFull { waiting })
    }

    /// Hands a job over, or says at once why not.
    pub fn submit(&self, Place(waits): Place, job: Job) -> Result<mpsc::Receiver<Event>, Refused> {
        let asked = job.prompt.len() as u64 + u64::from(job.max_tokens);
        if asked > u64::from(self.limits.context) {
            return Err(Refused::TooLong { asked, context: self.limits.context });
        }
        // Room for every event that can ever come, so that the worker never waits for a slow client.
        let (events, stream) = mpsc::channel(job.max_tokens as usize + 2);
        let arrival = Arrival { job, events, waits };
        self.arrivals.send(arrival).map_err(|_| Refused::Ended)?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests;
