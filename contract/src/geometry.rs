//! The shape of a model, as far as memory depends on it.
//!
//! In: a checkpoint's `config.json` or GGUF metadata. Out: [`ModelGeometry`].
//! What only the forward pass needs (rope bases, epsilons) is read by the runtime's family files.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::header::gguf::{Metadata, Value};

/// Architectures that the runtime serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Llama 3, SmolLM2 and others of the same shape: RMSNorm, rotary GQA, SwiGLU.
    Llama,
    /// Qwen3's dense models: as Llama, with a norm of each query and key head.
    Qwen3,
}

impl Family {
    /// All of them, for messages.
    pub const ALL: [Self; 2] = [Self::Llama, Self::Qwen3];

    /// `model_type` of `config.json` and `general.architecture` of GGUF.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen3 => "qwen3",
        }
    }

    /// Elements of a head where a `config.json` does not say and they do not follow from the hidden size.
    const fn usual_head_dim(self) -> Option<u64> {
        match self {
            Self::Llama => None,
            // `transformers`, `configuration_qwen3.py`.
            Self::Qwen3 => Some(128),
        }
    }

    fn parse(name: &str) -> Result<Self, GeometryError> {
        Self::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| GeometryError::Family {
            found: name.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// How a layer remembers the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum AttentionKind {
    /// Keys and values of every past token (Vaswani et al. 2017; grouped heads: Ainslie et al. 2023).
    Full,
}

/// Consecutive layers of the same shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LayerGroup {
    /// Number of layers.
    pub count: u32,
    /// How they remember the past.
    pub attention: AttentionKind,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Elements of one key or value.
    pub head_dim: u32,
}

/// The shape of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ModelGeometry {
    /// Architecture.
    pub family: Family,
    /// Layers in order.
    pub layers: Vec<LayerGroup>,
    /// Elements of a hidden state.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Inner elements of the feed-forward network.
    pub ffn: u32,
    /// Tokens of the vocabulary.
    pub vocab: u32,
    /// Longest context that the model was made for, in tokens.
    pub context_length: u32,
}

/// Why a model has no geometry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// An architecture that we do not serve.
    #[error("architecture {found:?} is not supported; supported are: {known}")]
    Family {
        /// What the checkpoint says.
        found: String,
        /// What would be accepted.
        known: String,
    },
    /// A field is missing, or is no number in its bounds.
    #[error("{field} is missing or not a whole number from {least} to {most}")]
    Field {
        /// Name in the checkpoint.
        field: String,
        /// Least accepted.
        least: u32,
        /// Most accepted.
        most: u32,
    },
    /// Heads that do not divide.
    #[error("{heads} query heads cannot share {kv_heads} key-value heads evenly")]
    Heads {
        /// Query heads.
        heads: u32,
        /// Key-value heads.
        kv_heads: u32,
    },
}

/// Bounds that no published model comes near, so that later products fit in 64 bits.
const MAX_LAYERS: u32 = 1 << 10;
const MAX_WIDTH: u32 = 1 << 20;
const MAX_HEADS: u32 = 1 << 12;
const MAX_HEAD_DIM: u32 = 1 << 12;
const MAX_VOCAB: u32 = 1 << 24;
const MAX_CONTEXT: u32 = 1 << 24;

impl ModelGeometry {
    /// All layers.
    #[must_use]
    pub fn n_layers(&self) -> u32 {
        self.layers.iter().map(|g| g.count).sum()
    }

