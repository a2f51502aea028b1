//! Linears: `y = x · Wᵀ` for any number of activation rows, over weights of several formats stacked into one output.

mod float;
mod quantized;
mod superblock;

use std::ops::Range;
use std::sync::PoisonError;

use crate::activations::{GROUP, Group, Quantize};
use crate::format::{BLOCK, Format, Packed, TILE};
use crate::lanes::{Kernel, Lanes};
use crate::shared::Shared;
use crate::{Kernels, share};

/// Activation rows that stay in the cache while the weights stream past; a multiple of [`GROUP`].
const ROWS_AT_ONCE: usize = 64;

/// How long a task should take, in nanoseconds: long enough not to notice what it costs to begin one, and short
/// enough that no thread waits long for the last.
const TASK_TIME: usize = 16_000;

/// How the product of all tiles with all rows is cut into tasks. Results do not depend on it.
struct Cut {
    n_tiles: usize,
    tile_parts: usize,
    row_parts: usize,
}

impl Cut {
    /// A cut for some tiles of together `bytes` bytes and `columns` columns each.
    fn new(n_tiles: usize, bytes: usize, columns: usize, n_rows: usize, threads: usize) -> Self {
        let row_parts = n_rows.div_ceil(ROWS_AT_ONCE).max(1);
        // About 16 bytes a nanosecond from memory and 128 products in one of today's cores.
        let time = bytes / 16 + n_tiles * TILE * columns * n_rows.min(ROWS_AT_ONCE) / 128;
        let most = usize::from(u16::MAX) / row_parts;
        let tile_parts = (time / TASK_TIME).max(threads * 4 / row_parts).clamp(1, most.max(1)).min(n_tiles);
        Self { n_tiles, tile_parts, row_parts }
    }

    fn n_tasks(&self) -> usize {
        self.tile_parts * self.row_parts
    }

    /// The tiles and rows of a task. Neighbours share their tiles.
    fn task(&self, task: usize, n_rows: usize) -> (Range<usize>, Range<usize>) {
        let first = task % self.row_parts * ROWS_AT_ONCE;
        let tiles = share(self.n_tiles, self.tile_parts, task / self.row_parts);
        (tiles, first..n_rows.min(first + ROWS_AT_ONCE))
    }
}

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
        let bytes = parts.iter().map(|part| part.tiles() * part.tile(0).len()).sum();
        let cut = Cut::new(n_tiles, bytes, columns, n_rows, self.pool.threads());
        self.pool.par_for(cut.n_tasks(), |task| {
            let (mut left, rows) = cut.task(task, n_rows);
            let mut first_column = 0;
            for &weights in parts {
                let tiles = left.start.min(weights.tiles())..left.end.min(weights.tiles());
                let input = Input { floats: x, groups: &scratch, rows: rows.clone() };
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
struct Input<'a> {
    floats: &'a [f32],
    groups: &'a [Group],
    /// The rows to multiply, at most [`ROWS_AT_ONCE`] from a multiple of it on.
    rows: Range<usize>,
}

/// Where a part's results go.
#[derive(Clone, Copy)]
struct Output<'a> {
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
        let (x, per_row) = (self.input.groups, self.weights.columns() / BLOCK);
        match self.weights.format() {
            Format::Q4_0 => self.multiply(l, &quantized::Q4_0 { x, per_row }),
            Format::Q4_1 => self.multiply(l, &quantized::Q4_1 { x, per_row }),
            Format::Q8_0 => self.multiply(l, &quantized::Q8_0 { x, per_row }),
            Format::Q4K => self.multiply(l, &superblock::Q4K { x, per_row }),
            Format::Q5K => self.multiply(l, &superblock::Q5K { x, per_row }),
            Format::Q6K => self.multiply(l, &superblock::Q6K { x, per_row }),
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
        let last = self.input.rows.end;
        for tile in self.tiles.clone() {
            let bytes = self.weights.tile(tile);
            let mut row = self.input.rows.start;
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
