//! The inner loops of attention: a few tokens and the query heads of one key-value head, block by block.

use half::f16;

use super::{Attention, CACHE_BLOCK, TokenTile};
use crate::exp::exp;
use crate::lanes::{Kernel, LANES, Lanes};
use crate::shared::Shared;

/// The largest head that there is room for.
pub(super) const MAX_HEAD_DIM: usize = 256;

/// Query rows whose state is kept while the cache streams past.
const ROWS: usize = 24;

/// A number of the cache.
pub(super) trait Element: Copy + Send + Sync {
    fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::F32;
    fn from_f32(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[f32; LANES]) -> L::F32 {
        l.load(from)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> f32 {
        value
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[f16; LANES]) -> L::F32 {
        let mut bytes = [0; 2 * LANES];
        for (two, number) in bytes.chunks_exact_mut(2).zip(from) {
            two.copy_from_slice(&number.to_le_bytes());
        }
        l.load_f16(&bytes)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> f16 {
        f16::from_f32(value)
    }
}

/// The tokens of `tile` for the query heads of key-value head `head`.
pub(super) struct Attend<'a, E> {
    pub(super) attention: &'a Attention<'a>,
    pub(super) tile: TokenTile,
    pub(super) head: usize,
    pub(super) qkv: &'a [f32],
    pub(super) keys: &'a [E],
    pub(super) values: &'a [E],
    pub(super) y: &'a Shared<'a, f32>,
}

/// One query: where it is read from and its result goes, and the softmax so far.
#[derive(Clone, Copy)]
struct Row {
    query: usize,
    result: usize,
    position: usize,
    /// The largest score so far.
    largest: f32,
    /// The sum of `exp(score - largest)` so far.
    sum: f32,
}

impl<E: Element> Kernel for Attend<'_, E> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let heads = self.attention.heads;
        let group = heads.heads / heads.kv_heads;
        let n_rows = (self.tile.last - self.tile.first) as usize * group;
        for first in (0..n_rows).step_by(ROWS) {
            let mut rows = [Row { query: 0, result: 0, position: 0, largest: 0.0, sum: 0.0 }; ROWS];
            let rows = &mut rows[..ROWS.min(n_rows - first)];
            for (row, index) in rows.iter_mut().zip(first..) {
                let token = self.tile.first as usize + index / group;
                let head = self.head * group + index % group;
                *row = Row {
                    query: token * heads.qkv_width() + head * heads.head_dim,
                    result: (token * heads.heads + head) * heads.head_dim,
                    position: self.attention.positions[token] as usize,
                    largest: f32::NEG_INFINITY,
                    sum: 0.0,
                };
            }
            self.rows(l, rows);
        }
    }
}

