//! The one thread that owns model and cache: receive → schedule → forward → sample → emit.
//!
//! In: arrivals. Out: events.
//! A step that fails is computed again, each sequence alone, and ends the requests that fail alone, and no others.

mod request;
mod rows;

use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};

use super::constraint::{ConstraintError, ask_during};
use super::handle::Arrival;
use super::observe::{Observer, RequestSeen, StepSeen};
use super::pool::Pool;
use super::rate::{Recently, prompt_tokens_beside};
use super::sampler::{Corrupted, Scratch};
use super::scheduler::{Admitted, Scheduler, Step, StepLimits};
use super::sequence::{Sequence, SequenceId};
use super::{EngineHandle, EngineLimits, Event, Failure, FinishReason, Job, Load};
use crate::exit::chain;
use crate::model::{Cache, ForwardError, Model, with_floats};
use request::{Request, Requests, emit};
use rows::{Row, Said, Silent, say, threads};

/// How often those who wait are told their place.
const TELL_PLACES: Duration = Duration::from_secs(1);

/// Owns model and cache.
pub struct Worker {
    model: Box<dyn Model>,
    cache: Cache,
    scheduler: Scheduler,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    requests: Requests,
    load: watch::Sender<Load>,
    next: u64,
    scratch: Vec<Scratch>,
    recently: Recently,
    /// What deadlines are counted from.
    began: Instant,
    told_places: Instant,
    observer: Box<dyn Observer>,
}

impl Worker {
    /// A worker that waits for [`Worker::run`], and the handle to it.
    #[must_use]
    pub fn new(model: Box<dyn Model>, cache: Cache, limits: EngineLimits) -> (Self, EngineHandle) {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let n_blocks = u32::try_from(cache.n_blocks()).unwrap_or(u32::MAX);
        let groups = cache.spec().groups.len();
        let (sequences, tokens) = (limits.sequences.min(limits.step_tokens), limits.step_tokens);
        let scheduler = Scheduler::new(StepLimits { sequences, tokens, groups }, n_blocks);
        let (load, seen) = watch::channel(scheduler.load());
        let began = Instant::now();
        let worker = Self {
            model,
            cache,
            scheduler,
            arrivals,
            requests: Requests::default(),
            load,
            next: 0,
            scratch: Vec::new(),
            recently: Recently::default(),
            began,
            told_places: began,
            observer: Box::new(()),
        };
        (worker, EngineHandle::new(limits, sender, seen))
    }

    /// Touches the memory that sampling from so many tokens takes, so that it does not grow later.
    pub fn prepare(&mut self, vocabulary: usize) {
        let scratch = || Scratch::new(vocabulary);
        self.scratch = std::iter::repeat_with(scratch).take(threads(self.model.kernels())).collect();
    }

