//! What the engine's worker measures, as series.
//!
//! In: what an [`Observer`] hears. Out: counts. Tenants are labelled by the beginning of their digest, and only so
//! many of them that made-up names fill no memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use contract::metrics::Metric;

use super::Metrics;
use crate::engine::observe::{ChoiceSeen, Observer, RequestSeen, StepSeen};
use crate::engine::tenants::Tenant;

/// Tenants that have a label of their own.
const LABELLED: usize = 32;
/// The label of all others.
const OTHERS: &str = "other";
/// Kinds of tokens.
const READ: &str = "read";
const WRITTEN: &str = "written";

/// Counts for one engine.
#[derive(Debug)]
pub struct EngineMetrics {
    metrics: Arc<Metrics>,
    labels: BTreeMap<Tenant, String>,
}

impl EngineMetrics {
    /// Counts into `metrics`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, labels: BTreeMap::new() }
    }

    fn label(&mut self, tenant: Tenant) -> &str {
        if self.labels.len() >= LABELLED && !self.labels.contains_key(&tenant) {
            return OTHERS;
        }
        self.labels.entry(tenant).or_insert_with(|| format!("{:08x}", tenant.0 >> 32))
    }
}

impl Observer for EngineMetrics {
    fn step(&mut self, step: &StepSeen<'_>) {
        let metrics = self.metrics.clone();
        let tokens: u32 = step.served.iter().map(|served| served.read + served.written).sum();
        metrics.observe(Metric::StepTokens, tokens.into());
        metrics.observe(Metric::StepSeconds, step.seconds);
        metrics.observe(Metric::StepSequences, u32::try_from(step.served.len()).unwrap_or(u32::MAX).into());
        for served in step.served {
            let label = self.label(served.tenant);
            for (kind, n) in [(READ, served.read), (WRITTEN, served.written)] {
                if n > 0 {
                    metrics.count_by(Metric::TenantTokens, &[&metrics.model, label, kind], n.into());
                }
            }
        }
    }

    fn choice(&mut self, choice: &ChoiceSeen) {
        let ChoiceSeen { queue, prefill, decode, prompt, computed, generated, preemptions } = *choice;
        let observe = |metric, value| self.metrics.observe(metric, value);
        observe(Metric::RequestQueueTime, queue);
        observe(Metric::RequestPrefillTime, prefill);
        observe(Metric::RequestDecodeTime, decode);
        observe(Metric::RequestInferenceTime, prefill + decode);
        observe(Metric::RequestPromptTokens, prompt.into());
        observe(Metric::RequestComputedTokens, computed.into());
        observe(Metric::RequestGenerationTokens, generated.into());
        observe(Metric::RequestPreemptions, preemptions.into());
        if generated > 1 {
            observe(Metric::TimePerOutputToken, decode / f64::from(generated - 1));
        }
    }

    fn request(&mut self, request: &RequestSeen) {
        let RequestSeen { n, max_tokens, most_generated } = *request;
        self.metrics.observe(Metric::RequestParamN, n.into());
        self.metrics.observe(Metric::RequestParamMaxTokens, max_tokens.into());
        self.metrics.observe(Metric::RequestMostTokens, most_generated.into());
    }

    fn corrupted(&mut self) {
        self.metrics.count(Metric::CorruptedRequests, 1);
    }
}
