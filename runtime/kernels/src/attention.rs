//! Causal attention that reads keys and values in place from the paged cache, and the writes into that cache.
//!
//! A layer has one arena for keys and one for values, `[block, kv_head, 32, head_dim]`. A sequence's table names
//! its blocks in order, so position `p` lies in block `table[p / 32]` at `p % 32`. The softmax is split at these
//! absolute boundaries: a token's result is the same however its sequence was cut into steps.

mod kernel;

use half::f16;

use crate::Kernels;
use crate::lanes::LANES;
use crate::shared::Shared;
use kernel::{Attend, Element, MAX_HEAD_DIM};

/// Positions of a cache block.
pub const CACHE_BLOCK: usize = 32;

/// Tokens of one sequence that a task handles together, sharing what it reads of the cache.
const TOKENS_PER_TASK: u32 = 8;

/// The heads of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Numbers of a head: a multiple of 16, at most 256.
    pub head_dim: usize,
}

impl Heads {
    /// Whether the kernels can handle these heads.
    #[must_use]
    pub fn supported(&self) -> bool {
        self.kv_heads > 0
            && self.heads > 0
            && self.heads.is_multiple_of(self.kv_heads)
            && self.head_dim > 0
            && self.head_dim.is_multiple_of(LANES)
            && self.head_dim <= MAX_HEAD_DIM
    }

    /// Numbers of a row of queries, keys and values side by side.
    #[must_use]
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Numbers of a cache block of keys, or of values.
    #[must_use]
    pub fn block_len(&self) -> usize {
        self.kv_heads * CACHE_BLOCK * self.head_dim
    }
}

/// A layer's cache: an arena of keys and one of values, each `[blocks, kv_heads, 32, head_dim]`.
#[derive(Clone, Copy, Debug)]
pub enum KeysValues<'a> {
    /// In single precision.
    F32(&'a [f32], &'a [f32]),
    /// In half precision.
    F16(&'a [f16], &'a [f16]),
}

/// A layer's cache, to write to.
#[derive(Debug)]
pub enum KeysValuesMut<'a> {
    /// In single precision.
    F32(&'a mut [f32], &'a mut [f32]),
    /// In half precision.
    F16(&'a mut [f16], &'a mut [f16]),
}

/// The block tables of a batch, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct BlockTables<'a> {
    /// All tables' block numbers.
    pub blocks: &'a [u32],
    /// Where each table starts in `blocks`, and where the last one ends.
    pub starts: &'a [u32],
}

impl<'a> BlockTables<'a> {
    fn table(&self, sequence: u32) -> &'a [u32] {
        let sequence = sequence as usize;
        &self.blocks[self.starts[sequence] as usize..self.starts[sequence + 1] as usize]
    }
}

/// Some neighbouring tokens of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTile {
    sequence: u32,
    first: u32,
    last: u32,
}

/// Cuts a step's tokens into what attention tasks handle together; `seq_starts` has one entry more than there are
/// sequences. The tiles go to `to`, which is cleared.
pub fn token_tiles(seq_starts: &[u32], to: &mut Vec<TokenTile>) {
    to.clear();
    for (sequence, range) in (0..).zip(seq_starts.windows(2)) {
        for first in (range[0]..range[1]).step_by(TOKENS_PER_TASK as usize) {
            to.push(TokenTile { sequence, first, last: range[1].min(first + TOKENS_PER_TASK) });
        }
    }
}

/// Attention of a step's tokens over a layer's cache.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// The layer's heads.
    pub heads: Heads,
    /// What scores are multiplied by, usually `1 / √head_dim`.
    pub scale: f32,
    /// Each token's position in its sequence.
    pub positions: &'a [u32],
    /// The step's tokens as [`token_tiles`] cut them.
    pub tiles: &'a [TokenTile],
    /// Each sequence's cache blocks, for all positions up to its last token's.
    pub tables: BlockTables<'a>,
}

