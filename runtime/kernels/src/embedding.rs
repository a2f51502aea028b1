//! Rows of a packed matrix as floats: the embedding lookup, from the same bytes that the output linear uses.

use half::{bf16, f16};

use crate::Kernels;
use crate::format::{BLOCK, Format, Packed, TILE};
use crate::shared::Shared;

impl Kernels {
    /// Writes row `tokens[i]` of `weights` to row `i` of `y`.
    ///
    /// # Shapes
    /// - `weights`: `[vocabulary, width]`; `y`: `[tokens.len(), width]`
    ///
    /// # Panics
    /// Where a token is not in the vocabulary or the shapes do not fit together.
    pub fn embed(&self, weights: Packed<'_>, tokens: &[u32], y: &mut [f32]) {
        let width = weights.columns();
        assert_eq!(y.len(), tokens.len() * width, "a row for each token");
        assert!(
            tokens.iter().all(|token| (*token as usize) < weights.rows()),
            "tokens are in the vocabulary"
        );
        let out = Shared::new(y);
        self.for_rows(tokens.len(), tokens.len() * width, |rows| {
            for row in rows {
                // SAFETY: tasks have rows of their own.
                let y = unsafe { out.piece(row * width..(row + 1) * width) };
                unpack_row(weights, tokens[row] as usize, y);
            }
        });
    }
}

/// Row `row` of `weights` as floats; lossless but for the product of scale and quant, which `f32` rounds.
fn unpack_row(weights: Packed<'_>, row: usize, y: &mut [f32]) {
    let (tile, lane) = (weights.tile(row / TILE), row % TILE);
    let half =
        |block: &[u8], index: usize| f16::from_le_bytes([block[2 * index], block[2 * index + 1]]).to_f32();
    let blocks = tile.chunks_exact(TILE * weights.format().block_bytes());
    match weights.format() {
        Format::Q4_1 => {
            for (block, y) in blocks.zip(y.chunks_exact_mut(BLOCK)) {
                let (scale, minimum) = (half(block, lane), half(block, TILE + lane));
                let (low, high) = y.split_at_mut(BLOCK / 2);
                for (column, (low, high)) in low.iter_mut().zip(high).enumerate() {
                    let byte = block[4 * TILE + column / 4 * 4 * TILE + 4 * lane + column % 4];
                    *low = scale * f32::from(byte & 15) + minimum;
                    *high = scale * f32::from(byte >> 4) + minimum;
                }
            }
        }
        Format::Q8_0 => {
            for (block, y) in blocks.zip(y.chunks_exact_mut(BLOCK)) {
                let scale = half(block, lane);
                for (column, y) in y.iter_mut().enumerate() {
                    let byte = block[2 * TILE + column / 4 * 4 * TILE + 4 * lane + column % 4];
                    *y = scale * f32::from((byte ^ 0x80).cast_signed());
                }
            }
        }
        Format::F32 => {
            for (block, y) in blocks.zip(y) {
                let bytes = block[4 * lane..][..4].try_into().expect("four bytes");
                *y = f32::from_le_bytes(bytes);
            }
        }
        Format::F16 => {
            for (block, y) in blocks.zip(y) {
                *y = half(block, lane);
            }
        }
        Format::BF16 => {
            for (block, y) in blocks.zip(y) {
                *y = bf16::from_le_bytes([block[2 * lane], block[2 * lane + 1]]).to_f32();
            }
        }
    }
}
