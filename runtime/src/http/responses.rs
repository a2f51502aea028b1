//! OpenAI's responses, without anything stored. Shapes: the API reference of platform.openai.com, sections Responses
//! and Streaming.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::response::sse::Event;
use serde_json::{Value, json};

use super::answer::{Asked, answer};
use super::answers::Answer;
use super::client::Client;
use super::error::ApiError;
use super::generation::{End, Part, Usage, random};
use super::render::{Render, named};
use super::{App, now};
use crate::engine::FinishReason;
use crate::request::{self, ValidRequest};

/// `POST /v1/responses`.
pub(super) async fn responses(
    State(app): State<Arc<App>>,
    client: Client,
    body: Body,
) -> Result<Response, ApiError> {
    let Asked { place, request } = Asked::read(&app, body, request::responses).await?;
    let render = Box::new(Responses::new(&request));
    answer(&app, (place, client), request, render).await
}

/// Renders an answer; there is only ever one.
struct Responses {
    /// What every body of the response has, as long as nothing has come of it.
    response: Value,
    message: String,
    text: String,
    /// Whether the message has begun.
    begun: bool,
    end: Option<End>,
    /// Number of the next event.
    sequence: u64,
}

impl Responses {
    fn new(request: &ValidRequest) -> Self {
        let none: [Value; 0] = [];
        let response = json!({
            "id": format!("resp_{:016x}{:016x}", random(), random()), "object": "response", "created_at": now(),
            "status": "in_progress", "background": false, "error": null, "incomplete_details": null,
            "instructions": null, "max_output_tokens": request.max_tokens, "model": request.model, "output": none,
            "parallel_tool_calls": true, "previous_response_id": null,
            "reasoning": { "effort": null, "summary": null }, "store": false,
            "temperature": request.sampling.temperature, "text": { "format": { "type": "text" } },
            "tool_choice": "auto", "tools": none, "top_p": request.sampling.top_p, "truncation": "disabled",
            "usage": null, "user": null, "metadata": {}
        });
        let message = format!("msg_{:016x}{:016x}", random(), random());
        Self { response, message, text: String::new(), begun: false, end: None, sequence: 0 }
    }

    fn complete(&self) -> bool {
        self.end.as_ref().is_none_or(|end| end.reason != FinishReason::Length)
    }

    const fn status(complete: bool) -> &'static str {
        if complete { "completed" } else { "incomplete" }
    }

    fn content(&self) -> Value {
        let none: [Value; 0] = [];
        json!({ "type": "output_text", "text": self.text, "annotations": none, "logprobs": none })
    }

    fn item(&self, status: &str, content: &Value) -> Value {
        json!({
            "id": self.message, "type": "message", "status": status, "role": "assistant", "content": content
        })
    }

    fn finished(&self, usage: Usage) -> Value {
        let mut response = self.response.clone();
        let status = Self::status(self.complete());
        response["status"] = json!(status);
        if !self.complete() {
            response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        response["output"] = json!([self.item(status, &json!([self.content()]))]);
        response["usage"] = usage_json(usage);
        response
    }

    fn event(&mut self, kind: &str, mut fields: Value) -> Event {
        fields["type"] = json!(kind);
        fields["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        named(&fields)
    }

    /// An event about the text.
    fn text_event(&mut self, kind: &str, mut fields: Value) -> Event {
        fields["item_id"] = json!(self.message);
        fields["output_index"] = json!(0);
        fields["content_index"] = json!(0);
        self.event(kind, fields)
    }

    fn begin_message(&mut self) -> Vec<Event> {
        if std::mem::replace(&mut self.begun, true) {
            return Vec::new();
        }
        let item = self.item("in_progress", &json!([]));
        let part = self.content();
        vec![
            self.event("response.output_item.added", json!({ "output_index": 0, "item": item })),
            self.text_event("response.content_part.added", json!({ "part": part })),
        ]
    }
}

impl Render for Responses {
    fn whole(&mut self, answers: Vec<Answer>, usage: Usage) -> Value {
        let Answer { text, end, .. } = answers.into_iter().next().unwrap_or_default();
        (self.text, self.end) = (text, end);
        self.finished(usage)
    }

    fn begin(&mut self, _: usize, _: usize) -> Vec<Event> {
        let response = json!({ "response": self.response });
        ["response.created", "response.in_progress"].map(|kind| self.event(kind, response.clone())).into()
    }

    fn part(&mut self, _: usize, part: Part) -> Vec<Event> {
        let mut events = self.begin_message();
        match part {
            Part::Text(text, _) => {
                self.text.push_str(&text);
                let none: [Value; 0] = [];
                let delta = json!({ "delta": text, "logprobs": none });
                events.push(self.text_event("response.output_text.delta", delta));
            }
            Part::End(end) => {
                self.end = Some(end);
                let (text, part) = (self.text.clone(), self.content());
                let none: [Value; 0] = [];
                let done = json!({ "text": text, "logprobs": none });
                events.push(self.text_event("response.output_text.done", done));
                events.push(self.text_event("response.content_part.done", json!({ "part": part })));
                let item = self.item(Self::status(self.complete()), &json!([part]));
                let done = json!({ "output_index": 0, "item": item });
                events.push(self.event("response.output_item.done", done));
            }
            Part::Queued(_) | Part::Counted(_) | Part::Failed(_) => {}
        }
        events
    }

    fn end(&mut self, usage: Usage) -> Vec<Event> {
        let kind = if self.complete() { "response.completed" } else { "response.incomplete" };
        let response = json!({ "response": self.finished(usage) });
        vec![self.event(kind, response)]
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Event> {
        let mut response = self.response.clone();
        let error = &error.body()["error"];
        response["status"] = json!("failed");
        response["error"] = json!({ "code": "server_error", "message": error["message"] });
        vec![self.event("response.failed", json!({ "response": response }))]
    }
}

fn usage_json(Usage { prompt, cached, completion }: Usage) -> Value {
    json!({
        "input_tokens": prompt, "input_tokens_details": { "cached_tokens": cached },
        "output_tokens": completion, "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": prompt + completion
    })
}
