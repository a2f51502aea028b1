//! What only the forward pass needs to know: rope and epsilon. Whatever we would compute wrongly is refused.

use contract::header::gguf::{Metadata, Value};
use kernels::RopePairs;
use serde_json::Value as Json;

use super::super::{Description, ModelError};
use super::names::ROPE_FACTORS;
use super::{Architecture, setting};
use crate::model::part::rope::Rope;
use crate::weights::Loader;

/// Rope and norms.
pub(super) struct Settings {
    pub(super) epsilon: f32,
    pub(super) rope: Rope,
    /// Whether the queries and keys of each head are normalised.
    pub(super) head_norms: bool,
}

/// Base of the rope frequencies where a checkpoint does not say.
const DEFAULT_THETA: f64 = 10_000.0;

impl Settings {
    pub(super) fn read(
        architecture: &Architecture,
        description: Description<'_>,
        head_dim: usize,
        loader: &mut Loader<'_>,
    ) -> Result<Self, ModelError> {
        let (epsilon, rope) = match description {
            Description::Gguf(metadata) => gguf(architecture, metadata, head_dim, loader)?,
            Description::Config(config) => config_json(config, head_dim)?,
        };
        let usable = rope.frequencies.iter().all(|frequency| frequency.is_finite() && *frequency > 0.0);
        if !usable {
            return Err(setting("the rope base or its scaling", "out of range", "positive numbers"));
        }
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(setting("the norms' epsilon", &epsilon.to_string(), "positive numbers"));
        }
        Ok(Self { epsilon, rope, head_norms: architecture.head_norms })
    }
}

/// Names: ggml, `docs/gguf.md`, section LLM.
fn gguf(
    architecture: &Architecture,
    metadata: &Metadata,
    head_dim: usize,
    loader: &mut Loader<'_>,
) -> Result<(f32, Rope), ModelError> {
    let key = |name: &str| format!("{}.{name}", architecture.family.name());
    let get = |name: &str| metadata.get(&key(name));
    let number = |name: &str| get(name).and_then(Value::as_f64);
    if let Some(dimensions) = get("rope.dimension_count").and_then(Value::as_u64)
        && dimensions != head_dim as u64
    {
        return Err(setting(&key("rope.dimension_count"), &dimensions.to_string(), "the head size"));
    }
    let theta = number("rope.freq_base").unwrap_or(DEFAULT_THETA);
    let mut rope = Rope::new(architecture.gguf_pairs, head_dim, theta);
    let factor = number("rope.scaling.factor").or_else(|| number("rope.scale_linear"));
    match get("rope.scaling.type").and_then(Value::as_str) {
        None | Some("none") => {}
        Some("linear") => slow_down(&mut rope, factor.unwrap_or(1.0)),
        Some(other) => return Err(setting(&key("rope.scaling.type"), other, "none, linear")),
    }
    if loader.has(ROPE_FACTORS) {
        let factors = loader.vector(ROPE_FACTORS, head_dim / 2)?;
        for (frequency, factor) in rope.frequencies.iter_mut().zip(factors) {
            *frequency /= f64::from(factor);
        }
    }
    let epsilon = number("attention.layer_norm_rms_epsilon");
    let missing = || setting(&key("attention.layer_norm_rms_epsilon"), "missing", "positive numbers");
    Ok((epsilon.ok_or_else(missing)? as f32, rope))
}

