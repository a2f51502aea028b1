//! Every metric of the project: name, kind, labels and help. The only place where these literals stand.
//!
//! Where a series means exactly what vLLM's series of that name means, it has vLLM's name, labels and buckets.

/// Kind of a metric, with the buckets of histograms in base units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution over these upper bounds.
    Histogram(&'static [f64]),
    /// Distribution over [`token_buckets`], which are known when the context is.
    Tokens,
}

/// vLLM's buckets of tokens of a request: 1, 2, 5, 10, 20 and so on, as long as they are within the context.
#[must_use]
pub fn token_buckets(context: u32) -> Vec<f64> {
    let decade = |power| [1.0, 2.0, 5.0].map(|n| n * 10f64.powi(power));
    (0..10).flat_map(decade).take_while(|n| *n <= f64::from(context)).collect()
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Definition {
    /// Name as exposed.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Names of its labels, in the order of their values.
    pub labels: &'static [&'static str],
    /// Help text with the unit.
    pub help: &'static str,
}

/// vLLM's buckets of the time to first token, in seconds.
const TTFT: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
/// vLLM's buckets of the time between tokens, in seconds.
const ITL: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
/// vLLM's buckets of whole requests, in seconds.
const REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];
/// vLLM's buckets of tokens of a step.
const STEP: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
/// vLLM's buckets of the number of answers to a prompt.
const CHOICES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];
/// vLLM's buckets of how often a request gave way.
const PREEMPTIONS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];
/// Buckets of a step, in seconds.
const STEP_SECONDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Buckets of sequences in a step.
const BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// Buckets of a reconcile pass, in seconds.
const RECONCILE: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Labels of every series of a served model. vLLM's names; `engine` is "0", for there is one a process.
const SERVED: &[&str] = &["model_name", "engine"];

macro_rules! metrics {
    ($($variant:ident: $kind:expr, $name:literal, $labels:expr, $help:literal;)*) => {
        /// The closed set of metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric { $(#[doc = $help] $variant,)* }

        impl Metric {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What it is.
            #[must_use]
            pub const fn definition(self) -> Definition {
                match self {
                    $(Self::$variant => Definition { name: $name, kind: $kind, labels: $labels, help: $help },)*
                }
            }
        }
    };
}

