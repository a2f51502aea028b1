//! One answer as it is generated: events of the engine become text, an end and a count.
//!
//! In: a [`ValidRequest`]. Out: [`Part`]s.
//! Streamed and whole answers are made of the same parts, so they cannot differ.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use super::client::Client;
use super::error::ApiError;
use super::{App, InFlight};
use crate::engine::sampler::Sampling;
use crate::engine::sampler::adjust::Adjust;
use crate::engine::{Event, Events, FinishReason, Job, Place};
use crate::metrics::RequestGuard;
use crate::request::{self, Invalid, InvalidKind, Prompt, ValidRequest};
use crate::tokens::Tokens;
use crate::tokens::stream::{Piece, TextStream};

/// A request that the engine works on. Dropping it cancels the request.
pub(super) struct Generation {
    tokens: Arc<Tokens>,
    ends: Arc<BTreeSet<u32>>,
    events: Events,
    text: TextStream,
    measure: RequestGuard,
    usage: Usage,
    state: State,
    _in_flight: InFlight,
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) prompt: usize,
    /// Of those of the prompt, how many the cache had.
    pub(super) cached: usize,
    pub(super) completion: usize,
}

/// What comes next of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    End(FinishReason),
    Failed,
}

enum State {
    Running,
    Ending(FinishReason),
    Ended,
}

impl Generation {
    /// Encodes the prompt and hands the request to the engine.
    pub(super) async fn start(
        app: &Arc<App>,
        place: Place,
        client: &Client,
        request: ValidRequest,
    ) -> Result<Self, ApiError> {
        let arrived = Instant::now();
        let in_flight = InFlight::new(app);
        let serving = app.serving()?;
        let ValidRequest { prompt, max_tokens, sampling, stop, priority, cache_salt, .. } = request;
        let context = serving.engine.context();
        let prompt_param = prompt.param();
        if prompt.bytes() > serving.tokens.most_bytes(context) {
            let message = format!("the prompt of {} bytes is longer than the context", prompt.bytes());
            return Err(Invalid::new(InvalidKind::ContextLength, prompt_param, message).into());
        }
        let prompt = encode(serving.tokens.clone(), prompt).await?;
        let max_tokens = room(prompt_param, prompt.len(), max_tokens, context)?;
        let (ends, min_tokens) = (ends(&serving.tokens, &sampling), sampling.min_tokens);
        let usage = Usage { prompt: prompt.len(), ..Usage::default() };
        let class = client.class(priority, &cache_salt);
        let sampling = draws(sampling);
        let job = Job { ends: ends.clone(), min_tokens, sampling, class, ..Job::new(prompt, max_tokens) };
        let events = serving.engine.submit(place, job)?;
        Ok(Self {
            tokens: serving.tokens.clone(),
            ends,
            events,
            text: TextStream::new(stop),
            measure: RequestGuard::new(app.metrics.clone(), arrived, usage.prompt, 1),
            usage,
            state: State::Running,
            _in_flight: in_flight,
        })
    }

    /// Tokens so far.
    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    /// The next part; `None` after the end.
    pub(super) async fn next(&mut self) -> Option<Part> {
        loop {
            match self.state {
                State::Running => {}
                State::Ending(reason) => {
                    self.state = State::Ended;
                    return Some(Part::End(reason));
                }
                State::Ended => return None,
            }
            let piece = match self.events.recv().await {
                Some(Event::Admitted { cached }) => {
                    self.measure.admitted(cached);
                    self.usage.cached = cached as usize;
                    continue;
                }
                Some(Event::Queued { .. } | Event::Prompt(_)) => continue,
                Some(Event::Token { choice, token, .. }) => self.token(choice, token),
                Some(Event::Finished { reason, .. }) => {
                    let piece = self.text.finish(&self.tokens);
                    self.end(if piece.stopped { FinishReason::Stop } else { reason });
                    piece
                }
                Some(Event::Failed(_)) | None => {
                    self.measure.failed();
                    self.state = State::Ended;
                    return Some(Part::Failed);
                }
            };
            if !piece.text.is_empty() {
                return Some(Part::Text(piece.text));
            }
        }
    }

    fn token(&mut self, choice: u16, token: u32) -> Piece {
        self.measure.token(choice);
        self.usage.completion += 1;
        if self.ends.contains(&token) {
            return Piece::default();
        }
        let piece = self.text.push(&self.tokens, token);
        if piece.stopped {
            // The engine notices that nobody listens any more, and stops as well.
            self.events.close();
            self.end(FinishReason::Stop);
        }
        piece
    }

    fn end(&mut self, reason: FinishReason) {
        self.measure.finished(reason);
        self.state = State::Ending(reason);
    }
}

/// Tokens that end the answer.
fn ends(tokens: &Tokens, sampling: &request::Sampling) -> Arc<BTreeSet<u32>> {
    let asked = &sampling.stop_token_ids;
    match (sampling.ignore_eos, asked.is_empty()) {
        (false, true) => tokens.ends(),
        (false, false) => Arc::new(tokens.ends().union(asked).copied().collect()),
        (true, _) => Arc::new(asked.clone()),
    }
}

/// What of a request's wishes the sampler has to know.
fn draws(asked: request::Sampling) -> Sampling {
    Sampling {
        temperature: asked.temperature,
        top_p: asked.top_p,
        top_k: asked.top_k,
        min_p: asked.min_p,
        seed: asked.seed.unwrap_or_else(random),
        adjust: Adjust {
            repetition: asked.repetition_penalty,
            presence: asked.presence_penalty,
            frequency: asked.frequency_penalty,
            bias: asked.logit_bias,
        },
    }
}

/// Encoding a long text takes a while, in which the one thread of the listeners must go on.
async fn encode(tokens: Arc<Tokens>, prompt: Prompt) -> Result<Vec<u32>, ApiError> {
    let encoded = tokio::task::spawn_blocking(move || match prompt {
        Prompt::Chat(messages) => tokens.encode_chat(&messages),
        Prompt::Text(text) => tokens.encode_text(&text),
    });
    let encoded = encoded.await.map_err(|_| ApiError::internal("the prompt could not be encoded"))??;
    if encoded.is_empty() {
        return Err(Invalid::new(InvalidKind::Value, "prompt", "the prompt has no tokens").into());
    }
    Ok(encoded)
}

/// Tokens that the answer may have.
fn room(
    prompt_param: &'static str,
    n_prompt: usize,
    asked: Option<u32>,
    context: u32,
) -> Result<u32, Invalid> {
    let too_long = |param, message| Err(Invalid::new(InvalidKind::ContextLength, param, message));
    let rest = u32::try_from(n_prompt).ok().and_then(|n| context.checked_sub(n)).filter(|rest| *rest > 0);
    match (rest, asked) {
        (None, _) => {
            let message = format!("the prompt has {n_prompt} tokens, and the context only {context}");
            too_long(prompt_param, message)
        }
        (Some(rest), Some(asked)) if asked > rest => {
            let message = format!(
                "the prompt has {n_prompt} tokens, which leaves {rest} of the context of {context}, \
                 but {asked} were asked for"
            );
            too_long("max_tokens", message)
        }
        (Some(rest), asked) => Ok(asked.unwrap_or(rest)),
    }
}

/// A number that nobody has seen before: the standard library seeds its hash maps from the system.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
