//! What a run of the demo measured: one JSON object for programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// Figures of one run. The names are the report's keys; times are seconds.
#[derive(Debug, Serialize)]
pub struct Report {
    /// From built tools to a cluster whose node is ready; 0 where the cluster was there.
    pub cluster_up_seconds: f64,
    /// From `kubectl apply` to ready.
    pub apply_to_ready_seconds: f64,
    /// Parts of it.
    pub phases: BTreeMap<&'static str, f64>,
    /// What was asked.
    pub question: String,
    /// What was answered.
    pub answer: String,
    /// Mean time to first token as Prometheus has it.
    pub ttft_seconds: f64,
    /// Tokens per second while answering as Prometheus has it.
    pub tokens_per_second: f64,
    /// Tokens generated as Prometheus has them.
    pub prometheus_tokens_total: u64,
    /// Resident bytes of the operator.
    pub operator_rss_bytes: u64,
    /// Resident bytes of the runtime.
    pub runtime_rss_bytes: u64,
    /// Bytes of each image, uncompressed.
    pub image_bytes: BTreeMap<String, u64>,
}

impl Report {
    /// Checks what must hold for the demo to be called a success.
    pub fn verify(&self, expected_start: &str, tokens_streamed: u64) -> Result<()> {
        ensure!(
            self.answer.starts_with(expected_start),
            "the answer should begin with {expected_start:?} but is {:?}",
            self.answer
        );
        ensure!(
            self.prometheus_tokens_total >= tokens_streamed,
            "Prometheus counts {} tokens but {tokens_streamed} were streamed",
            self.prometheus_tokens_total
        );
        ensure!(self.tokens_per_second > 0.0 && self.ttft_seconds > 0.0, "Prometheus has no speed");
        Ok(())
    }

    /// Writes the report whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().context("a report has a folder")?;
        fs::create_dir_all(folder)?;
        let aside = path.with_extension("json.new");
        fs::write(&aside, serde_json::to_string_pretty(self)? + "\n")?;
        fs::rename(&aside, path).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_or_missing_tokens_is_no_success() {
        let report = Report {
            cluster_up_seconds: 1.0,
            apply_to_ready_seconds: 1.0,
            phases: BTreeMap::new(),
            question: "q".into(),
            answer: "HTTP stands for".into(),
            ttft_seconds: 0.1,
            tokens_per_second: 10.0,
            prometheus_tokens_total: 8,
            operator_rss_bytes: 1,
            runtime_rss_bytes: 1,
            image_bytes: BTreeMap::new(),
        };
        assert!(report.verify("HTTP stands", 8).is_ok());
        assert!(report.verify("Sorry", 8).is_err());
        assert!(report.verify("HTTP stands", 9).is_err());
    }
}
