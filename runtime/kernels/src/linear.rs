//! Linears: `y = x · Wᵀ` for any number of activation rows, over weights of several formats stacked into one output.

mod float;
mod quantized;

use std::ops::Range;
use std::sync::PoisonError;

use crate::activations::{GROUP, Group, Quantize};
use crate::format::{BLOCK, Format, Packed, TILE};
use crate::lanes::{Kernel, Lanes};
use crate::shared::Shared;
use crate::{Kernels, share};

/// Activation rows that stay in the cache while the weights stream past; a multiple of [`GROUP`].
const ROWS_AT_ONCE: usize = 64;

impl Kernels {
    /// Multiplies each row of `x` by all `parts`, whose outputs stand side by side in `y`.
    ///
    /// Quantized parts see the activations in blocks of 32 bytes with a scale; float parts see them as they are
    /// and add up in `f32`, column after column.
    ///
    /// # Shapes
    /// - `x`: `[rows, columns]`; each part: `[n, columns]`; `y`: `[rows, Σn]`
    ///
    /// # Panics
    /// Where the shapes do not fit together.
    pub fn linear(&self, parts: &[Packed<'_>], x: &[f32], y: &mut [f32]) {
        let Some(columns) = parts.first().map(Packed::columns) else { return };
        let n_rows = x.len() / columns;
        let width: usize = parts.iter().map(Packed::rows).sum();
        assert!(parts.iter().all(|part| part.columns() == columns), "stacked parts take the same input");
        assert_eq!(
            (x.len(), y.len()),
            (n_rows * columns, n_rows * width),
            "input and output have the same rows"
        );

        let mut scratch = self.activations.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.iter().any(|part| part.format().is_quantized()) {
            self.quantize(x, columns, &mut scratch);
        }
        let y = Shared::new(y);
        let n_tiles: usize = parts.iter().map(Packed::tiles).sum();
        let n_tasks = n_tiles.min(self.pool.threads() * 4);
        self.pool.par_for(n_tasks, |task| {
            let mut left = share(n_tiles, n_tasks, task);
            let mut first_column = 0;
            for &weights in parts {
                let tiles = left.start.min(weights.tiles())..left.end.min(weights.tiles());
                let input = Input { floats: x, groups: &scratch, n_rows };
                let output = Output { y: &y, width, first_column };
                self.isa().run(Tiles { weights, tiles, input, output });
                left = left.start.saturating_sub(weights.tiles())..left.end.saturating_sub(weights.tiles());
                first_column += weights.rows();
            }
        });
    }

    /// Grows the scratch so that [`Kernels::linear`] never allocates for up to `rows` rows of `columns`.
    pub fn reserve(&self, rows: usize, columns: usize) {
        let mut scratch = self.activations.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = (rows.div_ceil(GROUP) * columns.div_ceil(BLOCK)).saturating_sub(scratch.len());
        scratch.reserve_exact(missing);
    }

    /// Bytes of scratch that `rows` activation rows of `columns` take.
    #[must_use]
    pub fn scratch_bytes(rows: usize, columns: usize) -> usize {
        rows.div_ceil(GROUP) * columns.div_ceil(BLOCK) * size_of::<Group>()
    }

    fn quantize(&self, x: &[f32], columns: usize, scratch: &mut Vec<Group>) {
        let per_row = columns / BLOCK;
        let n_rows = x.len() / columns;
        let n_groups = n_rows.div_ceil(GROUP);
        scratch.resize(n_groups * per_row, Group::default());
        let to = Shared::new(scratch);
        self.for_rows(n_groups, x.len(), |groups| {
            for group in groups {
                let rows = group * GROUP..n_rows.min((group + 1) * GROUP);
                // SAFETY: tasks have groups of their own.
                let to = unsafe { to.piece(group * per_row..(group + 1) * per_row) };
                let x = &x[rows.start * columns..rows.end * columns];
                self.isa().run(Quantize { x, columns, to });
            }
        });
    }
}

/// The activations, in both forms that kernels ask for.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    floats: &'a [f32],
    groups: &'a [Group],
    n_rows: usize,
}

/// Where a part's results go.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    y: &'a Shared<'a, f32>,
    width: usize,
    first_column: usize,
}

/// Some tiles of one weight, multiplied by all rows.
struct Tiles<'a> {
    weights: Packed<'a>,
    tiles: Range<usize>,
    input: Input<'a>,
    output: Output<'a>,
}

/// The inner loops of one format: `M` rows of activations, all of one group, against one tile.
pub(crate) trait Multiply<L: Lanes> {
    fn rows<const M: usize>(&self, l: L, tile: &[u8], first_row: usize) -> [L::F32; M];
}

impl Kernel for Tiles<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let columns = self.weights.columns();
        match self.weights.format() {
            Format::Q4_1 => {
                self.multiply(l, &quantized::Q4_1 { x: self.input.groups, per_row: columns / BLOCK });
            }
            Format::Q8_0 => {
                self.multiply(l, &quantized::Q8_0 { x: self.input.groups, per_row: columns / BLOCK });
            }
            Format::F32 => self.multiply(l, &self.floats(float::F32)),
            Format::F16 => self.multiply(l, &self.floats(float::F16)),
            Format::BF16 => self.multiply(l, &self.floats(float::BF16)),
        }
    }
}

impl<'a> Tiles<'a> {
    fn floats<E>(&self, element: E) -> float::Float<'a, E> {
        float::Float { x: self.input.floats, columns: self.weights.columns(), element }
    }

    #[inline(always)]
    fn multiply<L: Lanes>(&self, l: L, format: &impl Multiply<L>) {
        for first in (0..self.input.n_rows).step_by(ROWS_AT_ONCE) {
            let last = self.input.n_rows.min(first + ROWS_AT_ONCE);
            for tile in self.tiles.clone() {
                let bytes = self.weights.tile(tile);
                let mut row = first;
                while L::ROWS >= 8 && row + 8 <= last {
                    self.store(l, tile, row, format.rows::<8>(l, bytes, row));
                    row += 8;
                }
                while L::ROWS >= 4 && row + 4 <= last {
                    self.store(l, tile, row, format.rows::<4>(l, bytes, row));
                    row += 4;
                }
                while L::ROWS >= 2 && row + 2 <= last {
                    self.store(l, tile, row, format.rows::<2>(l, bytes, row));
                    row += 2;
                }
                while row < last {
                    self.store(l, tile, row, format.rows::<1>(l, bytes, row));
                    row += 1;
                }
            }
        }
    }

    #[inline(always)]
    fn store<L: Lanes, const M: usize>(&self, l: L, tile: usize, first_row: usize, sums: [L::F32; M]) {
        let Output { y, width, first_column } = self.output;
        let column = tile * TILE;
        let n_lanes = TILE.min(self.weights.rows() - column);
        for (row, sum) in sums.into_iter().enumerate() {
            let start = (first_row + row) * width + first_column + column;
            // SAFETY: the place belongs to this tile, which is one task's alone.
            let place = unsafe { y.piece(start..start + n_lanes) };
            l.store_part(sum, place);
        }
    }
}

#[cfg(test)]
mod tests;
