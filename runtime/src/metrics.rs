//! The process's metrics, made from the definitions in `contract` and from nothing else.
//!
//! In: events of requests and of the engine, load, byte counts. Out: Prometheus text.

mod engine;
mod request;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use contract::dtype::KvDType;
use contract::http::Phase;
use contract::memory::{BLOCK_TOKENS, MemoryPlan};
use contract::metrics::{Definition, Kind, Metric, token_buckets};
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

use crate::engine::scheduler::Counts;
use crate::engine::{Load, Refusals};
pub use engine::EngineMetrics;
pub use request::RequestGuard;

/// What this program exposes.
const EXPOSED: &[Metric] = &[
    Metric::RequestsRunning,
    Metric::RequestsWaiting,
    Metric::RequestsWaitingByReason,
    Metric::CacheConfig,
    Metric::KvCacheUsage,
    Metric::PrefixCacheQueries,
    Metric::PrefixCacheHits,
    Metric::Preemptions,
    Metric::PromptTokens,
    Metric::PromptTokensBySource,
    Metric::PromptTokensCached,
    Metric::PromptTokensCachedBySource,
    Metric::GenerationTokens,
    Metric::RequestSuccess,
    Metric::CorruptedRequests,
    Metric::AdmissionRejections,
    Metric::TimeToFirstToken,
    Metric::InterTokenLatency,
    Metric::RequestLatency,
    Metric::TimePerOutputToken,
    Metric::RequestQueueTime,
    Metric::RequestPrefillTime,
    Metric::RequestDecodeTime,
    Metric::RequestInferenceTime,
    Metric::RequestPromptTokens,
    Metric::RequestComputedTokens,
    Metric::RequestGenerationTokens,
    Metric::RequestMostTokens,
    Metric::RequestParamN,
    Metric::RequestParamMaxTokens,
    Metric::RequestPreemptions,
    Metric::StepTokens,
    Metric::StepSeconds,
    Metric::StepSequences,
    Metric::TenantTokens,
    Metric::ThrottledSeconds,
    Metric::RuntimePlannedBytes,
    Metric::RuntimeMeasuredBytes,
    Metric::LoadSeconds,
];
/// There is one engine a process; vLLM counts them.
const ENGINE: &str = "0";
/// Why requests wait, in vLLM's words.
const CAPACITY: &str = "capacity";
const DEFERRED: &str = "deferred";
/// What refused requests met, in vLLM's words.
const QUEUED_REQUESTS: &str = "max_num_queued_reqs";
const QUEUED_TOKENS: &str = "max_num_queued_tokens";

/// All series of one served model.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    model: String,
    counters: BTreeMap<Metric, IntCounterVec>,
    gauges: BTreeMap<Metric, GaugeVec>,
    histograms: BTreeMap<Metric, HistogramVec>,
    /// Those whose buckets the context decides, from when it is known.
    tokens: OnceLock<BTreeMap<Metric, HistogramVec>>,
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
            tokens: OnceLock::new(),
        };
        for metric in EXPOSED {
            metrics.register(*metric);
        }
        let process = Box::new(ProcessCollector::for_self());
        metrics.registry.register(process).expect("no definition is called process_*");
        // A counter that has never counted is zero, not absent.
        let zeros = [Metric::PromptTokens, Metric::PromptTokensCached, Metric::GenerationTokens];
        for metric in zeros.into_iter().chain([Metric::CorruptedRequests]) {
            metrics.count(metric, 0);
        }
        request::zero(&metrics);
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
                let made = self.histogram(&definition, buckets.to_vec());
                self.histograms.insert(metric, made);
                return;
            }
            Kind::Tokens => return,
        };
        self.registry.register(collector).expect(valid);
    }

    /// A distribution without a value.
    fn histogram(&self, definition: &Definition, buckets: Vec<f64>) -> HistogramVec {
        let opts = HistogramOpts::new(definition.name, definition.help).buckets(buckets);
        let valid = "definitions are valid and distinct, which a test of `contract` pins";
        let made = HistogramVec::new(opts, definition.labels).expect(valid);
        self.registry.register(Box::new(made.clone())).expect(valid);
        let _empty = made.with_label_values(&[self.model.as_str(), ENGINE][..definition.labels.len()]);
        made
    }

    /// Sequences have at most so many tokens: from now on tokens of requests are counted too.
    pub fn context(&self, context: u32) {
        self.tokens.get_or_init(|| {
            let of_tokens = EXPOSED.iter().map(|metric| (*metric, metric.definition()));
            let of_tokens = of_tokens.filter(|(_, definition)| definition.kind == Kind::Tokens);
            of_tokens.map(|(metric, of)| (metric, self.histogram(&of, token_buckets(context)))).collect()
        });
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
        for (reason, n) in [(CAPACITY, load.waiting.saturating_sub(load.deferred)), (DEFERRED, load.deferred)]
        {
            self.set(Metric::RequestsWaitingByReason, &[&self.model, ENGINE, reason], n as f64);
        }
        let Refusals { requests, tokens } = load.refusals;
        for (reason, n) in [(QUEUED_REQUESTS, requests), (QUEUED_TOKENS, tokens)] {
            self.count_to(Metric::AdmissionRejections, &[&self.model, reason], n);
        }
        let used = f64::from(load.blocks_used) / f64::from(load.blocks.max(1));
        self.set(Metric::KvCacheUsage, &[&self.model, ENGINE], used);
        let Counts { looked_for, found, preemptions } = load.counts;
        self.count_to(Metric::PrefixCacheQueries, &[&self.model, ENGINE], looked_for);
        self.count_to(Metric::PrefixCacheHits, &[&self.model, ENGINE], found);
        self.count_to(Metric::Preemptions, &[&self.model, ENGINE], preemptions);
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

    /// How the cache is set up.
    pub fn cache(&self, blocks: u32, dtype: KvDType) {
        let (size, blocks) = (BLOCK_TOKENS.to_string(), blocks.to_string());
        // As the configuration calls it.
        let dtype = serde_json::to_value(dtype).ok();
        let dtype = dtype.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
        self.set(Metric::CacheConfig, &[ENGINE, &size, &blocks, dtype, "True"], 1.0);
    }

    /// How long the kernel has kept this process from computing.
    pub fn throttled(&self, seconds: Option<f64>) {
        if let Some(seconds) = seconds {
            self.set(Metric::ThrottledSeconds, &[], seconds);
        }
    }

    fn count(&self, metric: Metric, n: u64) {
        self.count_by(metric, &[&self.model, ENGINE], n);
    }

    fn count_by(&self, metric: Metric, labels: &[&str], n: u64) {
        self.counters[&metric].with_label_values(labels).inc_by(n);
    }

    /// For what is counted elsewhere.
    fn count_to(&self, metric: Metric, labels: &[&str], n: u64) {
        let counter = self.counters[&metric].with_label_values(labels);
        counter.inc_by(n.saturating_sub(counter.get()));
    }

    fn set(&self, metric: Metric, labels: &[&str], value: f64) {
        self.gauges[&metric].with_label_values(labels).set(value);
    }

    fn observe(&self, metric: Metric, value: f64) {
        let labels = &[self.model.as_str(), ENGINE][..metric.definition().labels.len()];
        let histogram = self.histograms.get(&metric).or_else(|| self.tokens.get()?.get(&metric));
        if let Some(histogram) = histogram {
            histogram.with_label_values(labels).observe(value);
        }
    }
}

#[cfg(test)]
mod tests;
