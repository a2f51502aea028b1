//! Reads single numbers from a Prometheus server.

use anyhow::{Context, Result, bail};
use contract::metrics::Metric;
use serde_json::Value;

use super::DEPLOYMENT;
use crate::web;

/// What the demo asks of Prometheus.
#[derive(Clone, Copy, Debug)]
pub enum Figure {
    /// Tokens generated in all.
    TokensTotal,
    /// Tokens per second while a request is being answered: one over the mean time between tokens.
    TokensPerSecond,
    /// Mean seconds from arrival to first token.
    TimeToFirstToken,
    /// Resident bytes of the runtime.
    RuntimeRss,
    /// Resident bytes of the operator that leads.
    OperatorRss,
}

/// The process collector's own name for resident memory.
const RSS: &str = "process_resident_memory_bytes";

impl Figure {
    /// The query. Every one gives a single number, or nothing yet.
    pub fn query(self) -> String {
        let name = |metric: Metric| metric.definition().name;
        // A user's cluster may serve others, whose series have the same names.
        let ours = format!("{{model_name=\"{DEPLOYMENT}\"}}");
        match self {
            Self::TokensTotal => format!("sum({}{ours})", name(Metric::GenerationTokens)),
            Self::TokensPerSecond => {
                let itl = name(Metric::InterTokenLatency);
                format!("sum({itl}_count{ours}) / (sum({itl}_sum{ours}) > 0)")
            }
            Self::TimeToFirstToken => {
                let ttft = name(Metric::TimeToFirstToken);
                format!("sum({ttft}_sum{ours}) / (sum({ttft}_count{ours}) > 0)")
            }
            Self::RuntimeRss => {
                format!("max({RSS} and on(instance) {}{ours})", name(Metric::RequestsRunning))
            }
            Self::OperatorRss => format!("max({RSS} and on(instance) {} == 1)", name(Metric::Leader)),
        }
    }
}

/// Asks the server at `base`.
pub async fn read(base: &str, figure: Figure) -> Result<f64> {
    let query = figure.query();
    let url = reqwest::Url::parse_with_params(&format!("{base}/api/v1/query"), [("query", &query)])?;
    let response =
        web::get(url.as_str()).await.with_context(|| format!("cannot ask Prometheus at {base}"))?;
    number(&response.json().await?, &query)
}

fn number(answer: &Value, query: &str) -> Result<f64> {
    let Some(text) = answer["data"]["result"][0]["value"][1].as_str() else {
        bail!("Prometheus has no answer yet for {query}: {answer}");
    };
    text.parse().with_context(|| format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_answer_is_not_a_zero() {
        let vector =
            |value: Value| json!({"status": "success", "data": {"resultType": "vector", "result": value}});
        let one = vector(json!([{"metric": {}, "value": [1.5, "42"]}]));
        assert_eq!(number(&one, "q").unwrap(), 42.0);
        assert!(number(&vector(json!([])), "q").is_err());
    }
}
