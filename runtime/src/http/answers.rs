//! The answers of one request, several where it has several prompts or choices: as they come, or when they are complete.
//!
//! In: a [`ValidRequest`]. Out: parts with the number of the answer that they belong to, and a count of all tokens.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll};

use super::App;
use super::client::Client;
use super::error::ApiError;
use super::generation::choice::Told;
use super::generation::{Common, End, Generation, Part, Usage};
use crate::dialect::Call;
use crate::engine::Place;
use crate::request::ValidRequest;

/// All answers of a request. Dropping it cancels what is left of them.
pub(super) struct Answers {
    parts: SelectAll<BoxStream<'static, (usize, Part)>>,
    n: usize,
    prompt_tokens: usize,
    usage: Usage,
}

/// An answer that is complete.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) reasoning: String,
    pub(super) calls: Vec<Call>,
    pub(super) text: String,
    /// How probable its tokens were, if that was asked for.
    pub(super) told: Vec<Told>,
    pub(super) end: Option<End>,
}

impl Answers {
    /// Starts all of them, or none.
    pub(super) async fn start(
        app: &Arc<App>,
        place: Place,
        client: &Client,
        mut request: ValidRequest,
    ) -> Result<Self, ApiError> {
        let prompts = std::mem::take(&mut request.prompts);
        let engine = &app.serving()?.engine;
        let more =
            prompts.iter().skip(1).map(|_| engine.reserve(client.tenant())).collect::<Result<Vec<_>, _>>()?;
        let common = Common { app, client, request: &request, arrived: Instant::now() };
        let choices = usize::from(request.n);
        let n = prompts.len() * choices;
        let (mut parts, mut prompt_tokens) = (SelectAll::new(), 0);
        for (index, (place, prompt)) in std::iter::once(place).chain(more).zip(prompts).enumerate() {
            let generation = Generation::start(&common, place, prompt).await?;
            prompt_tokens += generation.prompt_tokens();
            let stream = stream::unfold(generation, move |mut generation| async move {
                let (choice, part) = generation.next().await?;
                Some(((index * choices + choice, part), generation))
            });
            parts.push(stream.boxed());
        }
        Ok(Self { parts, n, prompt_tokens, usage: Usage::default() })
    }

    /// How many there are.
    pub(super) const fn n(&self) -> usize {
        self.n
    }

    /// Tokens of all prompts.
    pub(super) const fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Tokens so far, of the answers that are complete.
    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    /// The next part of any of them; `None` after the end of all, or after a failure.
    pub(super) async fn next(&mut self) -> Option<(usize, Part)> {
        loop {
            match self.parts.next().await? {
                (_, Part::Counted(usage)) => self.usage.add(usage),
                (index, Part::Failed(error)) => {
                    self.parts.clear();
                    return Some((index, Part::Failed(error)));
                }
                other => return Some(other),
            }
        }
    }

    /// Waits for all of them.
    pub(super) async fn complete(mut self) -> Result<(Vec<Answer>, Usage), ApiError> {
        let mut answers = vec![Answer::default(); self.n];
        while let Some((index, part)) = self.next().await {
            match part {
                Part::Text(text, told) => {
                    answers[index].text.push_str(&text);
                    answers[index].told.extend(told);
                }
                Part::Reasoning(text) => answers[index].reasoning.push_str(&text),
                Part::Call(_, call) => answers[index].calls.push(call),
                Part::End(end) => answers[index].end = Some(end),
                Part::Queued(_) | Part::Counted(_) => {}
                Part::Failed(error) => return Err(error),
            }
        }
        Ok((answers, self.usage))
    }
}
