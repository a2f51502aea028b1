//! One of the answers to a prompt: its text on the way, and how probable its tokens were.

use std::sync::Arc;

use super::Part;
use crate::engine::sampler::logprobs::Logprobs;
use crate::tokens::Tokens;
use crate::tokens::stream::{Piece, TextStream};

/// JSON has no infinity: what cannot be at all is said to be as improbable as this, as vLLM does.
const LEAST: f32 = -9999.0;

/// An answer that has not ended, or has.
pub(in crate::http) struct Choice {
    text: TextStream,
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
    pub(super) fn new(stop: Vec<String>) -> Self {
        Self { text: TextStream::new(stop), held: Vec::new(), ended: false }
    }

    /// Adds a token: perhaps there is text, perhaps a stop string.
    pub(super) fn push(
        &mut self,
        tokens: &Tokens,
        token: u32,
        told: Option<Told>,
    ) -> (Option<Part>, Option<String>) {
        self.held.extend(told);
        let piece = self.text.push(tokens, token);
        self.part(piece)
    }

    /// Whatever was held back.
    pub(super) fn finish(&mut self, tokens: &Tokens) -> (Option<Part>, Option<String>) {
        let piece = self.text.finish(tokens);
        let (part, stop) = self.part(piece);
        let rest = (!self.held.is_empty()).then(|| Part::Text(String::new(), std::mem::take(&mut self.held)));
        (part.or(rest), stop)
    }

    fn part(&mut self, Piece { text, stopped }: Piece) -> (Option<Part>, Option<String>) {
        let part = (!text.is_empty()).then(|| Part::Text(text, std::mem::take(&mut self.held)));
        (part, stopped)
    }
}
