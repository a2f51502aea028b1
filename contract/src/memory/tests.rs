//! The formula against figures worked out by hand for SmolLM2-135M, and its properties.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::dtype::DType;
use crate::tensors::TensorRole;

fn smollm2() -> ModelGeometry {
    ModelGeometry::from_config(&json!({
        "model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9,
        "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152,
        "max_position_embeddings": 8192
    }))
    .unwrap()
}

fn tensors() -> Vec<TensorGroup> {
    let group = |role, dtype, shape: &[u64], count| TensorGroup { role, dtype, shape: shape.into(), count };
    vec![
        group(TensorRole::Embedding, DType::Q8_0, &[49152, 576], 1),
        group(TensorRole::Attention, DType::Q4_1, &[576, 576], 60),
        group(TensorRole::Norm, DType::F32, &[576], 61),
        group(TensorRole::Unused, DType::F32, &[32], 1),
    ]
}

fn capacity(context_length: u32, concurrency: u32) -> Capacity {
    Capacity { context_length, concurrency, kv_dtype: KvDType::F32 }
}

#[test]
fn smollm2_is_exact_to_the_byte() {
    let plan = plan(&smollm2(), &tensors(), capacity(2048, 4), DeviceClass::Cpu).unwrap();
    assert_eq!(plan.weights.0, 49152 * 18 * 34 + 60 * 576 * 18 * 20 + 61 * 576 * 4);
    // 30 layers, 3 heads of 64, keys and values, 4 bytes: 46,080 bytes a token.
    assert_eq!(plan.kv_cache.0, 46_080 * 2048 * 4);
    let parts = plan.components().iter().map(|(_, b)| b.0).sum::<u64>();
    assert_eq!(plan.total(), Ok(Bytes(parts)));
}

#[test]
fn a_sequence_takes_whole_blocks() {
    assert_eq!(n_blocks(capacity(33, 3)), Ok(6));
    let half = block_bytes(&smollm2(), KvDType::F16).unwrap();
    assert_eq!(half.times(2), block_bytes(&smollm2(), KvDType::F32));
}

#[test]
fn what_cannot_be_planned_says_why() {
    let long = plan(&smollm2(), &tensors(), capacity(8193, 1), DeviceClass::Cpu);
    assert_eq!(long, Err(PlanError::Context { asked: 8193, own: 8192 }));
    let mut odd = tensors();
    odd[0].dtype = DType::F8_E4M3;
    assert!(matches!(plan(&smollm2(), &odd, capacity(1, 1), DeviceClass::Cpu), Err(PlanError::Weights(_))));
}

proptest! {
    #[test]
    fn more_never_needs_less(context in 1u32..8191, concurrency in 1u32..1000) {
        let total = |c, n| plan(&smollm2(), &tensors(), capacity(c, n), DeviceClass::Cpu).unwrap().total().unwrap();
        prop_assert!(total(context, concurrency) <= total(context + 1, concurrency));
        prop_assert!(total(context, concurrency) < total(context, concurrency + 1));
    }
}