impl Kernels {
    /// Writes each row's keys and values to its slot of the cache, rounded to the cache's type.
    ///
    /// # Shapes
    /// - `qkv`: `[tokens, heads.qkv_width()]`; `slots`: `[tokens]`, each `block · 32 + place`
    ///
    /// # Panics
    /// Where the shapes do not fit together or a slot lies outside of the arenas.
    pub fn write_cache(&self, heads: Heads, qkv: &[f32], slots: &[u32], cache: KeysValuesMut<'_>) {
        assert_eq!(qkv.len(), slots.len() * heads.qkv_width(), "a row for each slot");
        let keys_start = heads.heads * heads.head_dim;
        let values_start = keys_start + heads.kv_heads * heads.head_dim;
        match cache {
            KeysValuesMut::F32(keys, values) => {
                write(heads, qkv, keys_start, slots, keys);
                write(heads, qkv, values_start, slots, values);
            }
            KeysValuesMut::F16(keys, values) => {
                write(heads, qkv, keys_start, slots, keys);
                write(heads, qkv, values_start, slots, values);
            }
        }
    }

    /// Writes the heads' results side by side to `y`.
    ///
    /// Vaswani et al. 2017, eq. 1, with grouped heads (Ainslie et al. 2023, §2) and the softmax accumulated block
    /// by block (Milakov and Gimelshein 2018) in `f32`.
    ///
    /// # Shapes
    /// - `qkv`: `[tokens, heads.qkv_width()]`, of which only the queries are read
    /// - `y`: `[tokens, heads · head_dim]`
    ///
    /// # Panics
    /// Where the shapes do not fit together, the heads are not supported, or a table lacks a block.
    pub fn attend(&self, attention: &Attention<'_>, qkv: &[f32], cache: KeysValues<'_>, y: &mut [f32]) {
        match cache {
            KeysValues::F32(keys, values) => self.attend_in(attention, qkv, (keys, values), y),
            KeysValues::F16(keys, values) => self.attend_in(attention, qkv, (keys, values), y),
        }
    }

    fn attend_in<E: Element>(
        &self,
        attention: &Attention<'_>,
        qkv: &[f32],
        cache: (&[E], &[E]),
        y: &mut [f32],
    ) {
        let heads = attention.heads;
        let n_tokens = attention.positions.len();
        assert!(heads.supported(), "the model checked its heads when it was loaded");
        assert_eq!(qkv.len(), n_tokens * heads.qkv_width(), "a row for each token");
        assert_eq!(y.len(), n_tokens * heads.heads * heads.head_dim, "a row for each token");
        // Each task writes its own tile's rows, and no two may be the same.
        assert!(attention.tiles.is_sorted_by(|a, b| a.last <= b.first), "tiles do not overlap");
        let out = Shared::new(y);
        let n_tasks = attention.tiles.len() * heads.kv_heads;
        let run = |task: usize| {
            let tile = attention.tiles[task / heads.kv_heads];
            let head = task % heads.kv_heads;
            self.isa().run(Attend { attention, tile, head, qkv, keys: cache.0, values: cache.1, y: &out });
        };
        // A step of very many tokens has more pieces than the pool can number.
        let per_batch = usize::from(u16::MAX);
        for first in (0..n_tasks).step_by(per_batch) {
            self.pool.par_for(per_batch.min(n_tasks - first), |task| run(first + task));
        }
    }
}

/// Rounds `kv_heads` heads of each row, from number `start` on, into their slots.
fn write<E: Element>(heads: Heads, qkv: &[f32], start: usize, slots: &[u32], arena: &mut [E]) {
    for (row, slot) in qkv.chunks_exact(heads.qkv_width()).zip(slots) {
        let (block, place) = (*slot as usize / CACHE_BLOCK, *slot as usize % CACHE_BLOCK);
        let block = &mut arena[block * heads.block_len()..(block + 1) * heads.block_len()];
        let kv_heads = row[start..].chunks_exact(heads.head_dim).take(heads.kv_heads);
        for (head, from) in kv_heads.enumerate() {
            let to = &mut block[(head * CACHE_BLOCK + place) * heads.head_dim..][..heads.head_dim];
            for (to, from) in to.iter_mut().zip(from) {
                *to = E::from_f32(*from);
            }
        }
    }
}

#[cfg(test)]
mod tests;