    /// The same, heard by somebody.
    #[must_use]
    pub fn observed_by(self, observer: Box<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// Serves until every handle is gone and every request is finished.
    pub fn run(mut self) {
        while self.receive() {
            self.forget_the_gone();
            self.end_the_late();
            for admitted in self.scheduler.admit() {
                self.admitted(admitted);
            }
            self.tell_places();
            self.tell_load();
            if let Some(step) = self.scheduler.plan() {
                self.step(&step);
                self.tell_load();
            }
        }
    }

    /// Takes what has arrived; waits only if there is nothing else to do. `false` at the end of everything.
    fn receive(&mut self) -> bool {
        if self.requests.is_empty() {
            match self.arrivals.blocking_recv() {
                Some(arrival) => self.arrive(arrival),
                None => return false,
            }
        }
        loop {
            match self.arrivals.try_recv() {
                Ok(arrival) => self.arrive(arrival),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let Arrival { job, events, cancelled, waits, at: arrived } = arrival;
        let Job { prompt, n, max_tokens, class, constraint, deadline, prompt_logprobs, embed, .. } = job;
        let first = SequenceId(self.next);
        self.next += u64::from(n);
        let deadline = deadline.map(|deadline| millis(deadline.saturating_duration_since(self.began)));
        let mut sequence = Sequence::new(first, &class, prompt, max_tokens).until(deadline);
        let others = (first.0..self.next).skip(1).map(|id| sequence.follower(SequenceId(id)));
        let others: Vec<_> = others.collect();
        if embed.is_some() {
            sequence = sequence.only_read();
        }
        if prompt_logprobs.is_some() || embed.is_some_and(|pooling| !pooling.is_last()) {
            sequence = sequence.with_prompt_rows();
        }
        if !self.scheduler.add(sequence) {
            return emit(&events, Event::Failed(Failure::NoRoom));
        }
        for other in others {
            self.scheduler.add(other);
        }
        let Job { ends, min_tokens, sampling, logprobs, .. } = job;
        let (waits, ahead) = (Some(waits), None);
        let request = Request {
            ends,
            min_tokens,
            sampling,
            n,
            max_tokens,
            arrived,
            most_generated: 0,
            logprobs,
            prompt_logprobs,
            pool: embed.map(Pool::new),
            events,
            cancelled,
            waits,
            ahead,
        };
        self.requests.insert(first, request, constraint);
    }

    /// A request that had to give way is admitted again, and nobody is told.
    fn admitted(&mut self, Admitted { id, cached }: Admitted) {
        let Some((request, choice)) = self.requests.get_mut(id) else { return };
        choice.times.admitted(Instant::now(), cached);
        if request.waits.take().is_some() {
            emit(&request.events, Event::Admitted { cached });
        }
    }

    /// Forgets choices whose client has gone, or wants no more of them.
    fn forget_the_gone(&mut self) {
        for id in self.requests.gone() {
            self.forget(id);
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
    fn end_the_late(&mut self) {
        let read_rate = self.recently.rates().read.ceil() as u32;
        for id in self.scheduler.late(millis(self.began.elapsed()), read_rate) {
            self.finish(id, FinishReason::Deadline);
        }
    }

    fn forget(&mut self, id: SequenceId) {
        // Also of who waits again after giving way.
        if let (Some(sequence), Some((request, choice))) =
            (self.scheduler.remove(id), self.requests.get_mut(id))
        {
            let count = |tokens: &[u32]| u32::try_from(tokens.len()).unwrap_or(u32::MAX);
            let (prompt, answer) = sequence.tokens();
            if let Some(seen) = choice.times.seen((count(prompt), count(answer)), sequence.preemptions()) {
                request.most_generated = request.most_generated.max(seen.generated);
                if request.pool.is_none() {
                    self.recently.answer(seen.generated);
                }
                self.observer.choice(&seen);
            }
        }
        let ended = self.requests.remove(id).filter(|request| request.most_generated > 0);
        if let Some(Request { n, max_tokens, most_generated, .. }) = ended {
            self.observer.request(&RequestSeen { n, max_tokens, most_generated });
        }
    }

    fn step(&mut self, step: &Step) {
        let began = Instant::now();
        let said = match self.compute(step) {
            Ok(said) => said,
            // Whose fault it is shows when each is computed alone, which gives the same for all others.
            Err(error) if step.parts.len() > 1 => {
                tracing::warn!(error = chain(&error), sequences = step.parts.len(), "a step failed");
                for alone in step.split() {
                    // A request of several choices may have failed with the first of them.
                    if alone.parts.iter().any(|(id, _)| self.scheduler.running(*id).is_some()) {
                        self.step(&alone);
                    }
                }
                return;
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "a request could not be computed");
                let failure = Failure::Step(chain(&error));
                return step.parts.iter().for_each(|(id, _)| self.fail(*id, failure.clone()));
            }
        };
        let served = self.scheduler.computed(step);
        let (read, written) = served.iter().fold((0, 0), |sum, s| (sum.0 + s.read, sum.1 + s.written));
        let seconds = began.elapsed().as_secs_f64();
        self.recently.step(read, written, seconds);
        self.scheduler.read_beside(prompt_tokens_beside(self.recently.rates()));
        self.observer.step(&StepSeen { seconds, served: &served });
        for ((id, _), said) in step.rows.iter().zip(said) {
            if let Err(silent) = said.and_then(|said| Ok(self.tell(*id, said)?)) {
                // Another row may have ended it.
                let corrupted = matches!(silent, Silent::Corrupted(_)) && self.requests.get(*id).is_some();
                if corrupted {
                    tracing::error!("a request's numbers are not finite, and it ends");
                    self.observer.corrupted();
                }
                self.fail(*id, silent.into());
            }
        }
    }

    /// Runs the model and hears what every row of logits says.
    fn compute(&mut self, step: &Step) -> Result<Vec<Result<Said, Silent>>, ForwardError> {
        let (requests, scheduler) = (&mut self.requests, &self.scheduler);
        let mut taken = |(id, position): &(SequenceId, u32)| {
            // Not for a row about the prompt.
            scheduler.running(*id).filter(|sequence| *position >= sequence.n_tokens())?;
            requests.get_mut(*id)?.1.constraint.take()
        };
        let mut constraints: Vec<_> = step.rows.iter().map(&mut taken).collect();
        let (model, cache) = (&mut self.model, &mut self.cache);
        let (logits, masks) = ask_during(&mut constraints, || model.forward(&step.input, cache));
        let (requests, kernels, scratch) = (&self.requests, self.model.kernels(), &mut self.scratch);
        let hear = |numbers: &[f32]| {
            let vocabulary = numbers.len() / step.rows.len().max(1);
            let rows = step.rows.iter().zip(masks).enumerate().map(|(row, ((id, position), allowed))| {
                let logits = &numbers[row * vocabulary..][..vocabulary];
                let ((request, choice), sequence) = (requests.get(*id)?, scheduler.running(*id)?);
                if request.pool.is_some() {
                    return None;
                }
                let (choice, position) = (choice.index, *position);
                Some(Row { logits, request, choice, sequence, position, allowed })
            });
            say(&rows.collect::<Vec<_>>(), kernels, scratch)
        };
        let said = logits.and_then(|logits| Ok(with_floats(&logits, hear)?));
        for ((id, _), constraint) in step.rows.iter().zip(constraints) {
            if let (Some((_, choice)), Some(constraint)) = (self.requests.get_mut(*id), constraint) {
                choice.constraint = Some(constraint);
            }
        }
        let mut said = said?;
        self.take_states(step, &mut said)?;
        Ok(said)
    }

    /// Of those rows whose request wants its prompt's vector, the states are what they say.
    fn take_states(&self, step: &Step, said: &mut [Result<Said, Silent>]) -> Result<(), ForwardError> {
        let pools = |id| self.requests.get(id).is_some_and(|(request, _)| request.pool.is_some());
        if !step.rows.iter().any(|(id, _)| pools(*id)) {
            return Ok(());
        }
        let states = self.model.states(step.rows.len())?;
        let width = states.dims2()?.1;
        with_floats(&states, |numbers| {
            for (row, ((id, position), said)) in step.rows.iter().zip(said).enumerate() {
                if let Some(sequence) = self.scheduler.running(*id).filter(|_| pools(*id)) {
                    let last = *position == sequence.n_tokens();
                    let state = &numbers[row * width..][..width];
                    let sound = state.iter().all(|number| number.is_finite());
                    *said = if sound { Ok(Said::State(state.into(), last)) } else { Err(Corrupted.into()) };
                }
            }
        })?;
        Ok(())
    }

    fn tell(&mut self, id: SequenceId, said: Said) -> Result<(), ConstraintError> {
        let Some((request, choice)) = self.requests.get_mut(id) else { return Ok(()) };
        let (token, logprobs) = match said {
            Said::Nothing => return Ok(()),
            Said::Prompt(logprobs) => {
                emit(&request.events, Event::Prompt(logprobs));
                return Ok(());
            }
            Said::State(state, last) => {
                let Some(pool) = &mut request.pool else { return Ok(()) };
                pool.add(&state);
                if last {
                    choice.times.token(Instant::now());
                    emit(&request.events, Event::Embedded(pool.vector()));
                    self.finish(id, FinishReason::Stop);
                }
                return Ok(());
            }
            Said::Chosen(token, logprobs) => (token, logprobs),
        };
        let more = self.scheduler.push(id, token);
        choice.times.token(Instant::now());
        let ends = request.ends.contains(&token);
        let complete = match &mut choice.constraint {
            Some(constraint) if !ends => constraint.chosen(token)?,
            _ => false,
        };
        emit(&request.events, Event::Token { choice: choice.index, token, logprobs });
        if ends || complete {
            self.finish(id, FinishReason::Stop);
        } else if !more {
            self.finish(id, FinishReason::Length);
        }
        Ok(())
    }

    fn finish(&mut self, id: SequenceId, reason: FinishReason) {
        if let Some((request, choice)) = self.requests.get(id) {
            emit(&request.events, Event::Finished { choice: choice.index, reason });
        }
        self.forget(id);
    }

    /// All of the request that this choice is of.
    fn fail(&mut self, id: SequenceId, failure: Failure) {
        if let Some((request, _)) = self.requests.get(id) {
            emit(&request.events, Event::Failed(failure));
        }
        for id in self.requests.together(id) {
            self.forget(id);
        }
    }

    fn tell_places(&mut self) {
        let due = self.told_places.elapsed() >= TELL_PLACES;
        if due {
            self.told_places = Instant::now();
        }
        if self.requests.waiting().any(|request| due || request.ahead.is_none()) {
            for (id, ahead) in self.scheduler.queue() {
                self.requests.tell_place(id, ahead, due);
            }
        }
    }

    fn tell_load(&self) {
        let mut now = self.scheduler.load();
        // Whoever waits for the first time still has a place, which the handle counts.
        now.waiting = now.waiting.saturating_sub(self.requests.waiting().count());
        now.backlog = self.scheduler.backlog(self.recently.answer_tokens());
        now.rates = self.recently.rates();
        self.load.send_if_modified(|load| std::mem::replace(load, now) != now);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
