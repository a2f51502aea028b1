//! Element types of weights and of the KV cache, with the exact bytes that they take.
//!
//! Block sizes follow ggml (`ggml-common.h`): a block holds `block_len` weights in `block_bytes` bytes.

use serde::{Deserialize, Serialize};

use crate::bytes::{Bytes, BytesError};

/// Element type of a tensor at rest or in memory. Names are those of ggml and safetensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[allow(missing_docs, non_camel_case_types, reason = "the names say it, and are the field's own spelling")]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    F8_E4M3,
    F8_E5M2,
    I64,
    I32,
    I16,
    I8,
    U8,
    BOOL,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
}

impl DType {
    /// Weights in one block; 1 for plain types.
    #[must_use]
    pub const fn block_len(self) -> u64 {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::Q8_1 => 32,
            Self::Q2_K | Self::Q3_K | Self::Q4_K | Self::Q5_K | Self::Q6_K | Self::Q8_K => 256,
            _ => 1,
        }
    }

    /// Bytes of one block.
    #[must_use]
    pub const fn block_bytes(self) -> u64 {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::F8_E4M3 | Self::F8_E5M2 | Self::I8 | Self::U8 | Self::BOOL => 1,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q8_1 => 36,
            Self::Q2_K => 84,
            Self::Q3_K => 110,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
            Self::Q8_K => 292,
        }
    }

    /// Bytes of a row-major tensor of this shape, or `None` when the last dimension is no whole number of
    /// blocks or the product does not fit.
    #[must_use]
    pub fn tensor_bytes(self, shape: &[u64]) -> Option<u64> {
        let (last, outer) = shape.split_last().map_or((1, &[][..]), |(l, o)| (*l, o));
        if last % self.block_len() != 0 {
            return None;
        }
        let row = (last / self.block_len()).checked_mul(self.block_bytes())?;
        outer.iter().try_fold(row, |bytes, n| bytes.checked_mul(*n))
    }

    /// The ggml type with this number (`enum ggml_type`), if it is one that we know.
    #[must_use]
    pub const fn from_ggml(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            9 => Self::Q8_1,
            10 => Self::Q2_K,
            11 => Self::Q3_K,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            15 => Self::Q8_K,
            24 => Self::I8,
            25 => Self::I16,
            26 => Self::I32,
            27 => Self::I64,
            28 => Self::F64,
            30 => Self::BF16,
            _ => return None,
        })
    }
}

/// Element type of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum KvDType {
    /// 4 bytes an element.
    #[default]
    F32,
    /// 2 bytes an element, IEEE half precision.
    F16,
    /// 34 bytes for 32 elements: signed bytes with a scale in half precision.
    #[allow(non_camel_case_types, reason = "the field's own spelling")]
    Q8_0,
}

impl KvDType {
    /// Bytes of `n` cached elements.
    pub fn bytes(self, n: u64) -> Result<Bytes, BytesError> {
        match self {
            Self::F32 => Bytes(4).times(n),
            Self::F16 => Bytes(2).times(n),
            Self::Q8_0 => Bytes(DType::Q8_0.block_bytes()).times(n.div_ceil(DType::Q8_0.block_len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_elements_take_their_bytes() {
        let bytes = [KvDType::F32, KvDType::F16, KvDType::Q8_0].map(|dtype| dtype.bytes(192));
        assert_eq!(bytes, [Ok(Bytes(768)), Ok(Bytes(384)), Ok(Bytes(6 * 34))]);
    }

    #[test]
    fn quantized_rows_are_whole_blocks() {
        assert_eq!(DType::Q4_1.tensor_bytes(&[576, 576]), Some(576 * 18 * 20));
        assert_eq!(DType::Q4_1.tensor_bytes(&[2, 33]), None);
        assert_eq!(DType::F32.tensor_bytes(&[]), Some(4));
        assert_eq!(DType::F32.tensor_bytes(&[u64::MAX, 2]), None);
    }
}
