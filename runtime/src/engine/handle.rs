//! How requests reach the engine: what it refuses at once, and the stream that answers.
//!
//! In: [`Job`]s. Out: [`Events`], or [`Refused`]. It must not know what the worker does with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::shares::{Share, Shares};
use super::tenants::Tenant;
use super::{EngineLimits, Event, Job, Load, rate};

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many wait as may, or as many of this tenant.
    #[error("{waiting} requests are waiting already, and there is no room for another of yours")]
    QueueFull {
        /// How many wait.
        waiting: usize,
        /// Seconds after which there should be room.
        retry_after: u32,
    },
    /// Those who wait have as many tokens as may wait.
    #[error(
        "the prompt has {asked} tokens, and with those that are waiting already it passes the most, {most}"
    )]
    TokensFull {
        /// Tokens of this prompt.
        asked: u32,
        /// Most tokens of all prompts that wait.
        most: u32,
        /// Seconds after which there should be room.
        retry_after: u32,
    },
    /// The prompt and the answer are longer than the context.
    #[error("{asked} tokens are more than the context of {context}")]
    TooLong {
        /// Prompt and answer.
        asked: u64,
        /// Most tokens of a sequence.
        context: u32,
    },
    /// It asks for nothing that could be computed.
    #[error(transparent)]
    Invalid(#[from] InvalidJob),
    /// Its time was over when it came.
    #[error("the request's deadline has passed")]
    Late,
    /// The engine has ended.
    #[error("the engine has ended")]
    Ended,
}

/// A job that nothing can be made of, whatever the engine does. Others would not outlive it, so it is refused here and
/// not only by whom it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJob {
    /// No token to go on from.
    #[error("the prompt has no tokens")]
    Prompt,
    /// No answer.
    #[error("n is 0: no answer is asked for")]
    Choices,
    /// Answers without tokens.
    #[error("max_tokens is 0: no token is asked for")]
    Tokens,
    /// A token that the model does not have.
    #[error("the prompt has the token {token}, but the model's are below {vocabulary}")]
    Token {
        /// The first of them.
        token: u32,
        /// Tokens that the model has.
        vocabulary: u32,
    },
}

impl InvalidJob {
    /// Whether something can be made of a job.
    fn check(job: &Job, vocabulary: u32) -> Result<(), Self> {
        match job {
            Job { prompt, .. } if prompt.is_empty() => Err(Self::Prompt),
            Job { n: 0, .. } => Err(Self::Choices),
            Job { max_tokens: 0, .. } => Err(Self::Tokens),
            Job { prompt, .. } => match prompt.iter().find(|token| **token >= vocabulary) {
                Some(token) => Err(Self::Token { token: *token, vocabulary }),
                None => Ok(()),
            },
        }
    }
}

impl Refused {
    /// Seconds after which the same request may well be taken, at least one; `None` if it never will be.
    #[must_use]
    pub const fn retry_after(&self) -> Option<u32> {
        match self {
            Self::QueueFull { retry_after, .. } | Self::TokensFull { retry_after, .. } => Some(*retry_after),
            Self::TooLong { .. } | Self::Invalid(_) | Self::Late | Self::Ended => None,
        }
    }
}

/// Requests that were not taken, by the bound that they met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// As many waited as may.
    pub requests: u64,
    /// Those who waited had as many tokens as may wait.
    pub tokens: u64,
}

#[derive(Debug, Default)]
struct Refusing {
    requests: AtomicU64,
    tokens: AtomicU64,
}

/// How often somebody looks again whether there is room, if nothing was heard of it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Submits requests. Clones submit to the same engine, which ends after the last of them is gone.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    arrivals: mpsc::UnboundedSender<Arrival>,
    /// As many places as requests may wait, so the channel is bounded by them.
    requests: Arc<Shares>,
    /// As many as tokens of their prompts may.
    tokens: Arc<Shares>,
    pub(super) load: watch::Receiver<Load>,
    limits: EngineLimits,
    refusing: Arc<Refusing>,
}

/// A place among those who wait. Dropping it lets the next one in.
#[derive(Debug)]
pub struct Place(Share);

/// A job on its way to the worker.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) job: Job,
    pub(super) events: mpsc::Sender<Stamped>,
    pub(super) cancelled: Cancelled,
    pub(super) waits: Waits,
    pub(super) at: Instant,
}

/// An event and when it happened.
pub(super) type Stamped = (Event, Instant);

/// For each choice, whether nobody wants more of it.
pub(super) type Cancelled = Arc<[AtomicBool]>;

/// Held while a request waits: its place, and those of its prompt's tokens.
#[derive(Debug)]
pub(super) struct Waits {
    _place: Share,
    _tokens: Share,
}

impl EngineHandle {
    pub(super) fn new(
        limits: EngineLimits,
        arrivals: mpsc::UnboundedSender<Arrival>,
        load: watch::Receiver<Load>,
    ) -> Self {
        let limits = EngineLimits { queue_tokens: limits.queue_tokens.max(limits.context), ..limits };
        let [requests, tokens] = [limits.queue, limits.queue_tokens].map(|most| Shares::new(most.into()));
        Self { arrivals, requests, tokens, load, limits, refusing: Arc::default() }
    }

    /// Most tokens of one sequence.
    #[must_use]
    pub const fn context(&self) -> u32 {
        self.limits.context
    }

