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
use crate::engine::FinishReason;
use crate::request;

/// `POST /v1/messages`.
pub(super) async fn messages(
    State(app): State<Arc<App>>,
    client: Client,
    body: Body,
) -> Result<Response, ApiError> {
    let Asked { place, request } = Asked::read(&app, body, request::anthropic).await?;
    let render = Box::new(Anthropic::new(&request.model));
    answer(&app, (place, client), request, render).await
}

/// `POST /v1/messages/count_tokens`.
pub(super) async fn count_tokens(State(app): State<Arc<App>>, body: Body) -> Result<Json<Value>, ApiError> {
    let received = app.intake.read(body).await?;
    let mut request = request::anthropic_count(&received.bytes, &app.names)?;
    let prompt = request.prompts.pop().ok_or_else(|| ApiError::internal("a request without a prompt"))?;
    Ok(Json(json!({ "input_tokens": encode(&app, prompt, true).await?.len() })))
}

/// Renders an answer; there is only ever one.
struct Anthropic {
    id: String,
    model: String,
    /// Blocks that have begun; the last is open until something else comes.
    blocks: usize,
    open: bool,
    end: Option<End>,
}

impl Anthropic {
    fn new(model: &str) -> Self {
        let id = format!("msg_{:016x}{:016x}", random(), random());
        Self { id, model: model.to_owned(), blocks: 0, open: false, end: None }
    }

    fn message(&self, content: &Value, end: Option<&End>, usage: &Value) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": end.map(stop_reason), "stop_sequence": end.and_then(|end| end.stop.as_ref()),
            "usage": usage
        })
    }

    fn close(&mut self) -> Option<Event> {
        let open = std::mem::take(&mut self.open);
        open.then(|| named(&json!({ "type": "content_block_stop", "index": self.blocks - 1 })))
    }

    fn begin_text(&mut self) -> Option<Event> {
        if self.open {
            return None;
        }
        self.open = true;
        self.blocks += 1;
        let block = json!({ "type": "text", "text": "" });
        Some(named(
            &json!({ "type": "content_block_start", "index": self.blocks - 1, "content_block": block }),
        ))
    }
}

impl Render for Anthropic {
    fn whole(&mut self, answers: Vec<Answer>, usage: Usage) -> Value {
        let Answer { text, end, .. } = answers.into_iter().next().unwrap_or_default();
        self.message(&json!([{ "type": "text", "text": text }]), end.as_ref(), &usage_json(usage))
    }

    fn begin(&mut self, _: usize, prompt_tokens: usize) -> Vec<Event> {
        let usage = json!({ "input_tokens": prompt_tokens, "output_tokens": 0 });
        let message = self.message(&json!([]), None, &usage);
        let start = named(&json!({ "type": "message_start", "message": message }));
        vec![start, named(&json!({ "type": "ping" }))]
    }

    fn part(&mut self, _: usize, part: Part) -> Vec<Event> {
        match part {
            Part::Text(text, _) => {
                let delta = json!({ "type": "text_delta", "text": text });
                let begun = self.begin_text();
                let delta =
                    json!({ "type": "content_block_delta", "index": self.blocks - 1, "delta": delta });
                begun.into_iter().chain([named(&delta)]).collect()
            }
            Part::End(end) => {
                self.end = Some(end);
                // An answer of nothing has a block all the same, as one that is not streamed.
                let empty = if self.blocks == 0 { self.begin_text() } else { None };
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
