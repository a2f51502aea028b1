//! What a measurement amounts to, as JSON has it. Names are those of `vllm bench serve` where it has them. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::{Answer, Failure};
use super::statistics::{Goals, Summary, Times};
use super::{Load, Settings};

/// A request and what came of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was sent, from the start of the run.
    pub sent: Duration,
    /// What came of it.
    pub answer: Result<Answer, Failure>,
}

/// All runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The model, as the server calls it.
    pub model: String,
    /// Tokens that prompts were to have.
    pub prompt_tokens: u32,
    /// Tokens that they share.
    pub prefix_tokens: u32,
    /// Tokens that answers were to have.
    pub output_tokens: u32,
    /// What prompts and arrivals follow from.
    pub seed: u64,
    /// One for each load.
    pub runs: Vec<Run>,
}

/// One load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The load.
    pub load: Load,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Requests that were answered.
    pub completed: usize,
    /// Requests that were not.
    pub failed: usize,
    /// Requests that were under way when the run was cut off: of these only the gaps between chunks count, with the
    /// one that was cut short.
    #[serde(default)]
    pub cut: usize,
    /// Those by kind.
    pub errors: BTreeMap<String, usize>,
    /// Tokens of all answered prompts.
    pub prompt_tokens: u64,
    /// Tokens of all answers.
    pub output_tokens: u64,
    /// Answered requests a second.
    pub request_throughput: f64,
    /// Tokens of answers a second.
    pub output_throughput: f64,
    /// Tokens of prompts and answers a second.
    pub total_throughput: f64,
    /// Requests a second that met the goals, if there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goodput: Option<f64>,
    /// How many tokens came at a time: where it is above 1, gaps between chunks are those of several tokens.
    pub tokens_per_chunk: f64,
    /// Time to the first token.
    pub ttft_ms: Option<Summary>,
    /// Mean time of each further token, request by request.
    pub tpot_ms: Option<Summary>,
    /// Gaps between chunks, those of all requests together.
    pub itl_ms: Option<Summary>,
    /// Time to the last token.
    pub e2el_ms: Option<Summary>,
    /// Every answered request, in the order of answering.
    pub samples: Vec<Answered>,
}

/// An answered request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// When it was sent, from the start of the run.
    pub sent_ms: f64,
    /// Time to the first token.
    pub ttft_ms: f64,
    /// Time to the last.
    pub e2el_ms: f64,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Those that the server had in its cache.
    pub cached_tokens: u32,
    /// Tokens of its answer.
    pub output_tokens: u32,
}

impl Report {
    /// Puts runs together.
    #[must_use]
    pub fn new(model: &str, settings: &Settings, runs: Vec<Run>) -> Self {
        Self {
            model: model.to_owned(),
            prompt_tokens: settings.prompt_tokens,
            prefix_tokens: settings.prefix_tokens,
            output_tokens: settings.output_tokens,
            seed: settings.seed,
            runs,
        }
    }
}

impl Run {
    /// Adds up what came of a load's requests, the last of which was answered after `took`.
    #[must_use]
    pub fn new(load: Load, took: Duration, samples: &[Sample], goals: &Goals) -> Self {
        let mut errors = BTreeMap::new();
        let mut answered = Vec::new();
        let mut gaps = Vec::new();
        let (mut n_chunks, mut cut) = (0, 0);
        for Sample { sent, answer } in samples {
            match answer {
                Err(Failure::Cut { chunks, after }) => {
                    gaps.extend(between(chunks));
                    // Its next chunk would have come later still.
                    gaps.extend(chunks.last().map(|last| milliseconds(after.saturating_sub(*last))));
                    cut += 1;
                }
                Err(failure) => *errors.entry(failure.kind()).or_insert(0) += 1,
                Ok(answer) => {
                    answered.push(Answered::new(*sent, answer));
                    gaps.extend(between(&answer.chunks));
                    n_chunks += answer.chunks.len();
                }
            }
        }
        let seconds = took.as_secs_f64();
        let sum = |count: fn(&Answered) -> u32| answered.iter().map(|a| u64::from(count(a))).sum::<u64>();
        let (prompt_tokens, output_tokens) = (sum(|a| a.prompt_tokens), sum(|a| a.output_tokens));
        let good = answered.iter().filter(|a| goals.met(a.times())).count();
        let each =
            |time: fn(&Answered) -> Option<f64>| Summary::of(answered.iter().filter_map(time).collect());
        Self {
            load,
            seconds,
            completed: answered.len(),
            failed: errors.values().sum(),
            cut,
            errors,
            prompt_tokens,
            output_tokens,
            request_throughput: answered.len() as f64 / seconds,
            output_throughput: output_tokens as f64 / seconds,
            total_throughput: (prompt_tokens + output_tokens) as f64 / seconds,
            goodput: goals.any().then_some(good as f64 / seconds),
            tokens_per_chunk: if n_chunks == 0 { 0.0 } else { output_tokens as f64 / n_chunks as f64 },
            ttft_ms: each(|a| Some(a.ttft_ms)),
            tpot_ms: each(|a| a.times().tpot()),
            itl_ms: Summary::of(gaps),
            e2el_ms: each(|a| Some(a.e2el_ms)),
            samples: answered,
        }
    }
}

