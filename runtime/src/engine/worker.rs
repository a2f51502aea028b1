//! The one thread that owns model and cache: receive → schedule → forward → sample → emit.
//!
//! In: arrivals. Out: events.
//! A step that fails ends the requests that were in it, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::constraint::{Allowed, Constraint, ConstraintError, allows, ask_during};
use super::sampler::adjust::Past;
use super::sampler::{Draw, Sampling, Scratch, sample};
use super::scheduler::{Admitted, Scheduler, Step, StepLimits};
use super::sequence::{Sequence, SequenceId};
use super::{Arrival, EngineHandle, EngineLimits, Event, FinishReason, Job, Load};
use crate::exit::chain;
use crate::model::{Cache, ForwardError, Model, with_floats};

/// Owns model and cache.
pub struct Worker {
    model: Box<dyn Model>,
    cache: Cache,
    scheduler: Scheduler,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    requests: BTreeMap<SequenceId, Request>,
    load: watch::Sender<Load>,
    next: u64,
    scratch: Scratch,
}

struct Request {
    ends: Arc<BTreeSet<u32>>,
    min_tokens: u32,
    sampling: Sampling,
    constraint: Option<Box<dyn Constraint>>,
    events: mpsc::Sender<Event>,
    /// Dropped when it is admitted.
    waits: Option<OwnedSemaphorePermit>,
}

impl Worker {
    /// A worker that waits for [`Worker::run`], and the handle to it.
    #[must_use]
    pub fn new(model: Box<dyn Model>, cache: Cache, limits: EngineLimits) -> (Self, EngineHandle) {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let n_blocks = u32::try_from(cache.n_blocks()).unwrap_or(u32::MAX);
        let room = Arc::new(Semaphore::new(limits.queue as usize));
        let groups = cache.spec().groups.len();
        let (sequences, tokens) = (limits.sequences.min(limits.step_tokens), limits.step_tokens);
        let scheduler = Scheduler::new(StepLimits { sequences, tokens, groups }, n_blocks);
        let (load, seen) = watch::channel(scheduler.load());
        let requests = BTreeMap::new();
        let worker =
            Self { model, cache, scheduler, arrivals, requests, load, next: 0, scratch: Scratch::default() };
        (worker, EngineHandle { arrivals: sender, room, load: seen, limits })
    }

    /// Serves until every handle is gone and every request is finished.
    pub fn run(mut self) {
        while self.receive() {
            self.forget_the_gone();
            for admitted in self.scheduler.admit() {
                self.admitted(admitted);
            }
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
        let Arrival { job, events, waits } = arrival;
        let Job { prompt, max_tokens, ends, min_tokens, sampling, class, constraint } = job;
        let id = SequenceId(self.next);
        self.next += 1;
        if self.scheduler.add(Sequence::new(id, &class, prompt, max_tokens)) {
            let waits = Some(waits);
            self.requests.insert(id, Request { ends, min_tokens, sampling, constraint, events, waits });
        } else {
            let message = "the request needs more of the cache than there is".to_owned();
            emit(&events, Event::Failed(message));
        }
    }

    /// A request that had to give way is admitted again, and nobody is told.
    fn admitted(&mut self, Admitted { id, cached }: Admitted) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        if request.waits.take().is_some() {
            emit(&request.events, Event::Admitted { cached });
        }
    }

