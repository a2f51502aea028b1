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
use crate::dialect::Call;
use crate::engine::FinishReason;
use crate::request::{self, ValidRequest};

/// `POST /v1/responses`.
pub(super) async fn responses(
    State(app): State<Arc<App>>,
    client: Client,
    body: Body,
) -> Result<Response, ApiError> {
    let Asked { place, request } = Asked::read(&app, &client, body, request::responses).await?;
    let render = Box::new(Responses::new(&request));
    answer(&app, (place, client), request, render).await
}

/// Renders an answer; there is only ever one.
struct Responses {
    /// What every body of the response has, as long as nothing has come of it.
    response: Value,
    /// Items that are complete.
    output: Vec<Value>,
    /// The item that is not.
    open: Option<Open>,
    end: Option<End>,
    /// Number of the next event.
    sequence: u64,
}

/// A message or reasoning on its way.
struct Open {
    id: String,
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Reasoning,
}

impl Open {
    fn new(kind: Kind) -> Self {
        let prefix = if kind == Kind::Message { "msg" } else { "rs" };
        Self { id: format!("{prefix}_{:016x}{:016x}", random(), random()), kind, text: String::new() }
    }

    fn content(&self) -> Value {
        let none: [Value; 0] = [];
        match self.kind {
            Kind::Message => {
                json!({ "type": "output_text", "text": self.text, "annotations": none, "logprobs": none })
            }
            Kind::Reasoning => json!({ "type": "reasoning_text", "text": self.text }),
        }
    }

    fn item(&self, status: &str, content: &Value) -> Value {
        let none: [Value; 0] = [];
        match self.kind {
            Kind::Message => json!({
                "id": self.id, "type": "message", "status": status, "role": "assistant", "content": content
            }),
            Kind::Reasoning => json!({
                "id": self.id, "type": "reasoning", "status": status, "summary": none, "content": content
            }),
        }
    }

    /// The events of its text.
    const fn event(&self, done: bool) -> &'static str {
        match (self.kind, done) {
            (Kind::Message, false) => "response.output_text.delta",
            (Kind::Message, true) => "response.output_text.done",
            (Kind::Reasoning, false) => "response.reasoning_text.delta",
            (Kind::Reasoning, true) => "response.reasoning_text.done",
        }
    }
}