impl<E: Element> Attend<'_, E> {
    #[inline(always)]
    fn rows<L: Lanes>(&self, l: L, rows: &mut [Row]) {
        let Attention { heads, tables, .. } = *self.attention;
        let table = tables.table(self.tile.sequence);
        let last = rows.iter().map(|row| row.position).max().unwrap_or(0);
        let block_len = CACHE_BLOCK * heads.head_dim;
        let mut sums = [0.0; ROWS * MAX_HEAD_DIM];
        for (index, block) in table[..=last / CACHE_BLOCK].iter().enumerate() {
            let start = (*block as usize * heads.kv_heads + self.head) * block_len;
            let (keys, values) =
                (&self.keys[start..start + block_len], &self.values[start..start + block_len]);
            let first = index * CACHE_BLOCK;
            for (row, sums) in rows.iter_mut().zip(sums.chunks_exact_mut(heads.head_dim)) {
                if row.position >= first {
                    let seen = CACHE_BLOCK.min(row.position + 1 - first) * heads.head_dim;
                    self.block(l, row, sums, (&keys[..seen], &values[..seen]));
                }
            }
        }
        for (row, sums) in rows.iter().zip(sums.chunks_exact(heads.head_dim)) {
            // SAFETY: a result belongs to one token and head, hence to one task.
            let y = unsafe { self.y.piece(row.result..row.result + heads.head_dim) };
            let inverse = 1.0 / row.sum;
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = sum * inverse;
            }
        }
    }

    /// Adds the keys that `row` sees of one block to its softmax and its weighted sum of values.
    #[inline(always)]
    fn block<L: Lanes>(&self, l: L, row: &mut Row, sums: &mut [f32], (keys, values): (&[E], &[E])) {
        let head_dim = self.attention.heads.head_dim;
        let (query, _) = self.qkv[row.query..row.query + head_dim].as_chunks::<LANES>();
        let mut scores = [f32::NEG_INFINITY; CACHE_BLOCK];
        let (halves, _) = scores.as_chunks_mut::<LANES>();
        for (scores, keys) in halves.iter_mut().zip(keys.chunks(LANES * head_dim)) {
            let mut dots = [l.splat(0.0); LANES];
            for (dot, key) in dots.iter_mut().zip(keys.chunks_exact(head_dim)) {
                for (query, key) in query.iter().zip(key.as_chunks::<LANES>().0) {
                    *dot = l.fma(l.load(query), E::load(l, key), *dot);
                }
            }
            l.store(l.mul(l.sums(&dots), l.splat(self.attention.scale)), scores);
        }
        let n_keys = keys.len() / head_dim;
        scores[n_keys..].fill(f32::NEG_INFINITY);
        let (halves, _) = scores.as_chunks_mut::<LANES>();
        let (low, high) = (l.load(&halves[0]), l.load(&halves[1]));
        let block_largest = l.largest(l.max(low, high));
        if block_largest > row.largest {
            // What was added up so far was relative to a smaller score.
            let shrink = exp(l, l.splat(row.largest - block_largest));
            let mut factor = [0.0; LANES];
            l.store(shrink, &mut factor);
            row.sum *= factor[0];
            row.largest = block_largest;
            for sum in sums.as_chunks_mut::<LANES>().0 {
                l.store(l.mul(l.load(sum), shrink), sum);
            }
        }
        let below = l.splat(-row.largest);
        l.store(exp(l, l.add(low, below)), &mut halves[0]);
        l.store(exp(l, l.add(high, below)), &mut halves[1]);
        scores[n_keys..].fill(0.0);

        let (halves, _) = scores.as_chunks::<LANES>();
        row.sum += l.sum(l.add(l.load(&halves[0]), l.load(&halves[1])));
        weigh::<L, E>(l, &scores[..n_keys], values, sums);
    }
}

/// `sums += Σ weights[i] · values[i]`, four registers of a head at a time.
#[inline(always)]
fn weigh<L: Lanes, E: Element>(l: L, weights: &[f32], values: &[E], sums: &mut [f32]) {
    let head_dim = sums.len();
    let (sums, _) = sums.as_chunks_mut::<LANES>();
    for (index, sums) in sums.chunks_mut(4).enumerate() {
        let start = index * 4 * LANES;
        if let Ok(sums) = <&mut [[f32; LANES]; 4]>::try_from(&mut *sums) {
            let mut wide = [l.splat(0.0); 4];
            for part in 0..4 {
                wide[part] = l.load(&sums[part]);
            }
            for (weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
                let weight = l.splat(*weight);
                let (value, _) = value[start..start + 4 * LANES].as_chunks::<LANES>();
                for part in 0..4 {
                    wide[part] = l.fma(weight, E::load(l, &value[part]), wide[part]);
                }
            }
            for part in 0..4 {
                l.store(wide[part], &mut sums[part]);
            }
        } else {
            for (part, sums) in sums.iter_mut().enumerate() {
                let mut wide = l.load(sums);
                for (weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
                    let (value, _) = value.as_chunks::<LANES>();
                    wide = l.fma(l.splat(*weight), E::load(l, &value[index * 4 + part]), wide);
                }
                l.store(wide, sums);
            }
        }
    }
}
