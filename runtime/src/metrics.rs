//! The process's metrics, made from the definitions in `contract` and from nothing else.
//!
//! In: events of requests, load, byte counts. Out: Prometheus text.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use contract::http::Phase;
use contract::memory::MemoryPlan;
use contract::metrics::{Kind, Metric};
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

use crate::engine::scheduler::Counts;
use crate::engine::{FinishReason, Load};

/// What this program exposes.
const EXPOSED: [Metric; 15] = [
    Metric::RequestsRunning,
    Metric::RequestsWaiting,
    Metric::KvCacheUsage,
    Metric::PrefixCacheQueries,
    Metric::PrefixCacheHits,
    Metric::Preemptions,
    Metric::PromptTokens,
    Metric::GenerationTokens,
    Metric::RequestSuccess,
    Metric::TimeToFirstToken,
    Metric::InterTokenLatency,
    Metric::RequestLatency,
    Metric::RuntimePlannedBytes,
    Metric::RuntimeMeasuredBytes,
    Metric::LoadSeconds,
];
/// There is one engine a process; vLLM counts them.
const ENGINE: &str = "0";
/// How requests end, in vLLM's words.
const STOP: &str = "stop";
const LENGTH: &str = "length";
const ABORT: &str = "abort";
const ERROR: &str = "error";

/// All series of one served model.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    model: String,
    counters: BTreeMap<Metric, IntCounterVec>,
    gauges: BTreeMap<Metric, GaugeVec>,
    histograms: BTreeMap<Metric, HistogramVec>,
}

impl Metrics {
    /// Empty series for a model of this name.
    #[must_use]
    pub fn new(model: &str) -> Self {
        let mut metrics = Self {
            registry: Registry::new(),
            model: model.to_owned(),
            counters: BTreeMap::new(),
            gauges: BTreeMap::new(),
            histograms: BTreeMap::new(),
        };
        for metric in EXPOSED {
            metrics.register(metric);
        }
        let process = Box::new(ProcessCollector::for_self());
        metrics.registry.register(process).expect("no definition is called process_*");
        // A counter that has never counted is zero, not absent.
        for metric in [Metric::PromptTokens, Metric::GenerationTokens] {
            metrics.count(metric, 0);
        }
        for outcome in [STOP, LENGTH, ABORT, ERROR] {
            metrics.finished(outcome, 0);
        }
        for histogram in metrics.histograms.values() {
            let _empty = histogram.with_label_values(&[model, ENGINE]);
        }
        metrics.load(Load::default());
        metrics
    }

    fn register(&mut self, metric: Metric) {
        let definition = metric.definition();
        let opts = Opts::new(definition.name, definition.help);
        let valid = "definitions are valid and distinct, which a test of `contract` pins";
        let collector: Box<dyn Collector> = match definition.kind {
            Kind::Counter => {
                let made = IntCounterVec::new(opts, definition.labels).expect(valid);
                self.counters.insert(metric, made.clone());
                Box::new(made)
            }
            Kind::Gauge => {
                let made = GaugeVec::new(opts, definition.labels).expect(valid);
                self.gauges.insert(metric, made.clone());
                Box::new(made)
            }
            Kind::Histogram(buckets) => {
                let opts = HistogramOpts::from(opts).buckets(buckets.to_vec());
                let made = HistogramVec::new(opts, definition.labels).expect(valid);
                self.histograms.insert(metric, made.clone());
                Box::new(made)
            }
        };
        self.registry.register(collector).expect(valid);
    }

    /// Prometheus text.
    #[must_use]
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    /// How busy the engine is.
    #[allow(clippy::cast_precision_loss, reason = "counts of requests are small")]
    pub fn load(&self, load: Load) {
        self.set(Metric::RequestsRunning, &[&self.model, ENGINE], load.running as f64);
        self.set(Metric::RequestsWaiting, &[&self.model, ENGINE], load.waiting as f64);
        let used = f64::from(load.blocks_used) / f64::from(load.blocks.max(1));
        self.set(Metric::KvCacheUsage, &[&self.model, ENGINE], used);
        let Counts { looked_for, found, preemptions } = load.counts;
        self.count_to(Metric::PrefixCacheQueries, looked_for);
        self.count_to(Metric::PrefixCacheHits, found);
        self.count_to(Metric::Preemptions, preemptions);
    }

    /// What was planned, and what is.
    #[allow(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^53")]
    pub fn memory(&self, planned: &MemoryPlan, measured: &MemoryPlan) {
        for (metric, plan) in
            [(Metric::RuntimePlannedBytes, planned), (Metric::RuntimeMeasuredBytes, measured)]
        {
            for (component, bytes) in plan.components() {
                self.set(metric, &[component], bytes.0 as f64);
            }
        }
    }

