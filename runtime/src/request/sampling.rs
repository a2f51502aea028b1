//! The fields that say how tokens are chosen and when there are enough: OpenAI's, and the common ones of vLLM's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::fields::Fields;
use super::{Invalid, InvalidKind};

/// Most entries of `logit_bias`, as OpenAI's, and of `stop_token_ids`.
const MAX_BIASES: usize = 300;
const MAX_STOP_TOKENS: usize = 64;

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest. What is absent here and below is as the model's authors want it.
    pub temperature: Option<f32>,
    /// Share of probability that is chosen from, likeliest first.
    pub top_p: Option<f32>,
    /// How many of the likeliest are chosen from; 0: all.
    pub top_k: Option<u32>,
    /// Least probability, as a share of the likeliest token's.
    pub min_p: Option<f32>,
    /// Equal seeds give equal answers; absent: whatever the server likes.
    pub seed: Option<u64>,
    /// What the logits of tokens of prompt and answer are divided by.
    pub repetition_penalty: Option<f32>,
    /// What is taken off the logits of tokens of the answer.
    pub presence_penalty: f32,
    /// What is taken off for each time that the answer has the token.
    pub frequency_penalty: f32,
    /// What is added to logits, by token.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Tokens that end the answer, beside the model's own.
    pub stop_token_ids: BTreeSet<u32>,
    /// Whether the model's own do not.
    pub ignore_eos: bool,
    /// Tokens of the answer before which it does not end by itself.
    pub min_tokens: u32,
}

/// Takes all of them.
pub(super) fn sampling(fields: &mut Fields, max_tokens: Option<u32>) -> Result<Sampling, Invalid> {
    let min_tokens = fields.amount("min_tokens")?.unwrap_or(0);
    if max_tokens.is_some_and(|max| min_tokens > max) {
        let message = "min_tokens must not be more than max_tokens";
        return Err(Invalid::new(InvalidKind::Value, "min_tokens", message));
    }
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0, 2.0)?,
        top_p: fields.number("top_p", 0.0, 1.0)?,
        top_k: top_k(fields)?,
        min_p: fields.number("min_p", 0.0, 1.0)?,
        seed: fields.integer("seed")?,
        repetition_penalty: fields.number("repetition_penalty", 0.01, 10.0)?,
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        logit_bias: logit_bias(fields)?,
        stop_token_ids: stop_token_ids(fields)?,
        ignore_eos: fields.flag("ignore_eos")?.unwrap_or(false),
        min_tokens,
    })
}

/// vLLM's -1 means the same as 0.
fn top_k(fields: &mut Fields) -> Result<Option<u32>, Invalid> {
    let k = fields.rank("top_k")?.map(|k| u32::try_from(if k == -1 { 0 } else { k }));
    k.transpose().map_err(|_| {
        Invalid::new(InvalidKind::Value, "top_k", "top_k must be a number of tokens, or 0 or -1 for all")
    })
}

fn logit_bias(fields: &mut Fields) -> Result<BTreeMap<u32, f32>, Invalid> {
    let wrong = || {
        let message = format!(
            "logit_bias must be an object of at most {MAX_BIASES} token ids and numbers from -100 to 100"
        );
        Invalid::new(InvalidKind::Value, "logit_bias", message)
    };
    match fields.take("logit_bias") {
        None => Ok(BTreeMap::new()),
        Some(Json::Object(map)) if map.len() <= MAX_BIASES => {
            let entry = |(id, bias): (&String, &Json)| Some((id.parse().ok()?, bias_of(bias)?));
            map.iter().map(entry).collect::<Option<_>>().ok_or_else(wrong)
        }
        Some(_) => Err(wrong()),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "logits are of single precision")]
fn bias_of(value: &Json) -> Option<f32> {
    value.as_f64().filter(|bias| (-100.0..=100.0).contains(bias)).map(|bias| bias as f32)
}

fn stop_token_ids(fields: &mut Fields) -> Result<BTreeSet<u32>, Invalid> {
    let ids = match fields.take("stop_token_ids") {
        None => return Ok(BTreeSet::new()),
        Some(Json::Array(list)) if list.len() <= MAX_STOP_TOKENS => {
            list.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
        }
        Some(_) => None,
    };
    ids.ok_or_else(|| {
        let message = format!("stop_token_ids must be a list of at most {MAX_STOP_TOKENS} token ids");
        Invalid::new(InvalidKind::Value, "stop_token_ids", message)
    })
}