metrics! {
    RequestsRunning: Kind::Gauge, "vllm:num_requests_running", SERVED, "Requests in the running batch.";
    RequestsWaiting: Kind::Gauge, "vllm:num_requests_waiting", SERVED, "Requests that wait to be processed.";
    RequestsWaitingByReason: Kind::Gauge, "vllm:num_requests_waiting_by_reason", &["model_name", "engine", "reason"],
        "Requests that wait, by reason: capacity, or deferred until another has read the prompt that they share.";
    CacheConfig: Kind::Gauge, "vllm:cache_config_info",
        &["engine", "block_size", "num_gpu_blocks", "cache_dtype", "enable_prefix_caching"],
        "1, and how the KV cache is set up; what vLLM calls GPU blocks are the blocks of the device in use.";
    KvCacheUsage: Kind::Gauge, "vllm:kv_cache_usage_perc", SERVED, "Fraction of KV cache blocks in use, 0 to 1.";
    PrefixCacheQueries: Kind::Counter, "vllm:prefix_cache_queries_total", SERVED,
        "Tokens of requests that were looked for in the prefix cache when they first came.";
    PrefixCacheHits: Kind::Counter, "vllm:prefix_cache_hits_total", SERVED,
        "Tokens of those that the prefix cache had.";
    Preemptions: Kind::Counter, "vllm:num_preemptions_total", SERVED,
        "Times that a running request gave its blocks to another.";
    PromptTokens: Kind::Counter, "vllm:prompt_tokens_total", SERVED, "Prompt tokens processed.";
    PromptTokensBySource: Kind::Counter, "vllm:prompt_tokens_by_source_total", &["model_name", "engine", "source"],
        "Prompt tokens processed, by source: local_compute or local_cache_hit.";
    PromptTokensCached: Kind::Counter, "vllm:prompt_tokens_cached_total", SERVED,
        "Prompt tokens that the cache had.";
    PromptTokensCachedBySource: Kind::Counter, "vllm:prompt_tokens_cached_by_source_total",
        &["model_name", "engine", "source"], "Prompt tokens that a cache had, by source: local_cache_hit.";
    GenerationTokens: Kind::Counter, "vllm:generation_tokens_total", SERVED, "Tokens generated.";
    RequestSuccess: Kind::Counter, "vllm:request_success_total", &["model_name", "engine", "finished_reason"],
        "Requests finished, by reason: stop, length, abort, error, or deadline where their time was over.";
    CorruptedRequests: Kind::Counter, "vllm:corrupted_requests_total", SERVED,
        "Requests that ended because the model's numbers for them were not finite.";
    AdmissionRejections: Kind::Counter, "vllm:admission_rejections_total", &["model_name", "reason"],
        "Requests refused because as many wait as may, by bound: max_num_queued_reqs or max_num_queued_tokens.";
    TimeToFirstToken: Kind::Histogram(TTFT), "vllm:time_to_first_token_seconds", SERVED,
        "Seconds from arrival of a request to its first token.";
    InterTokenLatency: Kind::Histogram(ITL), "vllm:inter_token_latency_seconds", SERVED,
        "Seconds between two tokens of a request.";
    RequestLatency: Kind::Histogram(REQUEST), "vllm:e2e_request_latency_seconds", SERVED,
        "Seconds from arrival of a request to its last token.";
    TimePerOutputToken: Kind::Histogram(ITL), "vllm:request_time_per_output_token_seconds", SERVED,
        "Seconds between two tokens of a request, in its mean.";
    RequestQueueTime: Kind::Histogram(REQUEST), "vllm:request_queue_time_seconds", SERVED,
        "Seconds that a request waited before it was first in the batch.";
    RequestPrefillTime: Kind::Histogram(REQUEST), "vllm:request_prefill_time_seconds", SERVED,
        "Seconds from when a request was first in the batch to its first token.";
    RequestDecodeTime: Kind::Histogram(REQUEST), "vllm:request_decode_time_seconds", SERVED,
        "Seconds from the first token of a request to its last.";
    RequestInferenceTime: Kind::Histogram(REQUEST), "vllm:request_inference_time_seconds", SERVED,
        "Seconds from when a request was first in the batch to its last token.";
    RequestPromptTokens: Kind::Tokens, "vllm:request_prompt_tokens", SERVED,
        "Tokens of a request's prompt.";
    RequestComputedTokens: Kind::Tokens, "vllm:request_prefill_kv_computed_tokens", SERVED,
        "Tokens of a request's prompt that the cache did not have.";
    RequestGenerationTokens: Kind::Tokens, "vllm:request_generation_tokens", SERVED,
        "Tokens generated for a request.";
    RequestMostTokens: Kind::Tokens, "vllm:request_max_num_generation_tokens", SERVED,
        "Tokens of the longest of a request's answers.";
    RequestParamN: Kind::Histogram(CHOICES), "vllm:request_params_n", SERVED, "Answers that a request asks for.";
    RequestParamMaxTokens: Kind::Tokens, "vllm:request_params_max_tokens", SERVED,
        "Most tokens that a request asks for.";
    RequestPreemptions: Kind::Histogram(PREEMPTIONS), "vllm:request_num_preemptions", SERVED,
        "Times that a request gave its blocks to another.";
    StepTokens: Kind::Histogram(STEP), "vllm:iteration_tokens_total", SERVED, "Tokens of a step.";
    StepSeconds: Kind::Histogram(STEP_SECONDS), "llmfleet_step_seconds", &["model_name"],
        "Seconds that a step took, with choosing its tokens.";
    StepSequences: Kind::Histogram(BATCH), "llmfleet_step_sequences", &["model_name"], "Sequences of a step.";
    TenantTokens: Kind::Counter, "llmfleet_tenant_tokens_total", &["model_name", "tenant", "kind"],
        "Tokens computed by kind, read or written, for each of the first 32 tenants, which have the beginning of a \
         digest for a name, and for all others.";
    ThrottledSeconds: Kind::Gauge, "llmfleet_cpu_throttled_seconds", &[],
        "Seconds that the kernel kept this process's cgroup from the CPU, since that began.";
    RuntimePlannedBytes: Kind::Gauge, "llmfleet_memory_planned_bytes", &["component"],
        "Bytes that the plan gives a component.";
    RuntimeMeasuredBytes: Kind::Gauge, "llmfleet_memory_measured_bytes", &["component"],
        "Bytes that a component was measured to take.";
    LoadSeconds: Kind::Gauge, "llmfleet_load_seconds", &["phase"], "Seconds that a phase of loading took.";
    ReconcileSeconds: Kind::Histogram(RECONCILE), "llmfleet_reconcile_seconds", &["kind"],
        "Seconds that one reconcile pass took.";
    ReconcileErrors: Kind::Counter, "llmfleet_reconcile_errors_total", &["kind", "reason"],
        "Reconcile passes that failed.";
    ApiWrites: Kind::Counter, "llmfleet_api_writes_total", &["verb", "kind"], "Writes to the API server.";
    PlacementRefusals: Kind::Counter, "llmfleet_placement_refusals_total", &["reason"],
        "Demands that could not be placed.";
    Leader: Kind::Gauge, "llmfleet_leader", &[], "1 while this process leads, else 0.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn buckets_of_tokens_end_within_the_context() {
        assert_eq!(token_buckets(100), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(token_buckets(8192).last(), Some(&5000.0));
        assert!(token_buckets(u32::MAX).is_sorted() && token_buckets(0).is_empty());
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = BTreeSet::new();
        for metric in Metric::ALL {
            let Definition { name, kind, labels, help } = metric.definition();
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("vllm:") || name.starts_with("llmfleet_"), "{name}");
            // vLLM has a histogram of that name.
            let total = name.ends_with("_total") && *metric != Metric::StepTokens;
            assert_eq!(total, kind == Kind::Counter, "{name}");
            assert!(labels.len() <= 5 && help.ends_with('.'), "{name}");
            if let Kind::Histogram(buckets) = kind {
                let seconds = [TTFT, ITL, REQUEST, STEP_SECONDS, RECONCILE].contains(&buckets);
                assert_eq!(name.ends_with("_seconds"), seconds, "{name}");
                assert!(buckets.is_sorted(), "{name}");
            }
        }
    }
}