    /// How long the phases of loading took.
    pub fn phases(&self, seconds: &[(Phase, f64)]) {
        for (phase, seconds) in seconds {
            self.set(Metric::LoadSeconds, &[phase.name()], *seconds);
        }
    }

    fn finished(&self, outcome: &str, n: u64) {
        self.counters[&Metric::RequestSuccess].with_label_values(&[&self.model, ENGINE, outcome]).inc_by(n);
    }

    fn count(&self, metric: Metric, n: u64) {
        self.counters[&metric].with_label_values(&[&self.model, ENGINE]).inc_by(n);
    }

    /// For what is counted elsewhere.
    fn count_to(&self, metric: Metric, n: u64) {
        let counter = self.counters[&metric].with_label_values(&[&self.model, ENGINE]);
        counter.inc_by(n.saturating_sub(counter.get()));
    }

    fn set(&self, metric: Metric, labels: &[&str], value: f64) {
        self.gauges[&metric].with_label_values(labels).set(value);
    }

    fn observe(&self, metric: Metric, since: Instant) {
        let seconds = since.elapsed().as_secs_f64();
        self.histograms[&metric].with_label_values(&[&self.model, ENGINE]).observe(seconds);
    }
}

/// One request's measurements; the rest is recorded when it is dropped, however that happens.
#[derive(Debug)]
pub struct RequestGuard {
    metrics: Arc<Metrics>,
    arrived: Instant,
    last_token: Option<Instant>,
    n_prompt: u64,
    outcome: &'static str,
}

impl RequestGuard {
    /// A request that arrived then with a prompt of so many tokens.
    pub fn new(metrics: Arc<Metrics>, arrived: Instant, n_prompt: usize) -> Self {
        // Whoever drops the guard without a word has gone away.
        Self { metrics, arrived, last_token: None, n_prompt: n_prompt as u64, outcome: ABORT }
    }

    /// A token came.
    pub fn token(&mut self) {
        let metrics = &self.metrics;
        match self.last_token {
            Some(last) => metrics.observe(Metric::InterTokenLatency, last),
            None => {
                metrics.observe(Metric::TimeToFirstToken, self.arrived);
                metrics.count(Metric::PromptTokens, self.n_prompt);
            }
        }
        metrics.count(Metric::GenerationTokens, 1);
        self.last_token = Some(Instant::now());
    }

    /// The answer is complete.
    pub fn finished(&mut self, reason: FinishReason) {
        self.outcome = match reason {
            FinishReason::Stop => STOP,
            FinishReason::Length => LENGTH,
            FinishReason::Deadline => ABORT,
        };
    }

    /// The engine failed.
    pub fn failed(&mut self) {
        self.outcome = ERROR;
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let metrics = &self.metrics;
        metrics.observe(Metric::RequestLatency, self.arrived);
        metrics.finished(self.outcome, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_to_a_request_is_counted_however_it_ends() {
        let metrics = Arc::new(Metrics::new("m"));
        for line in [
            "vllm:request_success_total{engine=\"0\",finished_reason=\"error\",model_name=\"m\"} 0",
            "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"m\"} 0",
        ] {
            assert!(metrics.text().lines().any(|l| l == line), "{line} before the first request");
        }
        let mut guard = RequestGuard::new(metrics.clone(), Instant::now(), 5);
        guard.token();
        guard.token();
        guard.finished(FinishReason::Stop);
        drop(guard);
        drop(RequestGuard::new(metrics.clone(), Instant::now(), 7));
        let counts = Counts { looked_for: 96, found: 64, preemptions: 1 };
        metrics.load(Load { running: 1, waiting: 2, blocks_used: 1, blocks: 4, counts, ..Load::default() });
        metrics.phases(&[(Phase::Loading, 1.5)]);
        let text = metrics.text();
        for line in [
            "vllm:prompt_tokens_total{engine=\"0\",model_name=\"m\"} 5",
            "vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 2",
            "vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"m\"} 1",
            "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\",model_name=\"m\"} 1",
            "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"m\"} 1",
            "vllm:inter_token_latency_seconds_count{engine=\"0\",model_name=\"m\"} 1",
            "vllm:e2e_request_latency_seconds_count{engine=\"0\",model_name=\"m\"} 2",
            "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.25",
            "vllm:prefix_cache_queries_total{engine=\"0\",model_name=\"m\"} 96",
            "vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"m\"} 64",
            "vllm:num_preemptions_total{engine=\"0\",model_name=\"m\"} 1",
            "llmfleet_load_seconds{phase=\"Loading\"} 1.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
