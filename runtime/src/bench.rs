//! A load generator for servers that speak OpenAI's protocol: ours, and those that it is compared with.
//!
//! In: a [`Client`] and [`Settings`]. Out: a [`Report`] with one run for each load, down to every request's times.
//! The definitions are those of `vllm bench serve`, except that tokens are counted by the server's usage and not by
//! chunks, of which one may hold several, and that a last chunk without text is no token here: vLLM times it too, which
//! adds one gap near zero to each request.
//! It must not know the engine: it measures what a client sees.
//!
//! ```text
//! Settings → prompts, arrivals ⇒ client ⇒ Answer, Failure → statistics → Report → JSON, plot
//! ```

pub mod arrivals;
pub mod client;
pub mod plot;
pub mod prompts;
mod random;
pub mod report;
pub mod statistics;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::Instant;

pub use arrivals::{Arrivals, Load};
pub use client::{Client, Failure, Question};
use prompts::Prompts;
use report::Sample;
pub use report::{Report, Run};
use statistics::Goals;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// Tokens of a warm-up's answer: enough to have gone through every part of the server.
const WARMUP_TOKENS: u32 = 8;
/// Attempts to find a prompt of exactly the wanted length.
const CALIBRATIONS: usize = 3;
/// Requests of a run whose number and duration nobody states: so many for each stream of a closed loop, and at least
/// the other number.
const ROUNDS: usize = 4;
const LEAST_REQUESTS: usize = 16;

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Loads, one run each.
    pub loads: Vec<Load>,
    /// Tokens of each prompt.
    pub prompt_tokens: u32,
    /// Tokens at the beginning that all prompts share.
    pub prefix_tokens: u32,
    /// Tokens of each answer.
    pub output_tokens: u32,
    /// Requests of each run; without a number, as many as `limit` allows, or else a few for each stream.
    pub requests: Option<usize>,
    /// When a run stops sending.
    pub limit: Option<Duration>,
    /// Whether it then hangs up on those that are under way, instead of waiting for their answers.
    pub cut: bool,
    /// Most requests of an open loop that are under way at a time; those that are due then wait.
    pub most_at_once: Option<usize>,
    /// Requests before each run that do not count.
    pub warmups: usize,
    /// What prompts and arrivals follow from.
    pub seed: u64,
    /// What makes a request a good one.
    pub goals: Goals,
}

/// Runs every load against the server of `client`, one after the other.
///
/// # Errors
/// Where the server does not answer the first request, with which the length of the prompts is found.
pub async fn measure(client: &Client, settings: &Settings) -> Result<Report, Failure> {
    let prompts = calibrated(client, settings).await?;
    let mut runs = Vec::new();
    for (index, load) in settings.loads.iter().enumerate() {
        // Runs have prompts of their own, or each would find those of the one before in the server's cache.
        let prompts = prompts.reseeded(settings.seed.wrapping_add(1 + index as u64));
        runs.push(run(client, settings, &prompts, *load).await);
    }
    Ok(Report::new(client.model(), settings, runs))
}

/// Prompts that the server counts as so many tokens as were asked for, as nearly as words allow.
async fn calibrated(client: &Client, settings: &Settings) -> Result<Prompts, Failure> {
    let (wanted, prefix) = (settings.prompt_tokens, settings.prefix_tokens);
    let mut words = wanted;
    for attempt in 0..CALIBRATIONS {
        let prompts = Prompts { seed: !settings.seed, words, prefix_words: 0 };
        let text = prompts.text(attempt as u64);
        let found = client.ask(&Question { text, output_tokens: 1 }).await?.prompt_tokens;
        if found == wanted {
            break;
        }
        words = (words + wanted).saturating_sub(found).max(1);
        if attempt + 1 == CALIBRATIONS {
            tracing::warn!(wanted, found, "no prompt has exactly the wanted length");
        }
    }
    // What the server adds by itself comes first.
    let prefix_words = (prefix + words).saturating_sub(wanted).min(words);
    Ok(Prompts { seed: settings.seed, words, prefix_words: if prefix == 0 { 0 } else { prefix_words } })
}

async fn run(client: &Client, settings: &Settings, prompts: &Prompts, load: Load) -> Run {
    let at_once = match load {
        Load::Closed { streams } => streams,
        Load::Open { .. } => 1,
    };
    // A warm-up that shared the prefix would put it into the server's cache.
    let warmup = Prompts { prefix_words: 0, ..prompts.reseeded(!prompts.seed) };
    let questions = (0..settings.warmups as u64).map(|index| Question {
        output_tokens: settings.output_tokens.min(WARMUP_TOKENS),
        ..settings.question(&warmup, index)
    });
    stream::iter(questions)
        .for_each_concurrent(at_once, |question| async move {
            // What fails here fails again, and is counted, in the run itself.
            let _ = client.ask(&question).await;
        })
        .await;

    let times = arrivals::times(load, settings.seed);
    let begun = Instant::now();
    let wanted = (0u64..).zip(times).take(settings.most_requests(load)).take_while(|(_, at)| {
        // Open loops know beforehand when they stop; closed ones look at the clock each time.
        settings.limit.is_none_or(|limit| *at < limit && begun.elapsed() < limit)
    });
    let end = settings.limit.filter(|_| settings.cut).map(|limit| begun + limit);
    // A request is made when it is due and there is room for it: an open loop may have any number of them.
    let due = stream::iter(wanted).then(|(index, at)| async move {
        tokio::time::sleep_until(begun + at).await;
        index
    });
    let answers = due.map(|index| async move {
        let (sent, question) = (begun.elapsed(), settings.question(prompts, index));
        let answer = match end {
            Some(end) => client.ask_until(&question, end).await,
            None => client.ask(&question).await,
        };
        (sent, answer)
    });
    let in_flight = match load {
        Load::Closed { streams } => streams,
        Load::Open { .. } => settings.most_at_once.unwrap_or(usize::MAX),
    };
    let mut answers = std::pin::pin!(answers.buffer_unordered(in_flight));
    let mut samples = Vec::new();
    let (mut told, mut kinds) = (Instant::now(), BTreeSet::new());
    while let Some((sent, answer)) = answers.next().await {
        // The first of each kind stands for the others.
        if let Err(failure) = &answer
            && !matches!(failure, Failure::Cut { .. })
            && kinds.insert(failure.kind())
        {
            tracing::warn!(%failure, "a request failed");
        }
        samples.push(Sample { sent, answer });
        if told.elapsed() > TELL_EVERY {
            tracing::info!(%load, answered = samples.len(), seconds = begun.elapsed().as_secs(), "measuring");
            told = Instant::now();
        }
    }
    Run::new(load, begun.elapsed(), &samples, &settings.goals)
}

impl Settings {
    fn question(&self, prompts: &Prompts, index: u64) -> Question {
        Question { text: prompts.text(index), output_tokens: self.output_tokens }
    }

    fn most_requests(&self, load: Load) -> usize {
        match (self.requests, self.limit, load) {
            (Some(requests), ..) => requests,
            (None, Some(_), _) => usize::MAX,
            (None, None, Load::Closed { streams }) => LEAST_REQUESTS.max(ROUNDS * streams),
            (None, None, Load::Open { .. }) => LEAST_REQUESTS,
        }
    }
}

#[cfg(test)]
mod tests;