/// A call; its id is that of the item, and the other the one that its answer names.
fn function_call(Call { name, arguments }: &Call, status: &str) -> Value {
    json!({
        "id": format!("fc_{:016x}", random()), "call_id": format!("call_{:016x}", random()),
        "type": "function_call", "status": status, "name": name, "arguments": arguments
    })
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
        Self { response, output: Vec::new(), open: None, end: None, sequence: 0 }
    }

    fn complete(&self) -> bool {
        self.end.as_ref().is_none_or(|end| end.reason != FinishReason::Length)
    }

    const fn status(complete: bool) -> &'static str {
        if complete { "completed" } else { "incomplete" }
    }

    fn finished(&self, usage: Usage) -> Value {
        let mut response = self.response.clone();
        let status = Self::status(self.complete());
        response["status"] = json!(status);
        if !self.complete() {
            response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        response["output"] = json!(self.output);
        response["usage"] = usage_json(usage);
        response
    }

    fn event(&mut self, kind: &str, mut fields: Value) -> Event {
        fields["type"] = json!(kind);
        fields["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        named(&fields)
    }

    /// An event about the text of the open item.
    fn text_event(&mut self, kind: &str, id: &str, mut fields: Value) -> Event {
        fields["item_id"] = json!(id);
        fields["output_index"] = json!(self.output.len());
        fields["content_index"] = json!(0);
        self.event(kind, fields)
    }

    /// An event about the item as a whole.
    fn item_event(&mut self, kind: &str, item: &Value) -> Event {
        let fields = json!({ "output_index": self.output.len(), "item": item });
        self.event(kind, fields)
    }

    /// More of a text, whose item begins if it is not open.
    fn more(&mut self, kind: Kind, text: &str) -> Vec<Event> {
        let mut events = Vec::new();
        if self.open.as_ref().is_none_or(|open| open.kind != kind) {
            events = self.close();
            let open = Open::new(kind);
            let part = open.content();
            events.push(self.item_event("response.output_item.added", &open.item("in_progress", &json!([]))));
            events.push(self.text_event("response.content_part.added", &open.id, json!({ "part": part })));
            self.open = Some(open);
        }
        if !text.is_empty()
            && let Some(mut open) = self.open.take()
        {
            open.text.push_str(text);
            let none: [Value; 0] = [];
            let delta = json!({ "delta": text, "logprobs": none });
            events.push(self.text_event(open.event(false), &open.id, delta));
            self.open = Some(open);
        }
        events
    }

    /// Ends the open item.
    fn close(&mut self) -> Vec<Event> {
        let Some(open) = self.open.take() else { return Vec::new() };
        let part = open.content();
        let none: [Value; 0] = [];
        let item = open.item(Self::status(self.complete()), &json!([part]));
        let events = vec![
            self.text_event(open.event(true), &open.id, json!({ "text": open.text, "logprobs": none })),
            self.text_event("response.content_part.done", &open.id, json!({ "part": part })),
            self.item_event("response.output_item.done", &item),
        ];
        self.output.push(item);
        events
    }

    fn call(&mut self, call: &Call) -> Vec<Event> {
        let mut events = self.close();
        let item = function_call(call, "completed");
        let mut begun = item.clone();
        begun["status"] = json!("in_progress");
        begun["arguments"] = json!("");
        let at = json!({ "item_id": item["id"], "output_index": self.output.len() });
        let with = |name: &str| {
            let mut fields = at.clone();
            fields[name] = item["arguments"].clone();
            fields
        };
        events.push(self.item_event("response.output_item.added", &begun));
        events.push(self.event("response.function_call_arguments.delta", with("delta")));
        events.push(self.event("response.function_call_arguments.done", with("arguments")));
        events.push(self.item_event("response.output_item.done", &item));
        self.output.push(item);
        events
    }
}

impl Render for Responses {
    fn whole(&mut self, answers: Vec<Answer>, usage: Usage) -> Value {
        let Answer { reasoning, text, calls, end, .. } = answers.into_iter().next().unwrap_or_default();
        self.end = end;
        let silent = text.is_empty() && !(calls.is_empty() && reasoning.is_empty());
        for (kind, text, left_out) in
            [(Kind::Reasoning, &reasoning, reasoning.is_empty()), (Kind::Message, &text, silent)]
        {
            if !left_out {
                self.more(kind, text);
                self.close();
            }
        }
        self.output.extend(calls.iter().map(|call| function_call(call, "completed")));
        self.finished(usage)
    }

    fn begin(&mut self, _: usize, _: usize) -> Vec<Event> {
        let response = json!({ "response": self.response });
        ["response.created", "response.in_progress"].map(|kind| self.event(kind, response.clone())).into()
    }

    fn part(&mut self, _: usize, part: Part) -> Vec<Event> {
        match part {
            // What only tells of tokens is no item.
            Part::Text(text, _) if text.is_empty() => Vec::new(),
            Part::Text(text, _) => self.more(Kind::Message, &text),
            Part::Reasoning(text) => self.more(Kind::Reasoning, &text),
            Part::Call(_, call) => self.call(&call),
            Part::End(end) => {
                self.end = Some(end);
                // An answer of nothing has a message all the same, as one that is not streamed.
                let nothing = self.output.is_empty() && self.open.is_none();
                let mut events = if nothing { self.more(Kind::Message, "") } else { Vec::new() };
                events.extend(self.close());
                events
            }
            Part::Queued(_) | Part::Counted(_) | Part::Failed(_) => Vec::new(),
        }
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
