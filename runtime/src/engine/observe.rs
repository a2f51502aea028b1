//! What the worker measures, for whoever counts it.
//!
//! In: nothing. Out: numbers. It must not know metrics' names.

use std::time::Instant;

use super::scheduler::Served;

/// Hears of everything that the worker does. It is called between steps and must not take long.
pub trait Observer: Send {
    /// A step was computed.
    fn step(&mut self, step: &StepSeen<'_>);
    /// A choice that had tokens has none any more, for whatever reason.
    fn choice(&mut self, choice: &ChoiceSeen);
    /// The last choice of a request that had tokens has none any more.
    fn request(&mut self, request: &RequestSeen);
    /// A request ended because the model's numbers were not finite.
    fn corrupted(&mut self);
}

/// A step.
#[derive(Clone, Copy, Debug)]
pub struct StepSeen<'a> {
    /// How long it took, with choosing its tokens.
    pub seconds: f64,
    /// What it did for each of its sequences.
    pub served: &'a [Served],
}

/// A choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChoiceSeen {
    /// Seconds before it was first in the batch.
    pub queue: f64,
    /// Seconds from then to its first token.
    pub prefill: f64,
    /// Seconds from then to its last.
    pub decode: f64,
    /// Tokens of its prompt.
    pub prompt: u32,
    /// Those of them that the cache did not have when it first was in the batch.
    pub computed: u32,
    /// Tokens of its answer.
    pub generated: u32,
    /// Times that it gave way.
    pub preemptions: u32,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSeen {
    /// Answers that it asked for.
    pub n: u16,
    /// Most tokens that each could have.
    pub max_tokens: u32,
    /// Tokens of the longest.
    pub most_generated: u32,
}

/// Nobody counts.
impl Observer for () {
    fn step(&mut self, _: &StepSeen<'_>) {}
    fn choice(&mut self, _: &ChoiceSeen) {}
    fn request(&mut self, _: &RequestSeen) {}
    fn corrupted(&mut self) {}
}

/// When a choice got how far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    arrived: Instant,
    admitted: Option<(Instant, u32)>,
    tokens: Option<(Instant, Instant)>,
}

impl Times {
    pub(super) const fn new(arrived: Instant) -> Self {
        Self { arrived, admitted: None, tokens: None }
    }

    /// It is in the batch, with so many tokens of its prompt in the cache. Only the first time counts.
    pub(super) fn admitted(&mut self, now: Instant, cached: u32) {
        self.admitted.get_or_insert((now, cached));
    }

    /// It has another token.
    pub(super) fn token(&mut self, now: Instant) {
        self.tokens = Some((self.tokens.map_or(now, |(first, _)| first), now));
    }

    /// What came of it, if anything did: of so many tokens and so often given way.
    pub(super) fn seen(&self, (prompt, generated): (u32, u32), preemptions: u32) -> Option<ChoiceSeen> {
        let ((admitted, cached), (first, last)) = (self.admitted?, self.tokens?);
        let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        Some(ChoiceSeen {
            queue: seconds(self.arrived, admitted),
            prefill: seconds(admitted, first),
            decode: seconds(first, last),
            prompt,
            computed: prompt.saturating_sub(cached),
            generated,
            preemptions,
        })
    }
}
