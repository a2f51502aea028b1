//! How an answer looks: one implementation for each API that is spoken.

use axum::response::sse::Event;
use serde_json::Value;

use super::answers::Answer;
use super::error::ApiError;
use super::generation::{Part, Usage};

/// Makes bodies of answers. It is told everything in order, and may keep what it needs for what comes later.
pub(super) trait Render: Send {
    /// The one body of an answer that is not streamed.
    fn whole(&mut self, answers: Vec<Answer>, usage: Usage) -> Value;

    /// What a stream of so many answers begins with; prompts have so many tokens together.
    fn begin(&mut self, n: usize, prompt_tokens: usize) -> Vec<Event>;

    /// A part of the answer of this number; neither a count nor a failure.
    fn part(&mut self, index: usize, part: Part) -> Vec<Event>;

    /// What a stream ends with.
    fn end(&mut self, usage: Usage) -> Vec<Event>;

    /// What it ends with instead when it fails.
    fn failed(&mut self, error: &ApiError) -> Vec<Event>;
}

/// An event without a name.
pub(super) fn data(value: &Value) -> Event {
    Event::default().data(value.to_string())
}

/// An event of the name that its `type` is.
pub(super) fn named(value: &Value) -> Event {
    Event::default().event(value["type"].as_str().unwrap_or_default()).data(value.to_string())
}
