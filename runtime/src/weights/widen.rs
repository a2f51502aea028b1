//! From any stored type that loses nothing in `f32` to `f32`: candle unpacks the formats that have no kernel.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Result};
use contract::DType;
use half::{bf16, f16};

/// The numbers that `bytes` stand for, or nothing for a type that we do not unpack.
///
/// # Errors
/// Where the tensor library refuses.
pub fn widen(dtype: DType, bytes: &[u8]) -> Result<Option<Vec<f32>>> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    let kind = match dtype {
        DType::F32 => {
            let (words, _) = bytes.as_chunks::<4>();
            return Ok(Some(words.iter().map(|word| f32::from_le_bytes(*word)).collect()));
        }
        DType::F16 => return Ok(Some(pairs().map(|pair| f16::from_le_bytes(*pair).to_f32()).collect())),
        DType::BF16 => return Ok(Some(pairs().map(|pair| bf16::from_le_bytes(*pair).to_f32()).collect())),
        DType::Q4_0 => GgmlDType::Q4_0,
        DType::Q4_1 => GgmlDType::Q4_1,
        DType::Q5_0 => GgmlDType::Q5_0,
        DType::Q5_1 => GgmlDType::Q5_1,
        DType::Q8_0 => GgmlDType::Q8_0,
        DType::Q4_K => GgmlDType::Q4K,
        DType::Q5_K => GgmlDType::Q5K,
        DType::Q6_K => GgmlDType::Q6K,
        _ => return Ok(None),
    };
    let numbers = bytes.len() / kind.type_size() * kind.block_size();
    let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, kind)?;
    let tensor = QTensor::new(storage, (numbers,))?.dequantize(&Device::Cpu)?;
    Ok(Some(tensor.to_vec1()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_and_blocks_become_their_numbers() {
        let widened = |dtype, bytes: &[u8]| widen(dtype, bytes).unwrap();
        assert_eq!(widened(DType::F32, &1.5f32.to_le_bytes()), Some(vec![1.5]));
        assert_eq!(widened(DType::F16, &f16::from_f32(1.5).to_le_bytes()), Some(vec![1.5]));
        assert_eq!(widened(DType::BF16, &bf16::from_f32(-2.5).to_le_bytes()), Some(vec![-2.5]));
        let mut block = f16::from_f32(0.5).to_le_bytes().to_vec();
        block.extend([0x9f; 16]);
        let numbers = widened(DType::Q4_0, &block).unwrap();
        assert_eq!((numbers[0], numbers[16], numbers.len()), (3.5, 0.5, 32));
        assert_eq!(widened(DType::I32, &[0; 4]), None);
    }
}
