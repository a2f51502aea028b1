//! Bodies of answers, whole and in chunks.
//!
//! In: text, why it ended, counts. Out: JSON in OpenAI's shapes. It must not know requests or connections.

use serde_json::{Value, json};

use super::App;
use super::generation::{Usage, random};
use crate::engine::FinishReason;

/// Which of the two endpoints an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Completion,
}

/// What all chunks of one answer have in common.
#[derive(Clone, Debug)]
pub(super) struct Header {
    id: String,
    created: u64,
    model: String,
    shape: Shape,
}

impl Header {
    pub(super) fn new(app: &App, shape: Shape) -> Self {
        let prefix = match shape {
            Shape::Chat => "chatcmpl",
            Shape::Completion => "cmpl",
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            id: format!("{prefix}-{:016x}{:016x}", random(), random()),
            created: now.map_or(0, |d| d.as_secs()),
            model: app.served_name.clone(),
            shape,
        }
    }

    fn with(&self, object: &str, choices: &Value) -> Value {
        let Self { id, created, model, shape: _ } = self;
        json!({ "id": id, "object": object, "created": created, "model": model, "choices": choices })
    }

    /// The one body of an answer that is not streamed.
    pub(super) fn whole(&self, text: &str, reason: FinishReason, usage: Usage) -> Value {
        let reason = reason_name(reason);
        let mut body = match self.shape {
            Shape::Chat => self.with(
                "chat.completion",
                &json!([{
                    "index": 0, "message": { "role": "assistant", "content": text, "refusal": null },
                    "logprobs": null, "finish_reason": reason
                }]),
            ),
            Shape::Completion => self.with(
                "text_completion",
                &json!([{ "index": 0, "text": text, "logprobs": null, "finish_reason": reason }]),
            ),
        };
        body["usage"] = usage_json(usage);
        body
    }

    /// The chunk that says who speaks; plain completions have none.
    pub(super) fn first(&self) -> Option<Value> {
        let delta = json!({ "role": "assistant", "content": "" });
        (self.shape == Shape::Chat).then(|| self.chat_chunk(&delta, None))
    }

    /// A chunk of text.
    pub(super) fn text(&self, text: &str) -> Value {
        match self.shape {
            Shape::Chat => self.chat_chunk(&json!({ "content": text }), None),
            Shape::Completion => self.text_chunk(text, None),
        }
    }

    /// The chunk that says why there is no more.
    pub(super) fn end(&self, reason: FinishReason) -> Value {
        match self.shape {
            Shape::Chat => self.chat_chunk(&json!({}), Some(reason)),
            Shape::Completion => self.text_chunk("", Some(reason)),
        }
    }

    /// The chunk that counts tokens.
    pub(super) fn usage(&self, usage: Usage) -> Value {
        let mut body = self.with(self.chunk_object(), &json!([]));
        body["usage"] = usage_json(usage);
        body
    }

    const fn chunk_object(&self) -> &'static str {
        match self.shape {
            Shape::Chat => "chat.completion.chunk",
            Shape::Completion => "text_completion",
        }
    }

    fn chat_chunk(&self, delta: &Value, reason: Option<FinishReason>) -> Value {
        let reason = reason.map(reason_name);
        let choice = json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason });
        self.with(self.chunk_object(), &json!([choice]))
    }

    fn text_chunk(&self, text: &str, reason: Option<FinishReason>) -> Value {
        let reason = reason.map(reason_name);
        let choice = json!({ "index": 0, "text": text, "logprobs": null, "finish_reason": reason });
        self.with(self.chunk_object(), &json!([choice]))
    }
}

const fn reason_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        // There is less of the answer than there would have been.
        FinishReason::Length | FinishReason::Deadline => "length",
    }
}

fn usage_json(Usage { prompt, cached, completion }: Usage) -> Value {
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": cached }
    })
}