/// Names: `transformers`, `models/llama/configuration_llama.py` and those of the other families; since version 5 the
/// rope's are a group of their own.
fn config_json(config: &Json, head_dim: usize) -> Result<(f32, Rope), ModelError> {
    let groups = ["rope_parameters", "rope_scaling"].map(|name| &config[name]);
    let scaling = groups.into_iter().find(|group| group.is_object()).unwrap_or(&Json::Null);
    let settings = [
        ("hidden_act", &config["hidden_act"], "silu"),
        ("partial_rotary_factor", &config["partial_rotary_factor"], "1"),
        ("partial_rotary_factor", &scaling["partial_rotary_factor"], "1"),
        ("use_sliding_window", &config["use_sliding_window"], "false"),
    ];
    for (name, value, supported) in settings {
        let standard = match value {
            Json::Null => true,
            Json::String(text) => text == supported,
            Json::Number(number) => number.as_f64() == supported.parse().ok(),
            Json::Bool(value) => Some(*value) == supported.parse().ok(),
            Json::Array(_) | Json::Object(_) => false,
        };
        if !standard {
            return Err(setting(name, &value.to_string(), supported));
        }
    }
    let theta = scaling["rope_theta"].as_f64().or_else(|| config["rope_theta"].as_f64());
    let mut rope = Rope::new(RopePairs::Halves, head_dim, theta.unwrap_or(DEFAULT_THETA));
    let kind = scaling["rope_type"].as_str().or_else(|| scaling["type"].as_str());
    match kind.unwrap_or("default") {
        "default" => {}
        "linear" => slow_down(&mut rope, scaling["factor"].as_f64().unwrap_or(1.0)),
        "llama3" => llama3(&mut rope, scaling)?,
        other => return Err(setting("rope_scaling", other, "default, linear, llama3")),
    }
    let epsilon = config["rms_norm_eps"].as_f64();
    let epsilon = epsilon.ok_or_else(|| setting("rms_norm_eps", "missing", "positive numbers"))?;
    Ok((epsilon as f32, rope))
}

fn slow_down(rope: &mut Rope, factor: f64) {
    for frequency in &mut rope.frequencies {
        *frequency /= factor;
    }
}

/// Llama 3.1's scaling: long waves are slowed down, short ones stay, those between are blended.
///
/// Reference: `transformers`, `modeling_rope_utils.py`, `_compute_llama3_parameters`.
fn llama3(rope: &mut Rope, scaling: &Json) -> Result<(), ModelError> {
    let number = |name: &str| {
        scaling[name].as_f64().ok_or_else(|| setting(&format!("rope_scaling.{name}"), "missing", "numbers"))
    };
    let (factor, low, high) = (number("factor")?, number("low_freq_factor")?, number("high_freq_factor")?);
    let original = number("original_max_position_embeddings")?;
    for frequency in &mut rope.frequencies {
        let turns = original * *frequency / std::f64::consts::TAU;
        let share = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        *frequency = *frequency / factor * (1.0 - share) + *frequency * share;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: &Json) -> Result<(f32, Rope), ModelError> {
        config_json(config, 64)
    }

    #[test]
    fn both_generations_of_config_are_read() {
        let old = read(&json!({"rms_norm_eps": 1e-5, "rope_theta": 1e5, "hidden_act": "silu"})).unwrap();
        let new = read(&json!({
            "rms_norm_eps": 1e-5, "rope_parameters": {"rope_theta": 1e5, "rope_type": "default"}
        }));
        assert_eq!(old, new.unwrap());
        assert_eq!(old.1.frequencies.len(), 32);
        assert!((old.1.frequencies[31] - 1e5f64.powf(-62.0 / 64.0)).abs() < 1e-12);
    }

    #[test]
    fn llama3_keeps_short_waves_and_slows_long_ones() {
        let plain = read(&json!({"rms_norm_eps": 1e-5, "rope_theta": 5e5})).unwrap();
        let scaled = read(&json!({
            "rms_norm_eps": 1e-5, "rope_theta": 5e5,
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
        }))
        .unwrap();
        let ratio = |pair: usize| plain.1.frequencies[pair] / scaled.1.frequencies[pair];
        assert!((ratio(0) - 1.0).abs() < 1e-12);
        assert!((ratio(31) - 8.0).abs() < 1e-12);
        assert!((0..31).all(|pair| ratio(pair) <= ratio(pair + 1) + 1e-12));
    }

    #[test]
    fn what_we_would_compute_wrongly_is_refused() {
        for config in [
            json!({"rms_norm_eps": 1e-5, "hidden_act": "gelu"}),
            json!({"rms_norm_eps": 1e-5, "partial_rotary_factor": 0.5}),
            json!({"rms_norm_eps": 1e-5, "use_sliding_window": true}),
            json!({"rms_norm_eps": 1e-5, "rope_scaling": {"type": "yarn"}}),
            json!({"rms_norm_eps": 1e-5, "rope_parameters": null, "rope_scaling": {"type": "yarn"}}),
            json!({"rms_norm_eps": 1e-5, "rope_parameters": {"partial_rotary_factor": 0.5}}),
            json!({"rms_norm_eps": 1e-5, "rope_scaling": {"rope_type": "llama3"}}),
            json!({}),
        ] {
            assert!(read(&config).is_err(), "{config}");
        }
    }
}
