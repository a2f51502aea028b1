use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::engine::FinishReason;
use crate::engine::observe::{ChoiceSeen, Observer, RequestSeen, StepSeen};
use crate::engine::scheduler::Served;
use crate::engine::tenants::Tenant;

/// Says which of the lines are missing.
fn expect(metrics: &Metrics, lines: &[&str]) {
    let text = metrics.text();
    for line in lines {
        assert!(text.lines().any(|l| l == *line), "{line} in\n{text}");
    }
}

#[test]
fn what_happens_to_a_request_is_counted_however_it_ends() {
    let metrics = Arc::new(Metrics::new("m"));
    expect(
        &metrics,
        &[
            "vllm:request_success_total{engine=\"0\",finished_reason=\"error\",model_name=\"m\"} 0",
            "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"m\"} 0",
        ],
    );
    // What is measured is when it happened, whenever that is told.
    let arrived = Instant::now();
    let after = |millis| arrived + Duration::from_millis(millis);
    let mut guard = RequestGuard::new(metrics.clone(), arrived, 5, 2);
    guard.admitted(3);
    guard.token(0, after(3));
    guard.token(1, after(3));
    guard.token(0, after(2003));
    guard.finished(FinishReason::Stop, after(3000));
    guard.finished(FinishReason::Length, after(3000));
    drop(guard);
    drop(RequestGuard::new(metrics.clone(), arrived, 7, 1));
    let mut late = RequestGuard::new(metrics.clone(), arrived, 7, 2);
    late.late();
    drop(late);
    let counts = Counts { looked_for: 96, found: 64, preemptions: 1 };
    let refusals = Refusals { requests: 0, tokens: 4 };
    let load = Load { running: 1, waiting: 2, deferred: 1, counts, refusals, ..Load::default() };
    metrics.load(Load { blocks_used: 1, blocks: 4, ..load });
    metrics.phases(&[(Phase::Loading, 1.5)]);
    expect(
        &metrics,
        &[
            "vllm:prompt_tokens_total{engine=\"0\",model_name=\"m\"} 5",
            "vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 3",
            "vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"m\"} 1",
            "vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_name=\"m\"} 1",
            "vllm:prompt_tokens_cached_total{engine=\"0\",model_name=\"m\"} 3",
            "vllm:prompt_tokens_by_source_total{engine=\"0\",model_name=\"m\",source=\"local_compute\"} 2",
            "vllm:num_requests_waiting_by_reason{engine=\"0\",model_name=\"m\",reason=\"capacity\"} 1",
            "vllm:admission_rejections_total{model_name=\"m\",reason=\"max_num_queued_tokens\"} 4",
            "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\",model_name=\"m\"} 1",
            "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"m\"} 2",
            "vllm:inter_token_latency_seconds_count{engine=\"0\",model_name=\"m\"} 1",
            "vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"0.005\"} 2",
            "vllm:inter_token_latency_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"1\"} 0",
            "vllm:inter_token_latency_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"2.5\"} 1",
            "vllm:request_success_total{engine=\"0\",finished_reason=\"deadline\",model_name=\"m\"} 2",
            "vllm:prompt_tokens_cached_by_source_total{engine=\"0\",model_name=\"m\",source=\"local_cache_hit\"} 3",
            "vllm:e2e_request_latency_seconds_count{engine=\"0\",model_name=\"m\"} 5",
            "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.25",
            "vllm:prefix_cache_queries_total{engine=\"0\",model_name=\"m\"} 96",
            "vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"m\"} 64",
            "vllm:num_preemptions_total{engine=\"0\",model_name=\"m\"} 1",
            "llmfleet_load_seconds{phase=\"Loading\"} 1.5",
        ],
    );
}

#[test]
fn what_the_engine_does_is_counted_and_tenants_are_bounded() {
    let metrics = Arc::new(Metrics::new("m"));
    let mut engine = EngineMetrics::new(metrics.clone());
    metrics.context(120);
    metrics.context(7);
    for n in 0..40 {
        let served = [Served { tenant: Tenant(n << 32 | 7), read: 10, written: 1 }];
        engine.step(&StepSeen { seconds: 0.004, served: &served });
    }
    let (queue, prefill, decode) = (0.4, 0.2, 0.9);
    let (prompt, computed, generated, preemptions) = (100, 36, 10, 2);
    engine.choice(&ChoiceSeen { queue, prefill, decode, prompt, computed, generated, preemptions });
    engine.request(&RequestSeen { n: 3, max_tokens: 30, most_generated: 10 });
    engine.corrupted();
    metrics.cache(12, KvDType::F16);
    metrics.throttled(Some(1.5));
    expect(
        &metrics,
        &[
            "llmfleet_tenant_tokens_total{kind=\"read\",model_name=\"m\",tenant=\"0000001f\"} 10",
            "llmfleet_tenant_tokens_total{kind=\"written\",model_name=\"m\",tenant=\"other\"} 8",
            "llmfleet_step_sequences_count{model_name=\"m\"} 40",
            "llmfleet_step_seconds_bucket{model_name=\"m\",le=\"0.005\"} 40",
            "vllm:iteration_tokens_total_sum{engine=\"0\",model_name=\"m\"} 440",
            "vllm:request_queue_time_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"0.5\"} 1",
            "vllm:request_time_per_output_token_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"0.1\"} 1",
            "vllm:request_prompt_tokens_bucket{engine=\"0\",model_name=\"m\",le=\"50\"} 0",
            "vllm:request_prompt_tokens_bucket{engine=\"0\",model_name=\"m\",le=\"100\"} 1",
            "vllm:request_prefill_kv_computed_tokens_sum{engine=\"0\",model_name=\"m\"} 36",
            "vllm:request_num_preemptions_sum{engine=\"0\",model_name=\"m\"} 2",
            "vllm:request_params_n_sum{engine=\"0\",model_name=\"m\"} 3",
            "vllm:request_max_num_generation_tokens_sum{engine=\"0\",model_name=\"m\"} 10",
            "vllm:cache_config_info{block_size=\"32\",cache_dtype=\"F16\",enable_prefix_caching=\"True\",\
             engine=\"0\",num_gpu_blocks=\"12\"} 1",
            "vllm:corrupted_requests_total{engine=\"0\",model_name=\"m\"} 1",
            "llmfleet_cpu_throttled_seconds 1.5",
        ],
    );
    assert!(
        !metrics
            .text()
            .contains("vllm:request_prompt_tokens_bucket{engine=\"0\",model_name=\"m\",le=\"200\"}")
    );
    let tenants = metrics.text().lines().filter(|l| l.contains("kind=\"read\"")).count();
    assert_eq!(tenants, 33);
}
