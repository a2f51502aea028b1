//! Tensors grouped by role, shape and dtype: small enough for a status, exact enough for a plan.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bytes::{Bytes, BytesError};
use crate::device::DeviceClass;
use crate::dtype::DType;
use crate::header::TensorInfo;
use crate::resident::{ResidentError, resident};

/// What a tensor does in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TensorRole {
    /// Token embedding.
    Embedding,
    /// Projection onto the vocabulary.
    Output,
    /// Query, key, value or output projection of attention.
    Attention,
    /// Projection of a feed-forward network.
    FeedForward,
    /// Gain of a normalisation.
    Norm,
    /// Factors that slow rotary frequencies down.
    Rope,
    /// Anything that the forward pass does not read.
    Unused,
}

impl TensorRole {
    /// The role of a tensor by its GGUF or Hugging Face name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let has = |parts: &[&str]| parts.iter().any(|p| name.contains(p));
        if has(&["norm"]) {
            Self::Norm
        } else if has(&["token_embd.", "embed_tokens."]) {
            Self::Embedding
        } else if name.starts_with("output.") || has(&["lm_head."]) {
            Self::Output
        } else if has(&["rope_freqs."]) {
            Self::Rope
        } else if has(&["rotary_emb.inv_freq"]) {
            Self::Unused
        } else if has(&["attn_", "self_attn."]) {
            Self::Attention
        } else if has(&["ffn_", "mlp."]) {
            Self::FeedForward
        } else {
            Self::Unused
        }
    }
}

/// Tensors that are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TensorGroup {
    /// What they do.
    pub role: TensorRole,
    /// Element type at rest.
    pub dtype: DType,
    /// Row-major shape.
    pub shape: Vec<u64>,
    /// How many there are.
    pub count: u32,
}

/// Groups tensors; ordered by role, dtype and shape.
#[must_use]
pub fn group(tensors: &[TensorInfo]) -> Vec<TensorGroup> {
    let mut counts = BTreeMap::new();
    for t in tensors {
        *counts.entry((TensorRole::of(&t.name), t.dtype, t.shape.clone())).or_insert(0) += 1;
    }
    let make = |((role, dtype, shape), count)| TensorGroup { role, dtype, shape, count };
    counts.into_iter().map(make).collect()
}

/// Exact bytes that the weights take in the memory of a device of this class.
pub fn resident_bytes(groups: &[TensorGroup], device: DeviceClass) -> Result<Bytes, ResidentError> {
    let used = groups.iter().filter(|g| g.role != TensorRole::Unused);
    used.map(|g| Ok(resident(g.dtype, &g.shape, device)?.bytes.times(g.count.into())?))
        .try_fold(Bytes::ZERO, |sum, bytes: Result<Bytes, ResidentError>| Ok(sum.plus(bytes?)?))
}

/// Bytes of the largest tensor as it is kept in the memory of a device of this class.
pub fn largest_bytes(groups: &[TensorGroup], device: DeviceClass) -> Result<Bytes, ResidentError> {
    let used = groups.iter().filter(|g| g.role != TensorRole::Unused);
    used.map(|g| Ok(resident(g.dtype, &g.shape, device)?.bytes))
        .try_fold(Bytes::ZERO, |most, bytes: Result<Bytes, ResidentError>| Ok(most.max(bytes?)))
}

/// Number of weights.
pub fn parameters(groups: &[TensorGroup]) -> Result<u64, BytesError> {
    let elements = |g: &TensorGroup| {
        let product = g.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        product.and_then(|n| n.checked_mul(g.count.into()))
    };
    let sum = groups.iter().try_fold(0u64, |sum, g| sum.checked_add(elements(g)?));
    sum.ok_or(BytesError::Overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_worlds_have_the_same_roles() {
        let pairs = [
            ("token_embd.weight", "model.embed_tokens.weight", TensorRole::Embedding),
            ("output.weight", "lm_head.weight", TensorRole::Output),
            ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", TensorRole::Attention),
            ("blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight", TensorRole::Attention),
            ("blk.0.ffn_gate.weight", "model.layers.0.mlp.gate_proj.weight", TensorRole::FeedForward),
            ("blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight", TensorRole::Norm),
            ("output_norm.weight", "model.norm.weight", TensorRole::Norm),
        ];
        for (gguf, hf, role) in pairs {
            assert_eq!((TensorRole::of(gguf), TensorRole::of(hf)), (role, role), "{gguf}");
        }
        assert_eq!(TensorRole::of("rope_freqs.weight"), TensorRole::Rope);
        assert_eq!(TensorRole::of("model.layers.0.self_attn.rotary_emb.inv_freq"), TensorRole::Unused);
    }

    #[test]
    fn alike_tensors_are_counted_once() {
        let t = |name: &str| TensorInfo {
            name: name.into(),
            dtype: DType::F32,
            shape: vec![2, 32],
            range: 0..256,
        };
        let groups = group(&[t("blk.0.ffn_up.weight"), t("blk.1.ffn_up.weight"), t("output.weight")]);
        assert_eq!(groups.iter().map(|g| g.count).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(parameters(&groups), Ok(192));
        // Each is padded to a tile of rows.
        let kept = |of: fn(&[TensorGroup], DeviceClass) -> _| of(&groups, DeviceClass::Nvidia);
        assert_eq!((kept(largest_bytes), kept(resident_bytes)), (Ok(Bytes(2048)), Ok(Bytes(3 * 2048))));
    }
}
