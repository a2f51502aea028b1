//! The answers to one prompt as they are generated: events of the engine become text, ends and a count.
//!
//! In: a [`ValidRequest`]. Out: [`Part`]s, each of one of the choices.
//! Streamed and whole answers are made of the same parts, so they cannot differ.

pub(super) mod choice;
mod spoken;

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use super::client::Client;
use super::error::ApiError;
use super::{App, InFlight};
use crate::defaults::Defaults;
use crate::dialect::Call;
use crate::engine::sampler::Sampling;
use crate::engine::sampler::adjust::Adjust;
use crate::engine::{Event, Events, Failure, FinishReason, Job, Place};
use crate::exit::chain;
use crate::metrics::RequestGuard;
use crate::request::{self, Invalid, InvalidKind, Prompt, ValidRequest};
use crate::tokens::{Prompted, Tokens};
use choice::{Choice, Told};
use spoken::guided;

/// What a client is told of what concerns our side alone.
const UNCOMPUTED: &str = "the answer could not be computed";

/// A prompt that the engine works on. Dropping it cancels the work.
pub(super) struct Generation {
    tokens: Arc<Tokens>,
    ends: Arc<BTreeSet<u32>>,
    events: Events,
    choices: Vec<Choice>,
    /// The prompt, where answers begin with it.
    echo: Option<Echo>,
    measure: RequestGuard,
    usage: Usage,
    /// What has not been taken yet.
    ready: VecDeque<(usize, Part)>,
    ended: bool,
    _in_flight: InFlight,
}

/// The text of a prompt, and how probable its tokens were.
struct Echo {
    text: String,
    told: Vec<Told>,
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) prompt: usize,
    /// Of those of the prompt, how many the cache had.
    pub(super) cached: usize,
    pub(super) completion: usize,
}

impl Usage {
    pub(super) const fn add(&mut self, Self { prompt, cached, completion }: Self) {
        self.prompt += prompt;
        self.cached += cached;
        self.completion += completion;
    }
}

/// What comes next of an answer.
#[derive(Debug)]
pub(super) enum Part {
    /// So many others come first.
    Queued(u32),
    /// Text, and how probable its tokens were, if that was asked for.
    Text(String, Vec<Told>),
    /// Reasoning, which comes before text.
    Reasoning(String),
    /// A call of a tool, and how many came before it.
    Call(usize, Call),
    End(End),
    /// All tokens of a prompt and its answers; it comes last.
    Counted(Usage),
    Failed(ApiError),
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) reason: FinishReason,
    /// The stop string that ended it.
    pub(super) stop: Option<String>,
    /// Whether it called tools.
    pub(super) called: bool,
}

/// Whose request it is, and what all its prompts have in common.
pub(super) struct Common<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) client: &'a Client,
    pub(super) request: &'a ValidRequest,
    pub(super) arrived: Instant,
}

impl Generation {
    /// Encodes a prompt and hands it to the engine.
    pub(super) async fn start(common: &Common<'_>, place: Place, prompt: Prompt) -> Result<Self, ApiError> {
        let Common { app, client, request, arrived } = common;
        let in_flight = InFlight::new(app);
        let serving = app.serving()?;
        let ValidRequest { max_tokens, sampling, stop, priority, cache_salt, echo, n, logprobs, .. } =
            request;
        let prompt_param = prompt.param();
        let echoed = match &prompt {
            Prompt::Text(text) if *echo => Some(text.clone()),
            Prompt::Tokens(ids) if *echo => Some(serving.tokens.decode(ids)),
            _ => None,
        };
        let chat = matches!(prompt, Prompt::Chat(_));
        let Prompted { tokens: prompt, end } = encode(app, prompt, prompt_param, true).await?;
        let Some(first) = prompt.first() else {
            return Err(Invalid::new(InvalidKind::Value, prompt_param, "the prompt has no tokens").into());
        };
        let first = logprobs.map(|_| Told::unknown(&serving.tokens, *first));
        let echo = echoed.map(|text| Echo { text, told: first.into_iter().collect() });
        let usage = Usage { prompt: prompt.len(), ..Usage::default() };
        let ends = ends(&serving.tokens, sampling);
        let (constraint, spoken) = guided(&serving.guides, chat.then_some(&*end), &request.wishes).await?;
        let job = Job {
            n: *n,
            max_tokens: room(prompt_param, prompt.len(), *max_tokens, serving.engine.context())?,
            ends: ends.clone(),
            min_tokens: sampling.min_tokens,
            sampling: draws(sampling, &serving.defaults),
            class: client.class(*priority, cache_salt),
            constraint,
            logprobs: *logprobs,
            prompt_logprobs: logprobs.filter(|_| echo.is_some()),
            deadline: app.longest.map(|longest| *arrived + longest),
            embed: None,
            prompt,
        };
        let events = serving.engine.submit(place, job)?;
        Ok(Self {
            tokens: serving.tokens.clone(),
            ends,
            events,
            choices: (0..*n).map(|_| Choice::new(stop.clone(), spoken.clone())).collect(),
            echo,
            measure: RequestGuard::new(app.metrics.clone(), *arrived, usage.prompt, *n),
            usage,
            ready: VecDeque::new(),
            ended: false,
            _in_flight: in_flight,
        })
    }