    /// How busy the engine is.
    #[must_use]
    pub fn load(&self) -> Load {
        // The worker sees arrivals between two steps; places are taken at once. Those who wait again have none.
        let places = usize::try_from(self.requests.taken()).unwrap_or(usize::MAX);
        let load = *self.load.borrow();
        let Refusing { requests, tokens } = &*self.refusing;
        let refusals = Refusals { requests: requests.load(Relaxed), tokens: tokens.load(Relaxed) };
        Load { waiting: places + load.waiting, refusals, ..load }
    }

    /// Takes a place among those who wait for a request of this tenant, before any work is done for it, or says that
    /// there is none.
    pub fn reserve(&self, tenant: Tenant) -> Result<Place, Refused> {
        self.requests.take(tenant, 1).map(Place).ok_or_else(|| {
            self.refusing.requests.fetch_add(1, Relaxed);
            let waiting = usize::try_from(self.requests.taken()).unwrap_or(usize::MAX);
            Refused::QueueFull { waiting, retry_after: self.retry_after() }
        })
    }

    /// Hands a job over, or says at once why not.
    pub fn submit(&self, Place(place): Place, job: Job) -> Result<Events, Refused> {
        let (asked, most) = (self.asked(&job)?, self.limits.queue_tokens);
        let tokens = self.tokens.take(place.tenant, asked.into()).ok_or_else(|| {
            self.refusing.tokens.fetch_add(1, Relaxed);
            Refused::TokensFull { asked, most, retry_after: self.retry_after() }
        })?;
        self.hand_over(job, Waits { _place: place, _tokens: tokens })
    }

    /// Hands over one more job of a request that others were taken of, as soon as there is room for it to wait.
    ///
    /// # Cancel safety
    /// A job that was not handed over takes no room.
    pub async fn submit_next(&self, job: Job) -> Result<Events, Refused> {
        let (asked, tenant, mut load) = (self.asked(&job)?, job.class.tenant, self.load.clone());
        loop {
            let place = self.requests.take(tenant, 1);
            let tokens = place.as_ref().and_then(|_| self.tokens.take(tenant, asked.into()));
            if let (Some(place), Some(tokens)) = (place, tokens) {
                return self.hand_over(job, Waits { _place: place, _tokens: tokens });
            }
            // There is room when the worker has taken somebody in, or when somebody who read a body goes.
            if let Ok(Err(_)) = tokio::time::timeout(LOOK_AGAIN, load.changed()).await {
                return Err(Refused::Ended);
            }
        }
    }

    /// The tokens that have to be read, if what is wanted of them fits in the context and there is time left.
    fn asked(&self, job: &Job) -> Result<u32, Refused> {
        let EngineLimits { context, vocabulary, .. } = self.limits;
        InvalidJob::check(job, vocabulary)?;
        // Nothing is generated for a vector.
        let more = if job.embed.is_some() { 0 } else { job.max_tokens };
        let asked = job.prompt.len() as u64 + u64::from(more);
        if asked > u64::from(context) {
            return Err(Refused::TooLong { asked, context });
        }
        if job.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Refused::Late);
        }
        Ok(u32::try_from(job.prompt.len()).expect("it fits in the context, which is a u32"))
    }

    fn hand_over(&self, job: Job, waits: Waits) -> Result<Events, Refused> {
        let at = Instant::now();
        let (events, stream) = mpsc::channel(most_events(&job));
        let cancelled: Cancelled = (0..job.n).map(|_| AtomicBool::new(false)).collect();
        let arrival = Arrival { job, events, cancelled: cancelled.clone(), waits, at };
        self.arrivals.send(arrival).map_err(|_| Refused::Ended)?;
        Ok(Events { stream, cancelled, at })
    }

    fn retry_after(&self) -> u32 {
        let Load { backlog, rates, .. } = *self.load.borrow();
        rate::retry_after(backlog, rates)
    }
}

/// Room for every event that can ever come, so that the worker never waits for a slow client; of those who are told
/// their place in the queue, only one.
fn most_events(job: &Job) -> usize {
    let prompt = if job.prompt_logprobs.is_some() { job.prompt.len() } else { 0 };
    // Every choice has its tokens and an end; and it is queued once, admitted once, and may fail.
    usize::from(job.n) * (job.max_tokens as usize + 1) + prompt + 3
}

/// What becomes of one request. Dropping it cancels all of it.
#[derive(Debug)]
pub struct Events {
    stream: mpsc::Receiver<Stamped>,
    cancelled: Cancelled,
    at: Instant,
}

impl Events {
    /// The next event; `None` after the last.
    ///
    /// # Cancel safety
    /// No event is lost.
    pub async fn recv(&mut self) -> Option<Event> {
        let stamped = self.stream.recv().await?;
        Some(self.received(stamped))
    }

    /// The same for a thread that may wait.
    pub fn blocking_recv(&mut self) -> Option<Event> {
        let stamped = self.stream.blocking_recv()?;
        Some(self.received(stamped))
    }

    fn received(&mut self, (event, at): Stamped) -> Event {
        self.at = at;
        event
    }

    /// When what was received last happened, however long it has waited to be received.
    #[must_use]
    pub const fn at(&self) -> Instant {
        self.at
    }

    /// Ends one choice before the next step. Events that it had already may still come, and no `Finished`.
    pub fn cancel(&self, choice: u16) {
        if let Some(cancelled) = self.cancelled.get(usize::from(choice)) {
            cancelled.store(true, Relaxed);
        }
    }

    /// Ends all of them.
    pub fn close(&mut self) {
        self.stream.close();
    }
}
