//! Anthropic's endpoints. Shapes: the API reference of docs.anthropic.com, sections Messages and Streaming.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::response::sse::Event;
use serde_json::{Value, json};

use super::App;
use super::answer::{Asked, answer};
use super::answers::Answer;
use super::client::Client;
use super::error::ApiError;
use super::generation::{End, Part, Usage, encode, random};
use super::render::{Render, named};
use crate::dialect::Call;
use crate::engine::FinishReason;
use crate::request;

/// `POST /v1/messages`.
pub(super) async fn messages(
    State(app): State<Arc<App>>,
    client: Client,
    body: Body,
) -> Result<Response, ApiError> {
    let Asked { place, request } = Asked::read(&app, &client, body, request::anthropic).await?;
    let render = Box::new(Anthropic::new(&request.model));
    answer(&app, (place, client), request, render).await
}

/// `POST /v1/messages/count_tokens`.
pub(super) async fn count_tokens(State(app): State<Arc<App>>, body: Body) -> Result<Json<Value>, ApiError> {
    let received = app.intake.read(body).await?;
    let mut request = request::anthropic_count(&received.bytes, &app.names)?;
    let prompt = request.prompts.pop().ok_or_else(|| ApiError::internal("a request without a prompt"))?;
    let param = prompt.param();
    Ok(Json(json!({ "input_tokens": encode(&app, prompt, param, true).await?.tokens.len() })))
}

/// Renders an answer; there is only ever one.
struct Anthropic {
    id: String,
    model: String,
    /// Blocks that have begun.
    blocks: usize,
    /// The type of the last, as long as it is open.
    open: Option<&'static str>,
    end: Option<End>,
}

const TEXT: &str = "text";
const THINKING: &str = "thinking";

impl Anthropic {
    fn new(model: &str) -> Self {
        let id = format!("msg_{:016x}{:016x}", random(), random());
        Self { id, model: model.to_owned(), blocks: 0, open: None, end: None }
    }

    fn message(&self, content: &Value, end: Option<&End>, usage: &Value) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": end.map(stop_reason), "stop_sequence": end.and_then(|end| end.stop.as_ref()),
            "usage": usage
        })
    }

    fn close(&mut self) -> Option<Event> {
        self.open.take().map(|_| named(&json!({ "type": "content_block_stop", "index": self.blocks - 1 })))
    }

    /// Begins a block, after the one that is open.
    fn begin_block(&mut self, kind: &'static str, block: &Value) -> Vec<Event> {
        let closed = self.close();
        (self.open, self.blocks) = (Some(kind), self.blocks + 1);
        let start =
            json!({ "type": "content_block_start", "index": self.blocks - 1, "content_block": block });
        closed.into_iter().chain([named(&start)]).collect()
    }

    fn delta(&self, delta: &Value) -> Event {
        named(&json!({ "type": "content_block_delta", "index": self.blocks - 1, "delta": delta }))
    }

    /// More of a block of text or of thinking, which begins if it is not open.
    fn more(&mut self, kind: &'static str, text: &str) -> Vec<Event> {
        let mut events = match kind {
            _ if self.open == Some(kind) => Vec::new(),
            THINKING => self.begin_block(kind, &thinking("")),
            _ => self.begin_block(kind, &json!({ "type": TEXT, "text": "" })),
        };
        events.push(self.delta(&json!({ "type": format!("{kind}_delta"), kind: text })));
        events
    }
}

/// Nobody signs here what was thought.
fn thinking(text: &str) -> Value {
    json!({ "type": THINKING, "thinking": text, "signature": "" })
}

/// A call, with a name that no other has.
fn tool_use(name: &str, input: &Value) -> Value {
    let id = format!("toolu_{:016x}", random());
    json!({ "type": "tool_use", "id": id, "name": name, "input": input })
}

impl Render for Anthropic {
    fn whole(&mut self, answers: Vec<Answer>, usage: Usage) -> Value {
        let Answer { reasoning, text, calls, end, .. } = answers.into_iter().next().unwrap_or_default();
        let mut content = Vec::new();
        if !reasoning.is_empty() {
            content.push(thinking(&reasoning));
        }
        if !text.is_empty() || (calls.is_empty() && content.is_empty()) {
            content.push(json!({ "type": TEXT, "text": text }));
        }
        content.extend(calls.iter().map(|Call { name, arguments }| {
            // Calls are only told of whose arguments are an object.
            tool_use(name, &serde_json::from_str(arguments).unwrap_or_default())
        }));
        self.message(&json!(content), end.as_ref(), &usage_json(usage))
    }

    fn begin(&mut self, _: usize, prompt_tokens: usize) -> Vec<Event> {
        let usage = json!({ "input_tokens": prompt_tokens, "output_tokens": 0 });
        let message = self.message(&json!([]), None, &usage);
        let start = named(&json!({ "type": "message_start", "message": message }));
        vec![start, named(&json!({ "type": "ping" }))]
    }

    fn part(&mut self, _: usize, part: Part) -> Vec<Event> {
        match part {
            // What only tells of tokens is no block.
            Part::Text(text, _) if text.is_empty() => Vec::new(),
            Part::Text(text, _) => self.more(TEXT, &text),
            Part::Reasoning(text) => self.more(THINKING, &text),
            Part::Call(_, Call { name, arguments }) => {
                let mut events = self.begin_block("tool_use", &tool_use(&name, &json!({})));
                events.push(self.delta(&json!({ "type": "input_json_delta", "partial_json": arguments })));
                events.extend(self.close());
                events
            }
            Part::End(end) => {
                self.end = Some(end);
                // An answer of nothing has a block all the same, as one that is not streamed.
                let empty = if self.blocks == 0 {
                    self.begin_block(TEXT, &json!({ "type": TEXT, "text": "" }))
                } else {
                    Vec::new()
                };
                empty.into_iter().chain(self.close()).collect()
            }
            Part::Queued(_) | Part::Counted(_) | Part::Failed(_) => Vec::new(),
        }
    }

    fn end(&mut self, usage: Usage) -> Vec<Event> {
        let end = self.end.as_ref();
        let stop = end.and_then(|end| end.stop.as_ref());
        let delta = json!({ "stop_reason": end.map(stop_reason), "stop_sequence": stop });
        let delta = json!({ "type": "message_delta", "delta": delta, "usage": usage_json(usage) });
        vec![named(&delta), named(&json!({ "type": "message_stop" }))]
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Event> {
        vec![named(&error.anthropic())]
    }
}

const fn stop_reason(end: &End) -> &'static str {
    match (end.reason, &end.stop) {
        (FinishReason::Stop, Some(_)) => "stop_sequence",
        (FinishReason::Stop, None) if end.called => "tool_use",
        (FinishReason::Stop, None) => "end_turn",
        (FinishReason::Length | FinishReason::Deadline, _) => "max_tokens",
    }
}

/// Tokens that the cache had are counted apart.
fn usage_json(Usage { prompt, cached, completion }: Usage) -> Value {
    json!({
        "input_tokens": prompt.saturating_sub(cached), "output_tokens": completion,
        "cache_read_input_tokens": cached, "cache_creation_input_tokens": 0
    })
}
