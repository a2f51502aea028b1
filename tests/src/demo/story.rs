//! What a person reads while the demo runs. Only prints.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use contract::Bytes;

use super::chat::{self, Answer};
use super::cluster::Cluster;
use super::report::Report;
use super::watch::Followed;
use super::{DEPLOYMENT, NAMESPACE};
use crate::tools::Tools;

pub(super) fn chapter(number: u32, title: &str) {
    eprintln!("\n── {number} · {title} {}", "─".repeat(60usize.saturating_sub(title.chars().count())));
}

pub(super) fn quote(text: &str) {
    for line in text.lines() {
        eprintln!("  │ {line}");
    }
}

/// One sentence of a condition as it changes.
pub(super) fn condition(after: Duration, sentence: &str) {
    eprintln!("  {:>6.1} s  {sentence}", after.as_secs_f32());
}

/// Where the replica went and how many bytes it got.
pub(super) fn placed(followed: &Followed) {
    let status = &followed.object.data["status"];
    for placement in status["placement"].as_array().into_iter().flatten() {
        let text = |field: &str| placement[field].as_str().unwrap_or("-").to_owned();
        eprintln!(
            "\n  replica {} on node {}, booking {}",
            placement["replica"],
            text("node"),
            text("booking")
        );
    }
    let planned = &status["memory"]["planned"];
    for (component, bytes) in planned.as_object().into_iter().flatten() {
        eprintln!("    {component:<14} {:>12}", Bytes(bytes.as_u64().unwrap_or(0)).to_string());
    }
    eprintln!();
    for (phase, took) in &followed.phases {
        eprintln!("    {phase:<14} {:>8.1} s", took.as_secs_f32());
    }
    eprintln!("    {:<14} {:>8.1} s", "apply to ready", followed.ready_after.as_secs_f32());
}

/// Asks, and prints the answer as it comes.
pub(super) async fn ask(url: &str, model: &str, question: &str) -> Result<Answer> {
    eprint!("\n  ? {question}\n  ");
    let answer = chat::ask(url, model, question, |piece| {
        eprint!("{}", piece.replace('\n', "\n  "));
        // A terminal that is gone is no reason to stop.
        let _ = std::io::stderr().flush();
    })
    .await?;
    eprintln!(
        "\n  ({} tokens, the first after {:.0} ms)",
        answer.tokens,
        answer.first_token.as_secs_f64() * 1e3
    );
    Ok(answer)
}

pub(super) fn summary(report: &Report, path: &Path) {
    let rows = [
        ("tokens generated", report.prometheus_tokens_total.to_string()),
        ("tokens per second, one stream", format!("{:.1}", report.tokens_per_second)),
        ("time to first token", format!("{:.0} ms", report.ttft_seconds * 1e3)),
        ("operator's resident memory", Bytes(report.operator_rss_bytes).to_string()),
        ("runtime's resident memory", Bytes(report.runtime_rss_bytes).to_string()),
        ("cluster up", format!("{:.1} s", report.cluster_up_seconds)),
        ("apply to ready", format!("{:.1} s", report.apply_to_ready_seconds)),
    ];
    for (what, value) in rows {
        eprintln!("  {what:<32} {value:>14}");
    }
    eprintln!("\n  All figures: {}", path.display());
}

/// What a person may want to do now.
pub(super) fn next(cluster: &Cluster, tools: &Tools) {
    chapter(6, "Try next");
    eprintln!("  export KUBECONFIG={}", cluster.kubeconfig().display());
    eprintln!("  alias kubectl={}", tools.path("kubectl").display());
    eprintln!("  kubectl get llm -A");
    eprintln!("  kubectl describe llm -n {NAMESPACE} {DEPLOYMENT}");
    eprintln!("  kubectl explain llm.spec.capacity");
    let port = contract::http::API_PORT;
    eprintln!("  kubectl port-forward -n {NAMESPACE} svc/{DEPLOYMENT} {port} &");
    eprintln!(
        "  curl -N localhost:{port}{} -H 'Content-Type: application/json' \\\n    -d '{{\"model\":\"{DEPLOYMENT}\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello!\"}}]}}'",
        contract::http::CHAT_COMPLETIONS
    );
    let down = "make demo-down";
    match cluster {
        Cluster::Lab(lab) => {
            eprintln!("  Prometheus: {}", lab.prometheus_url());
            eprintln!("  to remove all of it: {down}");
        }
        Cluster::Foreign(_) => {
            eprintln!("  to remove all of it, with DEMO_CLUSTER as it is: {down}");
        }
    }
}

/// Where to look when the demo failed.
pub(super) fn evidence(folder: &Path) {
    eprintln!("\n  Logs, events and what the cluster said of the model are in {}", folder.display());
}
