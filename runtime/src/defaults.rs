//! How a model's authors want tokens chosen where a client says nothing.
//!
//! In: a checkpoint. Out: [`Defaults`]. Sources: `generation_config.json` beside safetensors, as `transformers` reads
//! it; `general.sampling.*` of GGUF, as llama.cpp's `common/common.cpp` reads it.

use contract::header::gguf::{Metadata, Value};
use serde_json::Value as Json;

use crate::checkpoint::{Checkpoint, CheckpointError};

/// Where a value is not a number within its bounds, it is as if it were not there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Defaults {
    /// What logits are divided by.
    pub temperature: Option<f32>,
    /// The share of probability that is chosen from.
    pub top_p: Option<f32>,
    /// How many tokens are chosen from.
    pub top_k: Option<u32>,
    /// The least probability, as a share of the largest.
    pub min_p: Option<f32>,
    /// What logits of seen tokens are divided by.
    pub repetition_penalty: Option<f32>,
}

impl Defaults {
    /// Those of a checkpoint.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        if checkpoint.config.is_none() {
            return Ok(Self::from_metadata(&checkpoint.header.metadata));
        }
        let json = checkpoint.companion_json("generation_config.json")?.unwrap_or_default();
        Ok(Self::from_json(&json))
    }

    fn from_json(json: &Json) -> Self {
        // A model that is not to be sampled from takes the likeliest.
        let greedy = json["do_sample"] == false;
        Self {
            temperature: if greedy { Some(0.0) } else { within(json["temperature"].as_f64(), 0.0, 2.0) },
            ..Self::of(
                |name| json[name].as_f64(),
                ["temperature", "top_p", "top_k", "min_p", "repetition_penalty"],
            )
        }
    }

    fn from_metadata(metadata: &Metadata) -> Self {
        let number = |name: &str| metadata.get(&format!("general.sampling.{name}")).and_then(Value::as_f64);
        Self::of(number, ["temp", "top_p", "top_k", "min_p", "penalty_repeat"])
    }

    fn of(number: impl Fn(&str) -> Option<f64>, names: [&str; 5]) -> Self {
        let [temperature, top_p, top_k, min_p, penalty] = names.map(number);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is checked to be in bounds"
        )]
        let top_k = top_k.filter(|k| (0.0..=1e6).contains(k)).map(|k| k as u32);
        Self {
            temperature: within(temperature, 0.0, 2.0),
            top_p: within(top_p, 0.0, 1.0),
            top_k,
            min_p: within(min_p, 0.0, 1.0),
            repetition_penalty: within(penalty, 0.01, 10.0),
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "sampling works in single precision")]
fn within(number: Option<f64>, least: f64, most: f64) -> Option<f32> {
    number.filter(|n| (least..=most).contains(n)).map(|n| n as f32)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_kinds_of_checkpoints_say_it_in_their_way() {
        let json =
            json!({ "temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 99, "min_p": "x" });
        let expected =
            Defaults { temperature: Some(0.6), top_p: Some(0.95), top_k: Some(20), ..Defaults::default() };
        assert_eq!(Defaults::from_json(&json), expected);
        assert_eq!(Defaults::from_json(&json!({ "do_sample": false })).temperature, Some(0.0));
        let metadata =
            [("temp", Value::Float(0.6)), ("top_p", Value::Float(0.95)), ("top_k", Value::Int(20))];
        let metadata = metadata.map(|(name, value)| (format!("general.sampling.{name}"), value)).into();
        assert_eq!(Defaults::from_metadata(&metadata), expected);
        assert_eq!(Defaults::from_json(&Json::Null), Defaults::default());
    }
}
