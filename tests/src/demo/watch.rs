//! Follows one LlmDeployment until it is ready and says what happens on the way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use contract::labels;
use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::Value;

/// Conditions in the order in which they become true, with the names of the phases that they end.
const PHASES: [(&str, &str); 4] =
    [("Accepted", "accepted"), ("ModelReady", "model_ready"), ("Placed", "placed"), ("Ready", "ready")];

/// What was seen on the way to ready.
#[derive(Debug)]
pub struct Followed {
    /// From the start to ready.
    pub ready_after: Duration,
    /// How long each phase took, in the order of the phases.
    pub phases: Vec<(&'static str, Duration)>,
    /// The object when it was ready.
    pub object: DynamicObject,
}

/// The API of LlmDeployments in a namespace.
pub fn deployments(client: kube::Client, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk(labels::GROUP, labels::VERSION, "LlmDeployment");
    Api::namespaced_with(client, namespace, &ApiResource::from_gvk(&kind))
}

/// Waits until `name` is ready; calls `show` with each new sentence of a condition.
pub async fn until_ready(
    api: Api<DynamicObject>,
    name: &str,
    limit: Duration,
    mut show: impl FnMut(Duration, &str),
) -> Result<Followed> {
    let started = Instant::now();
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut objects = std::pin::pin!(watcher(api, only).default_backoff().applied_objects());
    let mut seen = Seen::default();
    let mut trouble = None;
    let work = async {
        while let Some(next) = objects.next().await {
            let object = match next {
                Ok(object) => object,
                // The watcher starts again by itself, each time later; what it could not do matters at the limit.
                Err(error) => {
                    trouble = Some(error.to_string());
                    continue;
                }
            };
            trouble = None;
            for sentence in seen.observe(&object.data["status"], started.elapsed()) {
                show(started.elapsed(), &sentence);
            }
            if let Some(ready_after) = seen.reached.get("ready") {
                return Ok(Followed { ready_after: *ready_after, phases: seen.phases(), object });
            }
        }
        bail!("the watch ended")
    };
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => {
            let why = trouble.unwrap_or_else(|| seen.last_words());
            bail!("{name} is not ready after {} s: {why}", limit.as_secs())
        }
    }
}

/// What the conditions have said so far.
#[derive(Debug, Default)]
struct Seen {
    said: BTreeMap<String, String>,
    reached: BTreeMap<&'static str, Duration>,
}

impl Seen {
    fn observe(&mut self, status: &Value, now: Duration) -> Vec<String> {
        let mut news = Vec::new();
        for condition in status["conditions"].as_array().into_iter().flatten() {
            let text = |field: &str| condition[field].as_str().unwrap_or("").to_owned();
            let (kind, message) = (text("type"), text("message"));
            let sentence = format!("{kind}={} {}: {message}", text("status"), text("reason"));
            let known = PHASES.iter().find(|(condition, _)| *condition == kind);
            if let Some((_, phase)) = known
                && text("status") == "True"
            {
                self.reached.entry(phase).or_insert(now);
            }
            if known.is_some() && self.said.get(&kind) != Some(&sentence) {
                news.push(sentence.clone());
                self.said.insert(kind, sentence);
            }
        }
        news
    }

    fn phases(&self) -> Vec<(&'static str, Duration)> {
        let mut before = Duration::ZERO;
        let mut phases = Vec::new();
        for (_, phase) in PHASES {
            let Some(at) = self.reached.get(phase) else { continue };
            phases.push((phase, at.saturating_sub(before)));
            before = before.max(*at);
        }
        phases
    }

    fn last_words(&self) -> String {
        self.said.values().cloned().collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that fails once, and then lists a deployment that is ready.
    async fn fails_once() -> kube::Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ready = json!({
            "apiVersion": "llmfleet.dev/v1alpha1", "kind": "LlmDeploymentList", "metadata": { "resourceVersion": "1" },
            "items": [{
                "metadata": { "name": "a", "namespace": "n", "resourceVersion": "1" },
                "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": "R", "message": "m" }] },
            }],
        });
        tokio::spawn(async move {
            for (status, body) in
                [("500 Internal Server Error", "{}".to_owned()), ("200 OK", ready.to_string())]
            {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                );
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        });
        let url = format!("http://{address}").parse().unwrap();
        kube::Client::try_from(kube::Config::new(url)).unwrap()
    }

    #[tokio::test]
    async fn one_failed_request_does_not_end_the_watch() {
        let api = deployments(fails_once().await, "n");
        let followed = until_ready(api, "a", Duration::from_secs(30), |_, _| {}).await.unwrap();
        assert_eq!(followed.object.metadata.name.as_deref(), Some("a"));
    }

    #[test]
    fn phases_are_the_differences_and_sentences_come_once() {
        let condition =
            |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "R", "message": "m"});
        let mut seen = Seen::default();
        let first = json!({"conditions": [condition("Accepted", "True"), condition("Ready", "False")]});
        assert_eq!(seen.observe(&first, Duration::from_secs(1)).len(), 2);
        assert_eq!(seen.observe(&first, Duration::from_secs(2)).len(), 0);
        let second = json!({"conditions": [condition("Placed", "True"), condition("Ready", "True")]});
        assert_eq!(seen.observe(&second, Duration::from_secs(3)).len(), 2);
        let seconds = |s| Duration::from_secs(s);
        assert_eq!(seen.phases(), [("accepted", seconds(1)), ("placed", seconds(2)), ("ready", seconds(0))]);
    }
}
