//! A client that asks a model once a second through its Service, and keeps count.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::bench::{Case, LIMIT};
use e2e::process::wait_for;
use e2e::web;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const QUESTION: &str = "What does HTTP stand for?";
const ANSWER: &str = "HTTP stands for";
const PERIOD: Duration = Duration::from_secs(1);
/// One answer takes a tenth of a second where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was asked of one model so far.
#[derive(Debug, Default)]
struct Count {
    asked: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// Asks until it is told to end.
#[derive(Debug)]
pub(crate) struct Client {
    count: Arc<Count>,
    task: JoinHandle<()>,
}

impl Client {
    /// Begins to ask the model of this LlmDeployment, from its first answer on: the Service learns of a pod that is
    /// ready a moment later.
    pub(crate) async fn start(case: &Case<'_>, name: &'static str) -> Result<Self> {
        let (url, way) = case.service(name).await?;
        wait_for("the first answer", LIMIT, async || ask(&url, name).await).await?;
        let count = Arc::new(Count::default());
        let (counted, namespace) = (count.clone(), case.namespace.clone());
        let task = tokio::spawn(async move {
            let _open = way;
            loop {
                let answered = ask(&url, name).await;
                counted.asked.fetch_add(1, Ordering::Relaxed);
                if let (Err(error), Ok(mut failures)) = (answered, counted.failures.lock()) {
                    failures.push(format!("{namespace}/{name}: {error:#}"));
                }
                tokio::time::sleep(PERIOD).await;
            }
        });
        Ok(Self { count, task })
    }

    /// How often it has asked.
    pub(crate) fn asked(&self) -> usize {
        self.count.asked.load(Ordering::Relaxed)
    }

    /// Ends it; how often it has asked, and what went wrong.
    pub(crate) fn end(self) -> (usize, Vec<String>) {
        self.task.abort();
        (self.asked(), self.count.failures.lock().map(|failures| failures.clone()).unwrap_or_default())
    }
}

/// Asks once, over a connection of its own: the Service chooses anew.
pub(crate) async fn ask(base: &str, model: &str) -> Result<()> {
    let url = format!("{base}{}", contract::http::CHAT_COMPLETIONS);
    let messages = [json!({ "role": "user", "content": QUESTION })];
    let body = json!({ "model": model, "messages": messages, "temperature": 0, "max_tokens": 6 });
    let request = web::client(&url)?.post(&url).timeout(PATIENCE).json(&body);
    let response = request.send().await.with_context(|| format!("cannot reach {url}"))?;
    let (status, body) = (response.status(), response.json::<Value>().await?);
    let answer = body["choices"][0]["message"]["content"].as_str().unwrap_or_default();
    ensure!(status.is_success() && answer.starts_with(ANSWER), "{status}: {body}");
    Ok(())
}
