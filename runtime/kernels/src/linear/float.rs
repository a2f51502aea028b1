//! The inner loops for float weights: one fused multiply-add a column, in the order of the columns.

use super::Multiply;
use crate::lanes::{LANES, Lanes};

/// `Σ w · x`, column after column, for weights stored as `E`.
pub(super) struct Float<'a, E> {
    pub(super) x: &'a [f32],
    pub(super) columns: usize,
    pub(super) element: E,
}

/// How a weight is stored.
pub(super) trait Element: Copy {
    const BYTES: usize;

    /// Sixteen stored weights.
    fn load<L: Lanes>(self, l: L, from: &[u8]) -> L::F32;
}

#[derive(Clone, Copy)]
pub(super) struct F32;
#[derive(Clone, Copy)]
pub(super) struct F16;
#[derive(Clone, Copy)]
pub(super) struct BF16;

impl Element for F32 {
    const BYTES: usize = 4;

    #[inline(always)]
    fn load<L: Lanes>(self, l: L, from: &[u8]) -> L::F32 {
        let (words, _) = from.as_chunks::<4>();
        let words: &[[u8; 4]; LANES] = words.try_into().expect("sixteen floats");
        l.load(&words.map(f32::from_le_bytes))
    }
}

impl Element for F16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn load<L: Lanes>(self, l: L, from: &[u8]) -> L::F32 {
        l.load_f16(from.try_into().expect("sixteen half floats"))
    }
}

impl Element for BF16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn load<L: Lanes>(self, l: L, from: &[u8]) -> L::F32 {
        l.load_bf16(from.try_into().expect("sixteen half floats"))
    }
}

impl<L: Lanes, E: Element> Multiply<L> for Float<'_, E> {
    #[inline(always)]
    fn rows<const M: usize>(&self, l: L, tile: &[u8], first_row: usize) -> [L::F32; M] {
        let x: [&[f32]; M] =
            std::array::from_fn(|row| &self.x[(first_row + row) * self.columns..][..self.columns]);
        let mut sums = [l.splat(0.0); M];
        for (column, weights) in tile.chunks_exact(LANES * E::BYTES).enumerate() {
            let weights = self.element.load(l, weights);
            for row in 0..M {
                sums[row] = l.fma(weights, l.splat(x[row][column]), sums[row]);
            }
        }
        sums
    }
}