    /// Tokens of the prompt.
    pub(super) const fn prompt_tokens(&self) -> usize {
        self.usage.prompt
    }

    /// The next part, and the choice that it is of; `None` after the end.
    pub(super) async fn next(&mut self) -> Option<(usize, Part)> {
        loop {
            if let Some(part) = self.ready.pop_front() {
                return Some(part);
            }
            if self.ended {
                return None;
            }
            match self.events.recv().await {
                Some(Event::Queued { ahead }) => return Some((0, Part::Queued(ahead))),
                Some(Event::Admitted { cached }) => {
                    self.measure.admitted(cached);
                    self.usage.cached = cached as usize;
                }
                Some(Event::Prompt(logprobs)) => {
                    if let Some(echo) = &mut self.echo {
                        echo.told.push(Told::new(&self.tokens, &logprobs));
                    }
                }
                // Of a request that wants one.
                Some(Event::Embedded(_)) => {}
                Some(Event::Token { choice, token, logprobs }) => {
                    let told = logprobs.map(|logprobs| Told::new(&self.tokens, &logprobs));
                    self.token(choice, token, told);
                }
                Some(Event::Finished { reason: FinishReason::Deadline, .. }) => {
                    self.measure.late();
                    self.failed(ApiError::too_long());
                }
                Some(Event::Finished { choice, reason }) => self.finished(choice, reason),
                Some(Event::Failed(failure)) => {
                    self.measure.failed();
                    self.failed(ApiError::internal(&told(&failure)));
                }
                None => {
                    self.measure.failed();
                    self.failed(ApiError::internal(UNCOMPUTED));
                }
            }
        }
    }

    fn token(&mut self, number: u16, token: u32, told: Option<Told>) {
        self.measure.token(number, self.events.at());
        self.usage.completion += 1;
        self.begin();
        let Some(choice) = self.choices.get_mut(usize::from(number)).filter(|choice| !choice.ended) else {
            return;
        };
        if self.ends.contains(&token) {
            return;
        }
        let (parts, stop) = choice.push(&self.tokens, token, told);
        let called = choice.called();
        self.ready.extend(parts.into_iter().map(|part| (usize::from(number), part)));
        if stop.is_some() {
            self.events.cancel(number);
            self.end(number, End { reason: FinishReason::Stop, stop, called });
        }
    }

    fn finished(&mut self, number: u16, reason: FinishReason) {
        self.begin();
        let Some(choice) = self.choices.get_mut(usize::from(number)).filter(|choice| !choice.ended) else {
            return;
        };
        let (parts, stop) = choice.finish(&self.tokens, reason == FinishReason::Stop);
        let called = choice.called();
        self.ready.extend(parts.into_iter().map(|part| (usize::from(number), part)));
        let reason = if stop.is_some() { FinishReason::Stop } else { reason };
        self.end(number, End { reason, stop, called });
    }

