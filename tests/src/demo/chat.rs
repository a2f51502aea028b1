//! Asks a served model one question over HTTP and shows the answer as it comes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::process::wait_for;
use crate::web;

/// An answer that came as a stream.
#[derive(Debug)]
pub struct Answer {
    /// All of its text.
    pub text: String,
    /// From sending the request to the first piece of text.
    pub first_token: Duration,
    /// Tokens generated, as the server counted them.
    pub tokens: u64,
}

/// Longest time that an answer may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Longest time that a cluster may take to route to a pod that is ready.
const ROUTED: Duration = Duration::from_secs(30);

/// Waits until the model behind `base` can be reached: a cluster routes to a pod a moment after the pod is ready.
pub async fn until_reached(base: &str) -> Result<()> {
    let url = format!("{base}{}", contract::http::MODELS);
    wait_for("the way to the model", ROUTED, async || {
        Ok(web::get(&url).await?.error_for_status().map(drop)?)
    })
    .await
}

/// Sends `question` to the chat endpoint below `base` and calls `show` with each piece of text.
pub async fn ask(base: &str, model: &str, question: &str, mut show: impl FnMut(&str)) -> Result<Answer> {
    let body = json!({
        "model": model,
        "messages": [{ "role": "user", "content": question }],
        "temperature": 0,
        "max_tokens": 64,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    let url = format!("{base}{}", contract::http::CHAT_COMPLETIONS);
    let request = web::client(&url)?.post(&url).timeout(LIMIT).json(&body);
    let started = Instant::now();
    let response = request.send().await.with_context(|| format!("cannot reach {url}"))?;
    let status = response.status();
    ensure!(status.is_success(), "{url} answered {status}: {}", response.text().await.unwrap_or_default());

    let mut answer = Answer { text: String::new(), first_token: Duration::ZERO, tokens: 0 };
    let mut events = Events::default();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        for event in events.feed(&chunk.context("the answer was cut off")?)? {
            ensure!(event.get("error").is_none(), "the server gave up: {}", event["error"]);
            if let Some(tokens) = event["usage"]["completion_tokens"].as_u64() {
                answer.tokens = tokens;
            }
            let piece = event["choices"][0]["delta"]["content"].as_str().unwrap_or("");
            if !piece.is_empty() {
                if answer.text.is_empty() {
                    answer.first_token = started.elapsed();
                }
                answer.text.push_str(piece);
                show(piece);
            }
        }
    }
    ensure!(events.done, "the answer ended without [DONE]");
    Ok(answer)
}

/// Cuts a byte stream into the JSON payloads of server-sent events.
#[derive(Default)]
struct Events {
    rest: Vec<u8>,
    done: bool,
}

impl Events {
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Value>> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = std::str::from_utf8(&line).context("the stream is not UTF-8")?.trim();
            match line.strip_prefix("data:").map(str::trim) {
                Some("[DONE]") => self.done = true,
                Some(json) => {
                    let event = serde_json::from_str(json).with_context(|| format!("not JSON: {json}"))?;
                    events.push(event);
                }
                None => {}
            }
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_any_cut() {
        let stream = "data: {\"a\":\"é\"}\n\n: comment\n\ndata: {\"a\":2}\n\ndata: [DONE]\n\n".as_bytes();
        for cut in 0..stream.len() {
            let mut events = Events::default();
            let mut seen = events.feed(&stream[..cut]).unwrap();
            seen.extend(events.feed(&stream[cut..]).unwrap());
            assert_eq!(seen, [json!({"a": "é"}), json!({"a": 2})], "{cut}");
            assert!(events.done);
        }
        assert!(Events::default().feed(b"data: {\n").is_err());
    }
}
