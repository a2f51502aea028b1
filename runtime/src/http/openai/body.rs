//! Bodies of answers, whole and in chunks.
//!
//! In: text, why it ended, counts. Out: JSON in OpenAI's shapes. It must not know requests or connections.

use std::collections::BTreeMap;

use axum::response::sse::Event;
use serde_json::{Value, json};

use super::super::answers::Answer;
use super::super::error::ApiError;
use super::super::generation::choice::Told;
use super::super::generation::{End, Part, Usage, random};
use super::super::render::{Render, data};
use super::super::{App, now};
use super::logprobs;
use crate::dialect::Call;
use crate::engine::FinishReason;

/// What ends every stream.
const DONE: &str = "[DONE]";

/// Which of the two endpoints an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Completion,
}

/// Renders answers of either.
#[derive(Clone, Debug)]
pub(super) struct OpenAi {
    id: String,
    created: u64,
    model: String,
    fingerprint: Option<String>,
    shape: Shape,
    /// Whether a stream ends with a count; then every chunk has the field.
    count: bool,
    /// Characters of each choice's tokens so far.
    offsets: BTreeMap<usize, usize>,
}

impl OpenAi {
    pub(super) fn new(app: &App, shape: Shape, model: &str, count: bool) -> Self {
        let prefix = match shape {
            Shape::Chat => "chatcmpl",
            Shape::Completion => "cmpl",
        };
        Self {
            id: format!("{prefix}-{:016x}{:016x}", random(), random()),
            created: now(),
            model: model.to_owned(),
            fingerprint: app.fingerprint(),
            shape,
            count,
            offsets: BTreeMap::new(),
        }
    }

    fn with(&self, object: &str, choices: &Value) -> Value {
        let Self { id, created, model, fingerprint, .. } = self;
        json!({
            "id": id, "object": object, "created": created, "model": model, "choices": choices,
            "system_fingerprint": fingerprint
        })
    }

    fn choice(&self, index: usize, answer: &Answer) -> Value {
        let reason = answer.end.as_ref().map(reason_name);
        let stop = answer.end.as_ref().and_then(|end| end.stop.as_ref());
        let logprobs = self.logprobs(&answer.told, 0);
        match self.shape {
            Shape::Chat => json!({
                "index": index, "message": self.message(answer),
                "logprobs": logprobs, "finish_reason": reason, "stop_reason": stop
            }),
            Shape::Completion => json!({
                "index": index, "text": answer.text, "logprobs": logprobs, "finish_reason": reason,
                "stop_reason": stop
            }),
        }
    }

    /// Who called tools or only reasoned need not have said anything.
    fn message(&self, Answer { reasoning, text, calls, .. }: &Answer) -> Value {
        let said = !text.is_empty() || (calls.is_empty() && reasoning.is_empty());
        let mut message = json!({ "role": "assistant", "content": said.then_some(text), "refusal": null });
        if !reasoning.is_empty() {
            message["reasoning"] = json!(reasoning);
            message["reasoning_content"] = json!(reasoning);
        }
        if !calls.is_empty() {
            let calls = calls.iter().enumerate();
            message["tool_calls"] = calls.map(|(index, call)| tool_call(index, call)).collect();
        }
        message
    }

    /// A chunk of something that is no text of the answer.
    fn delta_chunk(&self, index: usize, delta: &Value) -> Vec<Event> {
        let choice = json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null });
        vec![self.event(&json!([choice]), Value::Null)]
    }

    fn logprobs(&self, told: &[Told], offset: usize) -> Value {
        match self.shape {
            _ if told.is_empty() => Value::Null,
            Shape::Chat => logprobs::chat(told),
            Shape::Completion => logprobs::completion(told, offset),
        }
    }

    /// A chunk of one choice: of a chat its delta, else its text.
    fn text_chunk(&mut self, index: usize, text: &str, told: &[Told]) -> Event {
        let offset = self.offsets.entry(index).or_default();
        let from = *offset;
        *offset += told.iter().map(|told| told.text.chars().count()).sum::<usize>();
        let logprobs = self.logprobs(told, from);
        let choice = match self.shape {
            Shape::Chat => json!({
                "index": index, "delta": { "content": text }, "logprobs": logprobs, "finish_reason": null
            }),
            Shape::Completion => json!({
                "index": index, "text": text, "logprobs": logprobs, "finish_reason": null
            }),
        };
        self.event(&json!([choice]), Value::Null)
    }

    fn end_chunk(&self, index: usize, end: &End) -> Event {
        let mut choice = match self.shape {
            Shape::Chat => json!({ "index": index, "delta": {} }),
            Shape::Completion => json!({ "index": index, "text": "" }),
        };
        choice["logprobs"] = Value::Null;
        choice["finish_reason"] = json!(reason_name(end));
        choice["stop_reason"] = json!(end.stop);
        self.event(&json!([choice]), Value::Null)
    }

    fn event(&self, choices: &Value, usage: Value) -> Event {
        let object = match self.shape {
            Shape::Chat => "chat.completion.chunk",
            Shape::Completion => "text_completion",
        };
        let mut chunk = self.with(object, choices);
        if self.count {
            chunk["usage"] = usage;
        }
        data(&chunk)
    }
}

impl Render for OpenAi {
    fn whole(&mut self, answers: Vec<Answer>, usage: Usage) -> Value {
        let object = match self.shape {
            Shape::Chat => "chat.completion",
            Shape::Completion => "text_completion",
        };
        let choices: Vec<_> =
            answers.iter().enumerate().map(|(at, answer)| self.choice(at, answer)).collect();
        let mut body = self.with(object, &json!(choices));
        body["usage"] = usage_json(usage);
        body
    }

    /// The chunks that say who speaks; plain completions have none.
    fn begin(&mut self, n: usize, _: usize) -> Vec<Event> {
        let first = |index| {
            let delta = json!({ "role": "assistant", "content": "" });
            let choice = json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null });
            self.event(&json!([choice]), Value::Null)
        };
        let n = if self.shape == Shape::Chat { n } else { 0 };
        (0..n).map(first).collect()
    }

    fn part(&mut self, index: usize, part: Part) -> Vec<Event> {
        match part {
            Part::Text(text, told) => vec![self.text_chunk(index, &text, &told)],
            Part::Reasoning(text) => {
                self.delta_chunk(index, &json!({ "reasoning": text, "reasoning_content": text }))
            }
            Part::Call(at, call) => {
                let mut call = tool_call(at, &call);
                call["index"] = json!(at);
                self.delta_chunk(index, &json!({ "tool_calls": [call] }))
            }
            Part::End(end) => vec![self.end_chunk(index, &end)],
            Part::Queued(_) | Part::Counted(_) | Part::Failed(_) => Vec::new(),
        }
    }

    fn end(&mut self, usage: Usage) -> Vec<Event> {
        let counted = self.count.then(|| self.event(&json!([]), usage_json(usage)));
        counted.into_iter().chain([Event::default().data(DONE)]).collect()
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Event> {
        vec![data(&error.body()), Event::default().data(DONE)]
    }
}

/// A call, with a name that no other has.
fn tool_call(index: usize, Call { name, arguments }: &Call) -> Value {
    let id = format!("call_{:016x}{index:02}", random());
    json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
}

const fn reason_name(end: &End) -> &'static str {
    match end.reason {
        FinishReason::Stop if end.called => "tool_calls",
        FinishReason::Stop => "stop",
        FinishReason::Length | FinishReason::Deadline => "length",
    }
}

fn usage_json(Usage { prompt, cached, completion }: Usage) -> Value {
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": cached }
    })
}