    /// What the answers begin with, once all of the prompt has been read.
    fn begin(&mut self) {
        let Some(Echo { text, told }) = self.echo.take() else { return };
        for index in 0..self.choices.len() {
            self.ready.push_back((index, Part::Text(text.clone(), told.clone())));
        }
    }

    fn end(&mut self, number: u16, end: End) {
        let index = usize::from(number);
        self.choices[index].ended = true;
        self.measure.finished(end.reason, self.events.at());
        self.ready.push_back((index, Part::End(end)));
        if self.choices.iter().all(|choice| choice.ended) {
            self.events.close();
            self.ended = true;
            self.ready.push_back((index, Part::Counted(self.usage)));
        }
    }

    fn failed(&mut self, error: ApiError) {
        // The engine notices that nobody listens any more, and stops as well.
        self.events.close();
        self.ended = true;
        self.ready.push_back((0, Part::Failed(error)));
    }
}

/// What of a failure the client is told: not what concerns our side alone, which the log has.
pub(super) fn told(failure: &Failure) -> String {
    match failure {
        Failure::Step(_) => UNCOMPUTED.to_owned(),
        Failure::NoRoom | Failure::Corrupted(_) | Failure::Constraint(_) => failure.to_string(),
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
fn draws(asked: &request::Sampling, model: &Defaults) -> Sampling {
    Sampling {
        temperature: asked.temperature.or(model.temperature).unwrap_or(1.0),
        top_p: asked.top_p.or(model.top_p).unwrap_or(1.0),
        top_k: asked.top_k.or(model.top_k).unwrap_or(0),
        min_p: asked.min_p.or(model.min_p).unwrap_or(0.0),
        seed: asked.seed.unwrap_or_else(random),
        adjust: Adjust {
            repetition: asked.repetition_penalty.or(model.repetition_penalty).unwrap_or(1.0),
            presence: asked.presence_penalty,
            frequency: asked.frequency_penalty,
            bias: asked.logit_bias.clone(),
        },
    }
}

/// The tokens of a prompt. Cutting a long text takes a while, in which the one thread of the listeners must go on; and
/// few do so at once, since it is the engine that should compute. `param`: the field that it came in. `special`: with
/// what goes before plain text.
pub(super) async fn encode(
    app: &App,
    prompt: Prompt,
    param: &str,
    special: bool,
) -> Result<Prompted, ApiError> {
    let serving = app.serving()?;
    let (guides, context) = (serving.guides.clone(), serving.engine.context());
    let tokens = serving.tokens.clone();
    let plain = |tokens| Prompted { tokens, end: String::new() };
    if prompt.bytes() > tokens.most_bytes(context) {
        let message = format!(
            "{param} has {} bytes, which are more than the context of {context} tokens can be",
            prompt.bytes()
        );
        return Err(Invalid::new(InvalidKind::ContextLength, param, message).into());
    }
    if let Prompt::Tokens(ids) = prompt {
        known(&tokens, param, &ids)?;
        return Ok(plain(ids));
    }
    let _turn = app.encoders.acquire().await.map_err(|_| ApiError::internal("the server is ending"))?;
    let encoded = tokio::task::spawn_blocking(move || match prompt {
        Prompt::Chat(chat) => tokens.encode_chat(&guides.taught(chat)),
        Prompt::Text(text) if special => tokens.encode_text(&text).map(plain),
        Prompt::Text(text) => tokens.encode_bare(&text).map(plain),
        Prompt::Tokens(ids) => Ok(plain(ids)),
    });
    let encoded = encoded.await.map_err(|_| ApiError::internal("the prompt could not be encoded"))?;
    Ok(encoded.map_err(|error| Invalid::new(InvalidKind::Value, param, chain(&error)))?)
}

/// Only ids that the model has may reach it.
pub(super) fn known(tokens: &Tokens, param: &str, ids: &[u32]) -> Result<(), Invalid> {
    match ids.iter().find(|id| **id >= tokens.vocab()) {
        None => Ok(()),
        Some(id) => {
            let message = format!("{param} has the token {id}, but the model's are below {}", tokens.vocab());
            Err(Invalid::new(InvalidKind::Value, param, message))
        }
    }
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
