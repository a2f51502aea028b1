//! Requests and their choices as the worker keeps them.
//!
//! In: what was asked for and what has come of it. Out: whom to tell what. It must not know the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::engine::Event;
use crate::engine::constraint::Constraint;
use crate::engine::handle::{Cancelled, Stamped, Waits};
use crate::engine::observe::Times;
use crate::engine::pool::Pool;
use crate::engine::sampler::Sampling;
use crate::engine::sequence::SequenceId;

/// What its choices have in common.
pub(super) struct Request {
    pub(super) ends: Arc<BTreeSet<u32>>,
    pub(super) min_tokens: u32,
    pub(super) sampling: Sampling,
    pub(super) n: u16,
    pub(super) max_tokens: u32,
    pub(super) arrived: Instant,
    /// Tokens of the longest of its answers that have ended.
    pub(super) most_generated: u32,
    pub(super) logprobs: Option<u32>,
    pub(super) prompt_logprobs: Option<u32>,
    /// The prompt's vector as far as it is read, where that is what is wanted.
    pub(super) pool: Option<Pool>,
    pub(super) events: mpsc::Sender<Stamped>,
    pub(super) cancelled: Cancelled,
    /// Dropped when it is admitted.
    pub(super) waits: Option<Waits>,
    /// How many it was told to be ahead of it.
    pub(super) ahead: Option<u32>,
}

/// One of its answers.
pub(super) struct Choice {
    /// The first choice, by which the request is known.
    pub(super) request: SequenceId,
    pub(super) index: u16,
    pub(super) constraint: Option<Box<dyn Constraint>>,
    pub(super) times: Times,
}

/// All that are not answered to the end.
#[derive(Default)]
pub(super) struct Requests {
    requests: BTreeMap<SequenceId, Request>,
    choices: BTreeMap<SequenceId, Choice>,
}

impl Requests {
    /// A request, the names of whose choices follow each other.
    pub(super) fn insert(
        &mut self,
        first: SequenceId,
        request: Request,
        constraint: Option<Box<dyn Constraint>>,
    ) {
        let times = Times::new(request.arrived);
        for index in 1..request.n {
            let constraint = constraint.as_ref().map(|constraint| constraint.fork());
            let id = SequenceId(first.0 + u64::from(index));
            self.choices.insert(id, Choice { request: first, index, constraint, times });
        }
        self.choices.insert(first, Choice { request: first, index: 0, constraint, times });
        self.requests.insert(first, request);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// A choice and its request, unless it has gone.
    pub(super) fn get(&self, id: SequenceId) -> Option<(&Request, &Choice)> {
        let choice = self.choices.get(&id)?;
        Some((self.requests.get(&choice.request)?, choice))
    }

    /// The same to change them.
    pub(super) fn get_mut(&mut self, id: SequenceId) -> Option<(&mut Request, &mut Choice)> {
        let choice = self.choices.get_mut(&id)?;
        Some((self.requests.get_mut(&choice.request)?, choice))
    }

    /// All choices of the request that this one is of.
    pub(super) fn together(&self, id: SequenceId) -> Vec<SequenceId> {
        let Some(Choice { request, .. }) = self.choices.get(&id) else { return Vec::new() };
        let from_first = self.choices.range(request..);
        from_first.take_while(|(_, c)| c.request == *request).map(|(id, _)| *id).collect()
    }

    /// Those that nobody listens to any more.
    pub(super) fn gone(&self) -> Vec<SequenceId> {
        let gone = |choice: &Choice| {
            self.requests.get(&choice.request).is_none_or(|request| {
                let cancelled = request.cancelled.get(usize::from(choice.index));
                request.events.is_closed() || cancelled.is_some_and(|cancelled| cancelled.load(Relaxed))
            })
        };
        self.choices.iter().filter(|(_, choice)| gone(choice)).map(|(id, _)| *id).collect()
    }

    /// Forgets a choice, and after the last one its request, which it gives back.
    pub(super) fn remove(&mut self, id: SequenceId) -> Option<Request> {
        let Choice { request, .. } = self.choices.remove(&id)?;
        let next = self.choices.range(request..).next();
        if next.is_some_and(|(_, next)| next.request == request) {
            None
        } else {
            self.requests.remove(&request)
        }
    }

    /// Requests that have not been admitted yet.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Request> {
        self.requests.values().filter(|request| request.waits.is_some())
    }

    /// Tells one that waits how many are ahead of it, where that is news, and of those who know it already only if
    /// they are `due` and have read what they were told last.
    pub(super) fn tell_place(&mut self, id: SequenceId, ahead: u32, due: bool) {
        let Some(request) = self.requests.get_mut(&id).filter(|request| request.waits.is_some()) else {
            return;
        };
        let read = request.events.capacity() == request.events.max_capacity();
        let news = request.ahead.is_none_or(|told| due && told != ahead);
        if read && news {
            request.ahead = Some(ahead);
            emit(&request.events, Event::Queued { ahead });
        }
    }
}

/// Sends without waiting: there is room for every event, and a client that has gone is noticed before the next
/// step.
pub(super) fn emit(events: &mpsc::Sender<Stamped>, event: Event) {
    let _ = events.try_send((event, Instant::now()));
}
