//! What becomes of a request: when it has its tokens and how its answers end.
//!
//! In: what the listener hears of, with the time at which it happened in the engine: a client that reads slowly makes no
//! token late. Out: series.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use contract::metrics::Metric;

use super::{ENGINE, Metrics};
use crate::engine::FinishReason;

/// How answers end, in vLLM's words.
const STOP: &str = "stop";
const LENGTH: &str = "length";
const ABORT: &str = "abort";
const ERROR: &str = "error";
/// And in ours.
const DEADLINE: &str = "deadline";
/// Where a prompt's tokens come from, in vLLM's words.
const COMPUTED: &str = "local_compute";
const CACHED: &str = "local_cache_hit";

/// A counter that has never counted is zero, not absent.
pub(super) fn zero(metrics: &Metrics) {
    for outcome in [STOP, LENGTH, ABORT, ERROR, DEADLINE] {
        finished(metrics, outcome, 0);
    }
    for source in [COMPUTED, CACHED] {
        prompt(metrics, source, 0);
    }
    cached(metrics, 0);
}

fn finished(metrics: &Metrics, outcome: &str, n: u64) {
    metrics.count_by(Metric::RequestSuccess, &[&metrics.model, ENGINE, outcome], n);
}

fn prompt(metrics: &Metrics, source: &str, n: u64) {
    metrics.count_by(Metric::PromptTokensBySource, &[&metrics.model, ENGINE, source], n);
}

fn cached(metrics: &Metrics, n: u64) {
    metrics.count(Metric::PromptTokensCached, n);
    metrics.count_by(Metric::PromptTokensCachedBySource, &[&metrics.model, ENGINE, CACHED], n);
}

/// One request's measurements; the rest is recorded when it is dropped, however that happens.
#[derive(Debug)]
pub struct RequestGuard {
    metrics: Arc<Metrics>,
    arrived: Instant,
    /// Of each choice that has tokens.
    last_tokens: BTreeMap<u16, Instant>,
    n_prompt: u64,
    n_cached: u64,
    /// Answers that have not ended.
    open: u16,
    outcome: &'static str,
}

impl RequestGuard {
    /// A request that arrived then, with a prompt of so many tokens that wants so many answers.
    pub fn new(metrics: Arc<Metrics>, arrived: Instant, n_prompt: usize, n: u16) -> Self {
        let (last_tokens, n_prompt) = (BTreeMap::new(), n_prompt as u64);
        // Whoever drops the guard without a word has gone away.
        Self { metrics, arrived, last_tokens, n_prompt, n_cached: 0, open: n, outcome: ABORT }
    }

    /// It waits no longer, and the cache has so many tokens of its prompt.
    pub fn admitted(&mut self, cached: u32) {
        self.n_cached = cached.into();
    }

    /// All of the prompt has been read.
    pub fn read(&self) {
        let metrics = &self.metrics;
        metrics.count(Metric::PromptTokens, self.n_prompt);
        cached(metrics, self.n_cached);
        prompt(metrics, CACHED, self.n_cached);
        prompt(metrics, COMPUTED, self.n_prompt.saturating_sub(self.n_cached));
    }

    /// A choice had a token then.
    pub fn token(&mut self, choice: u16, now: Instant) {
        let metrics = &self.metrics;
        if self.last_tokens.is_empty() {
            self.read();
        }
        let (metric, since) = match self.last_tokens.insert(choice, now) {
            Some(last) => (Metric::InterTokenLatency, last),
            None => (Metric::TimeToFirstToken, self.arrived),
        };
        metrics.observe(metric, now.saturating_duration_since(since).as_secs_f64());
        metrics.count(Metric::GenerationTokens, 1);
    }

    /// An answer was complete then.
    pub fn finished(&mut self, reason: FinishReason, now: Instant) {
        self.open = self.open.saturating_sub(1);
        let outcome = match reason {
            FinishReason::Stop => STOP,
            FinishReason::Length => LENGTH,
            FinishReason::Deadline => DEADLINE,
        };
        self.ended(outcome, now);
    }

    /// Its time is over, and so are all its answers.
    pub fn late(&mut self) {
        self.outcome = DEADLINE;
    }

    /// The engine failed.
    pub fn failed(&mut self) {
        self.outcome = ERROR;
    }

    fn ended(&self, outcome: &str, now: Instant) {
        let latency = now.saturating_duration_since(self.arrived).as_secs_f64();
        self.metrics.observe(Metric::RequestLatency, latency);
        finished(&self.metrics, outcome, 1);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        for _ in 0..self.open {
            self.ended(self.outcome, Instant::now());
        }
    }
}
