//! The operator's metrics, made from `contract::metrics` alone.
//!
//! In: what happened. Out: the Prometheus text format. It must not know why anything happened.

use std::time::Instant;

use contract::metrics::{Kind, Metric};
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{CounterVec, Encoder, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder};

/// Counters, gauges and histograms that this program feeds.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    reconcile_seconds: HistogramVec,
    reconcile_errors: CounterVec,
    api_writes: CounterVec,
    placement_refusals: CounterVec,
    leader: GaugeVec,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        // The standard process_* series; a name that is registered twice is a bug of this function.
        registry.register(Box::new(ProcessCollector::for_self())).expect("names are distinct");
        Self {
            reconcile_seconds: register(&registry, histogram(Metric::ReconcileSeconds)),
            reconcile_errors: register(&registry, counter(Metric::ReconcileErrors)),
            api_writes: register(&registry, counter(Metric::ApiWrites)),
            placement_refusals: register(&registry, counter(Metric::PlacementRefusals)),
            leader: register(&registry, gauge(Metric::Leader)),
            registry,
        }
    }
}

impl Metrics {
    /// Measures one pass over an object of this kind; the time is recorded when the guard is dropped, so that no
    /// early return can skip it.
    #[must_use]
    pub fn reconcile_timer(&self, kind: &'static str) -> ReconcileTimer<'_> {
        ReconcileTimer { metrics: self, kind, started: Instant::now() }
    }

    /// Counts a pass that failed. `reason` comes from a closed set.
    pub fn reconcile_failed(&self, kind: &'static str, reason: &'static str) {
        self.reconcile_errors.with_label_values(&[kind, reason]).inc();
    }

    /// Counts a write that the API server was asked for.
    pub fn api_write(&self, verb: &'static str, kind: &str) {
        self.api_writes.with_label_values(&[verb, kind]).inc();
    }

    /// Counts a demand that could not be placed. `reason` comes from a closed set.
    pub fn placement_refused(&self, reason: &'static str) {
        self.placement_refusals.with_label_values(&[reason]).inc();
    }

    /// Says whether this process leads.
    pub fn set_leader(&self, leads: bool) {
        self.leader.with_label_values(&[] as &[&str]).set(if leads { 1.0 } else { 0.0 });
    }

    /// Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory cannot fail");
        String::from_utf8(text).expect("the text format is UTF-8")
    }
}

/// Records its life time.
#[derive(Debug)]
pub struct ReconcileTimer<'a> {
    metrics: &'a Metrics,
    kind: &'static str,
    started: Instant,
}

impl Drop for ReconcileTimer<'_> {
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.metrics.reconcile_seconds.with_label_values(&[self.kind]).observe(seconds);
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("the names in the contract are distinct");
    collector
}

fn counter(metric: Metric) -> CounterVec {
    let definition = metric.definition();
    CounterVec::new(Opts::new(definition.name, definition.help), definition.labels)
        .expect("the names in the contract are valid")
}

fn gauge(metric: Metric) -> GaugeVec {
    let definition = metric.definition();
    GaugeVec::new(Opts::new(definition.name, definition.help), definition.labels)
        .expect("the names in the contract are valid")
}

fn histogram(metric: Metric) -> HistogramVec {
    let definition = metric.definition();
    let Kind::Histogram(buckets) = definition.kind else {
        unreachable!("{} has no buckets", definition.name)
    };
    let options = HistogramOpts::new(definition.name, definition.help).buckets(buckets.to_vec());
    HistogramVec::new(options, definition.labels).expect("the names in the contract are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_exposed() {
        let metrics = Metrics::default();
        drop(metrics.reconcile_timer("LlmModel"));
        metrics.api_write("apply", "Job");
        metrics.set_leader(true);
        let text = metrics.render();
        assert!(text.contains("llmfleet_reconcile_seconds_count{kind=\"LlmModel\"} 1"), "{text}");
        assert!(text.contains("llmfleet_api_writes_total{kind=\"Job\",verb=\"apply\"} 1"), "{text}");
        assert!(text.contains("llmfleet_leader 1"), "{text}");
    }
}
