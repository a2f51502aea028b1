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
    KvCacheUsage: Kind::Gauge, "vllm:kv_cache_usage_perc", SERVED, "Fraction of KV cache blocks in use, 0 to 1.";
    PrefixCacheQueries: Kind::Counter, "vllm:prefix_cache_queries_total", SERVED,
        "Tokens of prompts that were looked for in the prefix cache, in whole blocks.";
    PrefixCacheHits: Kind::Counter, "vllm:prefix_cache_hits_total", SERVED,
        "Tokens of prompts that the prefix cache had.";
    Preemptions: Kind::Counter, "vllm:num_preemptions_total", SERVED,
        "Times that a running request gave its blocks to another.";
    PromptTokens: Kind::Counter, "vllm:prompt_tokens_total", SERVED, "Prompt tokens processed.";
    GenerationTokens: Kind::Counter, "vllm:generation_tokens_total", SERVED, "Tokens generated.";
    RequestSuccess: Kind::Counter, "vllm:request_success_total", &["model_name", "engine", "finished_reason"],
        "Requests finished, by reason: stop, length, abort or error.";
    TimeToFirstToken: Kind::Histogram(TTFT), "vllm:time_to_first_token_seconds", SERVED,
        "Seconds from arrival of a request to its first token.";
    InterTokenLatency: Kind::Histogram(ITL), "vllm:inter_token_latency_seconds", SERVED,
        "Seconds between two tokens of a request.";
    RequestLatency: Kind::Histogram(REQUEST), "vllm:e2e_request_latency_seconds", SERVED,
        "Seconds from arrival of a request to its last token.";
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
    fn names_follow_the_conventions() {
        let mut seen = BTreeSet::new();
        for metric in Metric::ALL {
            let Definition { name, kind, labels, help } = metric.definition();
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("vllm:") || name.starts_with("llmfleet_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            assert!(labels.len() <= 3 && help.ends_with('.'), "{name}");
            if let Kind::Histogram(buckets) = kind {
                assert!(name.ends_with("_seconds") && buckets.is_sorted(), "{name}");
            }
        }
    }
}
