//! What of a tensor is kept in memory: operator and runtime ask the same function.

use serde::{Deserialize, Serialize};

use crate::bytes::{Bytes, BytesError};
use crate::device::DeviceClass;
use crate::dtype::DType;

/// Rows that a packed matrix is padded to, so that every instruction set reads whole tiles.
pub const ROW_TILE: u64 = 16;

/// Element type and exact bytes of a tensor in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resident {
    /// Element type in memory.
    pub dtype: DType,
    /// Bytes in memory, padding included.
    pub bytes: Bytes,
}

/// A tensor that cannot be kept without loss.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResidentError {
    /// No lossless form is known.
    #[error("weights of type {0:?} are not supported")]
    Unsupported(DType),
    /// A shape that no product of 64 bits holds.
    #[error("a tensor of shape {0:?} is too large")]
    TooLarge(Vec<u64>),
    /// A sum that no 64 bits hold.
    #[error(transparent)]
    Overflow(#[from] BytesError),
}

/// Decides what is kept of a tensor.
///
/// Matrices (two dimensions, `[rows, columns]`) keep their type where there is a kernel for it, with rows padded
/// to [`ROW_TILE`]; formats without a kernel are widened to F32, which loses nothing. Everything else is F32.
pub fn resident(file: DType, shape: &[u64], device: DeviceClass) -> Result<Resident, ResidentError> {
    let is_matrix = shape.len() == 2;
    let dtype = match file {
        _ if is_matrix && has_kernel(file, device) => file,
        DType::F32 | DType::F16 | DType::BF16 => DType::F32,
        DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q8_0 => DType::F32,
        DType::Q4_K | DType::Q5_K | DType::Q6_K => DType::F32,
        _ => return Err(ResidentError::Unsupported(file)),
    };
    let mut padded = shape.to_vec();
    if is_matrix {
        padded[0] = padded[0].checked_next_multiple_of(ROW_TILE).ok_or(BytesError::Overflow)?;
    }
    let bytes = dtype.tensor_bytes(&padded).ok_or_else(|| ResidentError::TooLarge(shape.to_vec()))?;
    Ok(Resident { dtype, bytes: Bytes(bytes) })
}

/// Matrix formats that a device multiplies as they are.
const fn has_kernel(dtype: DType, device: DeviceClass) -> bool {
    match device {
        DeviceClass::Cpu | DeviceClass::Nvidia => {
            use DType::*;
            matches!(dtype, Q4_0 | Q4_1 | Q8_0 | Q4_K | Q5_K | Q6_K | F16 | BF16 | F32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hot_formats_stay_and_the_rest_is_widened() {
        let kept =
            |dtype, shape: &[u64]| resident(dtype, shape, DeviceClass::Cpu).map(|r| (r.dtype, r.bytes.0));
        assert_eq!(kept(DType::Q4_1, &[192, 576]), Ok((DType::Q4_1, 192 * 18 * 20)));
        assert_eq!(kept(DType::Q8_0, &[17, 32]), Ok((DType::Q8_0, 32 * 34)));
        assert_eq!(kept(DType::Q6_K, &[17, 512]), Ok((DType::Q6_K, 32 * 2 * 210)));
        assert_eq!(kept(DType::Q5_0, &[16, 256]), Ok((DType::F32, 16 * 256 * 4)));
        assert_eq!(kept(DType::BF16, &[576]), Ok((DType::F32, 576 * 4)));
        assert_eq!(kept(DType::F8_E4M3, &[16, 32]), Err(ResidentError::Unsupported(DType::F8_E4M3)));
    }
}
