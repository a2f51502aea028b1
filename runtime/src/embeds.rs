//! What a checkpoint says of the vectors that it makes of texts, and their last steps: shorter, and of length one.
//!
//! In: a checkpoint; later a pooled state. Out: which states are pooled, how wide a vector may be, the vector.
//! Sources: `1_Pooling/config.json` as `sentence-transformers` writes it (`models/Pooling.py`); `pooling_type` of GGUF
//! (`llama.h`); `matryoshka_dimensions` and `is_matryoshka` of `config.json`, as vLLM reads them.

use contract::header::gguf::{Metadata, Value};
use serde_json::Value as Json;

use crate::checkpoint::{Checkpoint, CheckpointError, POOLING_FILE};
use crate::engine::pool::Pooling;

/// How a checkpoint makes vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embeds {
    /// Which states make them.
    pub pooling: Pooling,
    /// Numbers of one.
    pub width: u32,
    /// Whether their beginnings are vectors too.
    pub shorter: Shorter,
}

/// Which beginnings of a vector mean what all of it means (Kusupati et al. 2022).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shorter {
    /// None.
    Never,
    /// All.
    Any,
    /// Those of so many numbers.
    Of(Vec<u32>),
}

/// Why a checkpoint's vectors cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EmbedsError {
    /// A file that cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Another pooling.
    #[error("the pooling {found} is not supported; supported are: the last token, the first token, the mean")]
    Pooling {
        /// What the checkpoint asks for.
        found: String,
    },
}

impl Embeds {
    /// What a checkpoint says; where it says nothing, it is `usual`.
    pub fn load(checkpoint: &Checkpoint, usual: Pooling) -> Result<Self, EmbedsError> {
        let width = checkpoint.geometry.hidden;
        let Some(config) = &checkpoint.config else {
            let family = checkpoint.geometry.family.name();
            let pooling = from_metadata(&checkpoint.header.metadata, family)?.unwrap_or(usual);
            return Ok(Self { pooling, width, shorter: Shorter::Never });
        };
        let asked = checkpoint.companion_json(POOLING_FILE)?;
        let pooling = asked.map(|json| from_json(&json)).transpose()?.unwrap_or(usual);
        Ok(Self { pooling, width, shorter: Shorter::of(config, width) })
    }

    /// How many numbers a vector gets of which a client wants so many; or what it may want.
    pub fn cut_to(&self, asked: u32) -> Result<usize, String> {
        let Self { width, shorter, .. } = self;
        let allowed = match shorter {
            _ if asked == *width => true,
            Shorter::Never => false,
            Shorter::Any => (1..=*width).contains(&asked),
            Shorter::Of(widths) => widths.contains(&asked),
        };
        match shorter {
            _ if allowed => Ok(asked as usize),
            Shorter::Never => Err(format!("{width}: this model's vectors mean nothing when they are cut")),
            Shorter::Any => Err(format!("a whole number from 1 to {width}")),
            Shorter::Of(widths) => Err(format!("{width} or one of {widths:?}")),
        }
    }
}

impl Shorter {
    fn of(config: &Json, width: u32) -> Self {
        let widths = config["matryoshka_dimensions"].as_array().map(|list| {
            let widths = list.iter().filter_map(|n| n.as_u64().and_then(|n| u32::try_from(n).ok()));
            widths.filter(|n| (1..=width).contains(n)).collect::<Vec<_>>()
        });
        match widths {
            Some(widths) if !widths.is_empty() => Self::Of(widths),
            _ if config["is_matryoshka"] == true => Self::Any,
            _ => Self::Never,
        }
    }
}

/// The first so many numbers of a state, divided by their length; `None` where they have none.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "vectors have single precision")]
pub fn unit(state: &[f32], width: usize) -> Option<Vec<f32>> {
    let numbers = &state[..width.min(state.len())];
    let length = numbers.iter().map(|n| f64::from(*n) * f64::from(*n)).sum::<f64>().sqrt();
    let unit = || numbers.iter().map(|n| (f64::from(*n) / length) as f32).collect();
    (length.is_finite() && length > 0.0).then(unit)
}

fn from_metadata(metadata: &Metadata, family: &str) -> Result<Option<Pooling>, EmbedsError> {
    match metadata.get(&format!("{family}.pooling_type")).and_then(Value::as_u64) {
        // `LLAMA_POOLING_TYPE_NONE` is what converters write of a decoder that nobody has trained to embed.
        None | Some(0) => Ok(None),
        Some(1) => Ok(Some(Pooling::Mean)),
        Some(2) => Ok(Some(Pooling::First)),
        Some(3) => Ok(Some(Pooling::Last)),
        Some(other) => Err(EmbedsError::Pooling { found: format!("{other} of llama.cpp") }),
    }
}

fn from_json(json: &Json) -> Result<Pooling, EmbedsError> {
    let prefix = "pooling_mode_";
    let flags = json.as_object().into_iter().flatten().filter(|(_, value)| **value == true);
    let mut asked: Vec<&str> = flags.filter_map(|(name, _)| name.strip_prefix(prefix)).collect();
    if asked.is_empty() {
        asked.extend(json["pooling_mode"].as_str());
    }
    match asked.as_slice() {
        ["lasttoken"] => Ok(Pooling::Last),
        ["cls_token" | "cls"] => Ok(Pooling::First),
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        other => Err(EmbedsError::Pooling { found: format!("{other:?}") }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_sentence_transformers_wrote_is_honoured_and_nothing_is_guessed() {
        let mean = json!({ "word_embedding_dimension": 8, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true });
        assert_eq!(from_json(&mean).unwrap(), Pooling::Mean);
        assert_eq!(from_json(&json!({ "pooling_mode_cls_token": true })).unwrap(), Pooling::First);
        assert_eq!(from_json(&json!({ "pooling_mode": "lasttoken" })).unwrap(), Pooling::Last);
        let both = json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true });
        for other in [both, json!({ "pooling_mode_max_tokens": true }), json!({})] {
            assert!(from_json(&other).is_err(), "{other}");
        }
        let metadata = |n| Metadata::from([("llama.pooling_type".to_owned(), Value::Int(n))]);
        assert_eq!(from_metadata(&metadata(1), "llama").unwrap(), Some(Pooling::Mean));
        assert_eq!(from_metadata(&metadata(0), "llama").unwrap(), None);
        assert!(from_metadata(&metadata(4), "llama").is_err(), "ranking is no pooling");
    }

    #[test]
    fn only_vectors_that_were_trained_for_it_are_cut() {
        let embeds =
            |config: Json| Embeds { pooling: Pooling::Last, width: 8, shorter: Shorter::of(&config, 8) };
        let plain = embeds(json!({}));
        assert_eq!((plain.cut_to(8), plain.cut_to(4).is_err()), (Ok(8), true));
        let any = embeds(json!({ "is_matryoshka": true }));
        assert_eq!((any.cut_to(1), any.cut_to(0).is_err(), any.cut_to(9).is_err()), (Ok(1), true, true));
        let some = embeds(json!({ "matryoshka_dimensions": [2, 4, 99] }));
        assert_eq!((some.cut_to(4), some.cut_to(8), some.cut_to(3).is_err()), (Ok(4), Ok(8), true));
    }

    #[test]
    fn vectors_have_length_one() {
        assert_eq!(unit(&[3.0, 4.0, 12.0], 2), Some(vec![0.6, 0.8]));
        assert_eq!(
            (unit(&[0.0, 0.0], 2), unit(&[f32::NAN], 1), unit(&[f32::INFINITY], 1)),
            (None, None, None)
        );
    }
}
