//! The memory formula. The operator predicts with it and the runtime allocates by it.
//!
//! `total = weights + kv_cache + activations + runtime + reserve`, all whole bytes.
//! Weights and KV cache are exact; activations are an upper bound of one step; the reserve covers what no
//! formula sees (allocator slack).

use serde::{Deserialize, Serialize};

use crate::bytes::{Bytes, BytesError};
use crate::device::DeviceClass;
use crate::dtype::KvDType;
use crate::geometry::{LayerGroup, ModelGeometry};
use crate::resident::ResidentError;
use crate::tensors::{TensorGroup, resident_bytes};

/// Tokens in one block of the paged KV cache.
pub const BLOCK_TOKENS: u32 = 32;
/// Most tokens in one forward step; longer prompts are split.
pub const STEP_TOKENS: u32 = 256;
/// The reserve is this fraction of everything else.
const RESERVE_DIVISOR: u64 = 32;

/// What a replica must be able to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Tokens that one sequence may have.
    pub context_length: u32,
    /// Sequences in flight.
    pub concurrency: u32,
    /// Element type of the KV cache.
    pub kv_dtype: KvDType,
}

/// Bytes of each component of one replica on one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct MemoryPlan {
    /// Weights as kept in memory.
    pub weights: Bytes,
    /// Keys and values of all sequences at their full length.
    pub kv_cache: Bytes,
    /// Hidden states, scores and logits of the largest step.
    pub activations: Bytes,
    /// The program itself.
    pub runtime: Bytes,
    /// What no formula sees.
    pub reserve: Bytes,
}

impl MemoryPlan {
    /// The components in their stated order, with the names that metrics and tables use.
    #[must_use]
    pub const fn components(&self) -> [(&'static str, Bytes); 5] {
        let Self { weights, kv_cache, activations, runtime, reserve } = *self;
        [
            ("weights", weights),
            ("kv_cache", kv_cache),
            ("activations", activations),
            ("runtime", runtime),
            ("reserve", reserve),
        ]
    }

    /// The hard budget of the replica.
    pub fn total(&self) -> Result<Bytes, BytesError> {
        Bytes::sum(self.components().map(|(_, bytes)| bytes))
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A weight format that cannot be served.
    #[error("the weights cannot be kept in memory")]
    Weights(#[source] ResidentError),
    /// Sizes past 64 bits.
    #[error("the plan does not fit in 64 bits")]
    Overflow(#[from] BytesError),
    /// More context than the model knows.
    #[error("a context of {asked} tokens is longer than the model's own {own}")]
    Context {
        /// Asked for.
        asked: u32,
        /// The model's own.
        own: u32,
    },
}

/// Plans one replica on one device.
pub fn plan(
    geometry: &ModelGeometry,
    tensors: &[TensorGroup],
    capacity: Capacity,
    device: DeviceClass,
) -> Result<MemoryPlan, PlanError> {
    if capacity.context_length > geometry.context_length {
        return Err(PlanError::Context { asked: capacity.context_length, own: geometry.context_length });
    }
    let mut plan = MemoryPlan {
        weights: resident_bytes(tensors, device).map_err(PlanError::Weights)?,
        kv_cache: block_bytes(geometry, capacity.kv_dtype)?.times(n_blocks(capacity)?)?,
        activations: activations(geometry, capacity)?,
        runtime: device.runtime_bytes(geometry.vocab)?,
        reserve: Bytes::ZERO,
    };
    plan.reserve = Bytes(plan.total()?.0 / RESERVE_DIVISOR);
    Ok(plan)
}

/// Blocks that hold `concurrency` sequences of full length.
pub fn n_blocks(capacity: Capacity) -> Result<u64, BytesError> {
    let a_sequence = u64::from(capacity.context_length.div_ceil(BLOCK_TOKENS));
    a_sequence.checked_mul(capacity.concurrency.into()).ok_or(BytesError::Overflow)
}

/// Bytes of one block over all layers: keys and values of [`BLOCK_TOKENS`] tokens.
pub fn block_bytes(geometry: &ModelGeometry, kv_dtype: KvDType) -> Result<Bytes, BytesError> {
    let elements = |g: &LayerGroup| {
        [g.count, g.kv_heads, g.head_dim, BLOCK_TOKENS, 2]
            .iter()
            .try_fold(1u64, |n, f| n.checked_mul(u64::from(*f)))
            .ok_or(BytesError::Overflow)
    };
    geometry.layers.iter().try_fold(Bytes::ZERO, |sum, g| sum.plus(kv_dtype.bytes(elements(g)?)?))
}

/// Upper bound of the bytes alive in one step, in F32:
/// for each of [`STEP_TOKENS`] tokens the residual, its norm and one projection's input and output as wide as
/// the widest of them, twice (gate and up), their quantized copy, and one row of logits a sequence.
fn activations(geometry: &ModelGeometry, capacity: Capacity) -> Result<Bytes, BytesError> {
    let widest =
        |g: &LayerGroup| (u64::from(geometry.heads) + 2 * u64::from(g.kv_heads)) * u64::from(g.head_dim);
    let attention = geometry.layers.iter().map(widest).max().unwrap_or(0);
    let hidden = u64::from(geometry.hidden);
    let ffn = u64::from(geometry.ffn);
    let a_token = 4 * hidden + 2 * attention + 4 * ffn;
    let rows = u64::from(capacity.concurrency.min(STEP_TOKENS));
    let logits = Bytes(rows).times(geometry.vocab.into())?.times(2)?;
    Bytes(a_token).times(STEP_TOKENS.into())?.plus(logits)?.times(4)
}

#[cfg(test)]
mod tests;
