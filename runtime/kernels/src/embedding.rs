//! Rows of a packed matrix as floats: the embedding lookup, from the same bytes that the output linear uses.

use crate::Kernels;
use crate::dequantize::dequantize;
use crate::format::{MAX_BLOCK_BYTES, Packed, TILE};
use crate::pack::unpack_block;
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

/// Row `row` of `weights` as floats.
fn unpack_row(weights: Packed<'_>, row: usize, y: &mut [f32]) {
    let (format, tile) = (weights.format(), weights.tile(row / TILE));
    let mut block = [0; MAX_BLOCK_BYTES];
    let block = &mut block[..format.block_bytes()];
    let blocks = tile.chunks_exact(TILE * block.len());
    for (from, y) in blocks.zip(y.chunks_exact_mut(format.block_columns())) {
        unpack_block(format, from, row % TILE, block);
        dequantize(format, block, y);
    }
}