impl Answered {
    fn new(sent: Duration, answer: &Answer) -> Self {
        let Answer { chunks, prompt_tokens, cached_tokens, output_tokens } = answer;
        let at = |chunk: Option<&Duration>| milliseconds(chunk.copied().unwrap_or_default());
        Self {
            sent_ms: milliseconds(sent),
            ttft_ms: at(chunks.first()),
            e2el_ms: at(chunks.last()),
            prompt_tokens: *prompt_tokens,
            cached_tokens: *cached_tokens,
            output_tokens: *output_tokens,
        }
    }

    const fn times(&self) -> Times {
        Times { ttft: self.ttft_ms, e2el: self.e2el_ms, output_tokens: self.output_tokens }
    }
}

/// Gaps between chunks, in milliseconds.
fn between(chunks: &[Duration]) -> impl Iterator<Item = f64> {
    chunks.windows(2).map(|pair| milliseconds(pair[1] - pair[0]))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(chunks: &[u64], output_tokens: u32) -> Sample {
        let chunks = chunks.iter().map(|at| Duration::from_millis(*at)).collect();
        let answer = Answer { chunks, prompt_tokens: 10, cached_tokens: 0, output_tokens };
        Sample { sent: Duration::ZERO, answer: Ok(answer) }
    }

    #[test]
    fn tokens_are_the_servers_and_gaps_those_of_chunks() {
        let refused = Failure::Status { status: 429, body: String::new() };
        let cut = Failure::Cut {
            chunks: [0, 200].map(Duration::from_millis).to_vec(),
            after: Duration::from_millis(400),
        };
        let samples = [
            // Four tokens in two chunks, then two in two.
            sample(&[100, 400], 4),
            sample(&[200, 300], 2),
            Sample { sent: Duration::ZERO, answer: Err(refused) },
            Sample { sent: Duration::ZERO, answer: Err(cut) },
        ];
        let goals = Goals::parse("ttft:150").unwrap();
        let run = Run::new(Load::Closed { streams: 2 }, Duration::from_secs(2), &samples, &goals);
        assert_eq!((run.completed, run.failed, run.cut, run.errors["status 429"]), (2, 1, 1, 1));
        assert_eq!((run.prompt_tokens, run.output_tokens), (20, 6));
        assert_eq!((run.output_throughput, run.total_throughput, run.goodput), (3.0, 13.0, Some(0.5)));
        assert_eq!((run.tokens_per_chunk, run.ttft_ms.unwrap().mean), (1.5, 150.0));
        assert_eq!((run.tpot_ms.unwrap().mean, run.itl_ms.unwrap().mean), (100.0, 200.0));
        let json = serde_json::to_string(&run).unwrap();
        assert_eq!(serde_json::from_str::<Run>(&json).unwrap(), run);
    }

    #[test]
    fn a_run_without_answers_has_no_times() {
        let load = Load::Closed { streams: 1 };
        let run = Run::new(load, Duration::from_secs(1), &[], &Goals::default());
        assert_eq!((run.ttft_ms, run.itl_ms, run.tokens_per_chunk, run.goodput), (None, None, 0.0, None));
    }
}
