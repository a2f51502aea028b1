//! How probable tokens were, in the shapes of the two endpoints. Pure.

use serde_json::{Map, Value, json};

use super::super::generation::choice::Told;

/// Of chats: a list of tokens.
pub(super) fn chat(told: &[Told]) -> Value {
    let entry = |text: &str, logprob: Option<f32>| json!({ "token": text, "logprob": logprob, "bytes": text.as_bytes() });
    let token = |told: &Told| {
        let mut token = entry(&told.text, told.logprob);
        let top: Vec<_> = told.top.iter().map(|(text, logprob)| entry(text, Some(*logprob))).collect();
        token["top_logprobs"] = json!(top);
        token
    };
    json!({ "content": told.iter().map(token).collect::<Vec<_>>(), "refusal": null })
}

/// Of plain completions: lists for all tokens together; the first of them begins at that character.
pub(super) fn completion(told: &[Told], offset: usize) -> Value {
    let starts = told.iter().scan(offset, |at, told| {
        let start = *at;
        *at += told.text.chars().count();
        Some(start)
    });
    let top = |told: &Told| {
        // The token itself is always among them, as OpenAI has it.
        let own = told.logprob.map(|logprob| (told.text.clone(), logprob));
        let all: Map<_, _> =
            told.top.iter().cloned().chain(own).map(|(text, logprob)| (text, json!(logprob))).collect();
        told.logprob.map(|_| all)
    };
    json!({
        "tokens": told.iter().map(|told| &told.text).collect::<Vec<_>>(),
        "token_logprobs": told.iter().map(|told| told.logprob).collect::<Vec<_>>(),
        "top_logprobs": told.iter().map(top).collect::<Vec<_>>(),
        "text_offset": starts.collect::<Vec<_>>()
    })
}