    /// Reads GGUF metadata. Names: `docs/gguf.md` of ggml, section on architecture metadata.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, GeometryError> {
        let text = metadata.get("general.architecture").and_then(Value::as_str).unwrap_or("");
        let family = Family::parse(text)?;
        let lookup = |name: &str| metadata.get(&format!("{}.{name}", family.name())).and_then(Value::as_u64);
        let vocab = lookup("vocab_size").or_else(|| {
            metadata.get("tokenizer.ggml.tokens").and_then(Value::as_strings).map(|t| t.len() as u64)
        });
        let fields = Fields {
            family,
            layers: ("block_count", lookup("block_count")),
            hidden: ("embedding_length", lookup("embedding_length")),
            heads: ("attention.head_count", lookup("attention.head_count")),
            kv_heads: ("attention.head_count_kv", lookup("attention.head_count_kv")),
            head_dim: ("attention.key_length", lookup("attention.key_length")),
            ffn: ("feed_forward_length", lookup("feed_forward_length")),
            vocab: ("vocab_size", vocab),
            context: ("context_length", lookup("context_length")),
        };
        fields.checked()
    }

    /// Reads a Hugging Face `config.json` (names: `transformers`, `configuration_llama.py`).
    pub fn from_config(config: &Json) -> Result<Self, GeometryError> {
        let family = Family::parse(config["model_type"].as_str().unwrap_or(""))?;
        let field = |name: &'static str| (name, config[name].as_u64());
        let fields = Fields {
            family,
            layers: field("num_hidden_layers"),
            hidden: field("hidden_size"),
            heads: field("num_attention_heads"),
            kv_heads: field("num_key_value_heads"),
            head_dim: ("head_dim", config["head_dim"].as_u64().or(family.usual_head_dim())),
            ffn: field("intermediate_size"),
            vocab: field("vocab_size"),
            context: field("max_position_embeddings"),
        };
        fields.checked()
    }
}

type Field = (&'static str, Option<u64>);

/// What was found, under the names of the checkpoint.
struct Fields {
    family: Family,
    layers: Field,
    hidden: Field,
    heads: Field,
    kv_heads: Field,
    head_dim: Field,
    ffn: Field,
    vocab: Field,
    context: Field,
}

impl Fields {
    fn checked(self) -> Result<ModelGeometry, GeometryError> {
        let heads = bounded(self.heads, MAX_HEADS)?;
        let kv_heads = bounded((self.kv_heads.0, self.kv_heads.1.or(Some(heads.into()))), MAX_HEADS)?;
        if heads % kv_heads != 0 {
            return Err(GeometryError::Heads { heads, kv_heads });
        }
        let hidden = bounded(self.hidden, MAX_WIDTH)?;
        let head_dim = (self.head_dim.0, self.head_dim.1.or(Some((hidden / heads).into())));
        let group = LayerGroup {
            count: bounded(self.layers, MAX_LAYERS)?,
            attention: AttentionKind::Full,
            kv_heads,
            head_dim: bounded(head_dim, MAX_HEAD_DIM)?,
        };
        Ok(ModelGeometry {
            family: self.family,
            layers: vec![group],
            hidden,
            heads,
            ffn: bounded(self.ffn, MAX_WIDTH)?,
            vocab: bounded(self.vocab, MAX_VOCAB)?,
            context_length: bounded(self.context, MAX_CONTEXT)?,
        })
    }
}

fn bounded((field, value): Field, most: u32) -> Result<u32, GeometryError> {
    let value = value.and_then(|v| u32::try_from(v).ok()).filter(|v| (1..=most).contains(v));
    value.ok_or_else(|| GeometryError::Field { field: field.to_owned(), least: 1, most })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn smollm2() -> Json {
        json!({
            "model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9,
            "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152,
            "max_position_embeddings": 8192
        })
    }

    #[test]
    fn head_dim_and_kv_heads_have_their_usual_defaults() {
        let geometry = ModelGeometry::from_config(&smollm2()).unwrap();
        assert_eq!((geometry.n_layers(), geometry.layers[0].head_dim), (30, 64));
        let mut mha = smollm2();
        mha.as_object_mut().unwrap().remove("num_key_value_heads");
        assert_eq!(ModelGeometry::from_config(&mha).unwrap().layers[0].kv_heads, 9);
        let mut qwen3 = smollm2();
        qwen3["model_type"] = json!("qwen3");
        assert_eq!(ModelGeometry::from_config(&qwen3).unwrap().layers[0].head_dim, 128);
    }

    #[test]
    fn unknown_and_impossible_models_are_named() {
        let with = |field: &str, value: Json| {
            let mut config = smollm2();
            config[field] = value;
            ModelGeometry::from_config(&config).unwrap_err().to_string()
        };
        assert!(with("model_type", json!("mamba")).contains("supported are: llama, qwen3"));
        assert!(with("num_key_value_heads", json!(2)).contains("cannot share"));
        for bad in [json!(0), json!(-1), json!(1u64 << 40), json!("x"), Json::Null] {
            assert!(with("hidden_size", bad).starts_with("hidden_size is missing or not"));
        }
    }
}