    /// Forgets requests whose client has gone.
    fn forget_the_gone(&mut self) {
        let gone: Vec<_> =
            self.requests.iter().filter(|(_, r)| r.events.is_closed()).map(|(id, _)| *id).collect();
        for id in gone {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: SequenceId) {
        self.scheduler.remove(id);
        self.requests.remove(&id);
    }

    fn step(&mut self, step: &Step) {
        let chosen = match self.choose(step) {
            Ok(chosen) => chosen,
            Err(error) => {
                tracing::error!(error = chain(&error), sequences = step.parts.len(), "a step failed");
                return step.parts.iter().for_each(|(id, _)| self.fail(*id, &error));
            }
        };
        self.scheduler.computed(step);
        for ((id, _), token) in step.rows.iter().zip(chosen) {
            if let Err(error) = token.and_then(|token| self.chosen(*id, token)) {
                self.fail(*id, &error);
            }
        }
    }

    /// Runs the model and chooses a token for every row of logits.
    fn choose(&mut self, step: &Step) -> Result<Vec<Result<u32, ConstraintError>>, ForwardError> {
        let taken = |(id, _): &(SequenceId, u32)| self.requests.get_mut(id)?.constraint.take();
        let mut constraints: Vec<_> = step.rows.iter().map(taken).collect();
        let (model, cache) = (&mut self.model, &mut self.cache);
        let (logits, masks) = ask_during(&mut constraints, || model.forward(&step.input, cache));
        let (requests, scheduler, scratch) = (&self.requests, &self.scheduler, &mut self.scratch);
        let chosen = with_floats(&logits?, |numbers| {
            let vocabulary = numbers.len() / step.rows.len().max(1);
            let row = |(row, ((id, position), allowed)): (usize, (&(SequenceId, u32), Allowed))| {
                let logits = &numbers[row * vocabulary..][..vocabulary];
                let draw = Draw { position: *position, choice: 0 };
                // Those who left since the step was planned are not missed.
                let (Some(request), Some((prompt, answer))) = (requests.get(id), scheduler.tokens(*id))
                else {
                    return Ok(0);
                };
                let early = answer.len() < request.min_tokens as usize;
                let forbidden = early.then_some(&*request.ends);
                let past = Past { prompt, answer, forbidden, allowed: allowed? };
                pick(logits, &request.sampling, past, draw, scratch)
            };
            step.rows.iter().zip(masks).enumerate().map(row).collect()
        })?;
        for ((id, _), constraint) in step.rows.iter().zip(constraints) {
            if let Some(request) = self.requests.get_mut(id) {
                request.constraint = constraint;
            }
        }
        Ok(chosen)
    }

    fn chosen(&mut self, id: SequenceId, token: u32) -> Result<(), ConstraintError> {
        let more = self.scheduler.push(id, token);
        let Some(request) = self.requests.get_mut(&id) else { return Ok(()) };
        let ends = request.ends.contains(&token);
        let complete = match &mut request.constraint {
            Some(constraint) if !ends => constraint.chosen(token)?,
            _ => false,
        };
        emit(&request.events, Event::Token(token));
        let finished =
            if ends || complete { Some(FinishReason::Stop) } else { (!more).then_some(FinishReason::Length) };
        if let Some(reason) = finished {
            emit(&request.events, Event::Finished(reason));
            self.forget(id);
        }
        Ok(())
    }

    fn fail(&mut self, id: SequenceId, error: &dyn std::error::Error) {
        if let Some(request) = self.requests.get(&id) {
            emit(&request.events, Event::Failed(chain(error)));
        }
        self.forget(id);
    }

    fn tell_load(&self) {
        let mut now = self.scheduler.load();
        // Whoever waits for the first time still has a place, which the handle counts.
        let places = self.requests.values().filter(|request| request.waits.is_some()).count();
        now.waiting = now.waiting.saturating_sub(places);
        self.load.send_if_modified(|load| std::mem::replace(load, now) != now);
    }
}

/// Sends without waiting: there is room for every event, and a client that has gone is noticed before the next
/// step.
fn emit(events: &mpsc::Sender<Event>, event: Event) {
    let _ = events.try_send(event);
}

/// A token that the mask allows. Where all of those would end the answer too early, it ends early.
fn pick(
    logits: &[f32],
    sampling: &Sampling,
    past: Past,
    draw: Draw,
    scratch: &mut Scratch,
) -> Result<u32, ConstraintError> {
    let token = sample(logits, sampling, &past, draw, scratch);
    match past {
        Past { allowed: Some(mask), .. } if !allows(mask, token) => {}
        _ => return Ok(token),
    }
    match past.forbidden {
        Some(_) => pick(logits, sampling, Past { forbidden: None, ..past }, draw, scratch),
        None => Err(ConstraintError("no token may come next".into())),
    }
}
