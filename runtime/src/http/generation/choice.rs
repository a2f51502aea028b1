//! One of the answers to a prompt: its text on the way, and how probable its tokens were.

use std::sync::Arc;

use super::Part;
use super::spoken::Spoken;
use crate::engine::sampler::logprobs::Logprobs;
use crate::tokens::Tokens;
use crate::tokens::stream::{Piece, TextStream};

/// JSON has no infinity: what cannot be at all is said to be as improbable as this, as vLLM does.
const LEAST: f32 = -9999.0;

/// An answer that has not ended, or has.
pub(in crate::http) struct Choice {
    text: TextStream,
    spoken: Spoken,
    /// Of tokens whose text has not been given out yet.
    held: Vec<Told>,
    pub(super) ended: bool,
}

/// How probable a token was.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::http) struct Told {
    /// Its text, and nothing but it.
    pub(in crate::http) text: String,
    /// Unknown of the first token of all.
    pub(in crate::http) logprob: Option<f32>,
    /// The most likely ones in its place.
    pub(in crate::http) top: Vec<(String, f32)>,
}

impl Told {
    pub(super) fn new(tokens: &Arc<Tokens>, logprobs: &Logprobs) -> Self {
        let text = |token: u32| tokens.decode_all(&[token]);
        Self {
            text: text(logprobs.token),
            logprob: Some(logprobs.logprob.max(LEAST)),
            top: logprobs.top.iter().map(|(token, logprob)| (text(*token), logprob.max(LEAST))).collect(),
        }
    }

    /// Of a token that nothing came before.
    pub(super) fn unknown(tokens: &Arc<Tokens>, token: u32) -> Self {
        Self { text: tokens.decode_all(&[token]), logprob: None, top: Vec::new() }
    }
}

impl Choice {
    pub(super) fn new(stop: Vec<String>, spoken: Spoken) -> Self {
        let text = TextStream::new(stop).keeping(spoken.kept.clone());
        Self { text, spoken, held: Vec::new(), ended: false }
    }

    /// Whether it has called tools.
    pub(super) const fn called(&self) -> bool {
        self.spoken.calls > 0
    }

    /// Adds a token: perhaps it says something, perhaps it ends with a stop string.
    pub(super) fn push(
        &mut self,
        tokens: &Tokens,
        token: u32,
        told: Option<Told>,
    ) -> (Vec<Part>, Option<String>) {
        self.held.extend(told);
        let Piece { text, stopped } = self.text.push(tokens, token);
        let mut parts = self.spoken.push(text);
        if stopped.is_some() {
            parts.extend(self.spoken.finish(true));
        }
        (self.with_told(parts), stopped)
    }

    /// Whatever was held back. `whole`: the model has ended the answer, and was not cut off.
    pub(super) fn finish(&mut self, tokens: &Tokens, whole: bool) -> (Vec<Part>, Option<String>) {
        let Piece { text, stopped } = self.text.finish(tokens);
        let mut parts = self.spoken.push(text);
        parts.extend(self.spoken.finish(whole || stopped.is_some()));
        let mut parts = self.with_told(parts);
        if !self.held.is_empty() {
            parts.push(Part::Text(String::new(), std::mem::take(&mut self.held)));
        }
        (parts, stopped)
    }

    /// The first text is told of with everything that was held.
    fn with_told(&mut self, mut parts: Vec<Part>) -> Vec<Part> {
        let first =
            parts.iter_mut().find_map(|part| if let Part::Text(_, told) = part { Some(told) } else { None });
        if let Some(told) = first {
            *told = std::mem::take(&mut self.held);
        }
        parts
    }
}
