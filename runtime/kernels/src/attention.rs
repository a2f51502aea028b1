//! Causal attention that reads keys and values in place from the paged cache, and the writes into that cache.
//!
//! A layer has one arena for keys and one for values, `[block, kv_head, 32, head_dim]`. A sequence's table names
//! its blocks in order, so position `p` lies in block `table[p / 32]` at `p % 32`. The softmax is split at these
//! absolute boundaries: a token's result is the same however its sequence was cut into steps.

mod element;
mod kernel;
mod spans;

use std::sync::PoisonError;

use half::f16;

use crate::Kernels;
use crate::format::BLOCK;
use crate::lanes::{Kernel, LANES, Lanes};
use crate::shared::Shared;
use element::Element;
use kernel::{Attend, SPAN, To};
use spans::{Merge, Waves};

pub(crate) use spans::SCRATCH;

/// Positions of a cache block.
pub const CACHE_BLOCK: usize = 32;

/// The largest head that the kernels take.
const MAX_HEAD_DIM: usize = 256;

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

    /// Bytes of a cache block of keys, or of values, in Q8_0; nothing where a head is no whole number of its blocks.
    #[must_use]
    pub fn q8_0_block_len(&self) -> Option<usize> {
        let whole = self.head_dim.is_multiple_of(BLOCK);
        whole.then(|| self.kv_heads * CACHE_BLOCK * u8::stored(self.head_dim))
    }
}

/// A layer's cache: an arena of keys and one of values, each `[blocks, kv_heads, 32, head_dim]`.
#[derive(Clone, Copy, Debug)]
pub enum KeysValues<'a> {
    /// In single precision.
    F32(&'a [f32], &'a [f32]),
    /// In half precision.
    F16(&'a [f16], &'a [f16]),
    /// In blocks of 32 signed bytes with a scale in half precision, ggml's Q8_0; heads are a multiple of 32.
    Q8_0(&'a [u8], &'a [u8]),
}

/// A layer's cache, to write to.
#[derive(Debug)]
pub enum KeysValuesMut<'a> {
    /// In single precision.
    F32(&'a mut [f32], &'a mut [f32]),
    /// In half precision.
    F16(&'a mut [f16], &'a mut [f16]),
    /// In blocks of 32 signed bytes with a scale in half precision, ggml's Q8_0; heads are a multiple of 32.
    Q8_0(&'a mut [u8], &'a mut [u8]),
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
        match cache {
            KeysValuesMut::F32(keys, values) => self.write(heads, qkv, slots, (keys, values)),
            KeysValuesMut::F16(keys, values) => self.write(heads, qkv, slots, (keys, values)),
            KeysValuesMut::Q8_0(keys, values) => {
                assert!(heads.head_dim.is_multiple_of(BLOCK), "heads are whole blocks");
                self.write(heads, qkv, slots, (keys, values));
            }
        }
    }

    /// Tasks have heads of their own, so that two tokens of one slot could not meet.
    fn write<E: Element>(&self, heads: Heads, qkv: &[f32], slots: &[u32], arenas: (&mut [E], &mut [E])) {
        let Heads { kv_heads, head_dim, .. } = heads;
        assert!(heads.supported(), "the model checked its heads when it was loaded");
        assert_eq!(qkv.len(), slots.len() * heads.qkv_width(), "a row for each slot");
        let arenas = [Shared::new(arenas.0), Shared::new(arenas.1)];
        self.for_rows(2 * kv_heads, 2 * slots.len() * kv_heads * head_dim, |range| {
            for index in range {
                let (arena, head) = (&arenas[index / kv_heads], index % kv_heads);
                let column = (heads.heads + index) * head_dim;
                self.isa().run(Write { heads, qkv, slots, column, head, arena });
            }
        });
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
            KeysValues::Q8_0(keys, values) => {
                assert!(attention.heads.head_dim.is_multiple_of(BLOCK), "heads are whole blocks");
                self.attend_in(attention, qkv, (keys, values), y);
            }
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
        let n_pieces = attention.tiles.len() * heads.kv_heads;
        let piece = |index: usize| (attention.tiles[index / heads.kv_heads], index % heads.kv_heads);
        let attend = |index: usize, to: To<'_>| {
            let (tile, head) = piece(index);
            self.isa().run(Attend { attention, tile, head, qkv, keys: cache.0, values: cache.1, to });
        };
        let Some(waves) = Waves::of(attention, self.threads()) else {
            // The last tiles of a prompt see the most: whoever takes one should not be the last to begin.
            return self.all_tasks(n_pieces, |task| attend(n_pieces - 1 - task, To::Results(&out)));
        };
        let mut scratch = self.partials.lock().unwrap_or_else(PoisonError::into_inner);
        let (states, partials) = scratch.split_at_mut(waves.states);
        let states = Shared::new(states);
        for wave in waves.all() {
            let places = Shared::new(&mut *partials);
            self.all_tasks(n_pieces * wave.len(), |task| {
                let (place, index) = (task / n_pieces, task % n_pieces);
                let (span, (tile, _)) = (wave.start + place, piece(index));
                let last = attention.positions[tile.first as usize..tile.last as usize].iter().max();
                if last.is_some_and(|last| *last as usize >= span * SPAN) {
                    attend(index, To::Partial { to: &places, start: place * waves.a_span, span });
                }
            });
            self.all_tasks(n_pieces, |index| {
                let ((tile, head), spans) = (piece(index), wave.clone());
                self.isa().run(Merge { attention, tile, head, spans, partials, states: &states, y: &out });
            });
        }
    }

    /// Runs any number of tasks: a step of very many tokens has more than the pool can number.
    fn all_tasks(&self, n_tasks: usize, run: impl Fn(usize) + Sync) {
        let per_batch = usize::from(u16::MAX);
        for first in (0..n_tasks).step_by(per_batch) {
            self.pool.par_for(per_batch.min(n_tasks - first), |task| run(first + task));
        }
    }
}

/// One head's keys or values of all rows, rounded into their slots.
struct Write<'a, E> {
    heads: Heads,
    qkv: &'a [f32],
    slots: &'a [u32],
    /// Where in a row they stand.
    column: usize,
    head: usize,
    arena: &'a Shared<'a, E>,
}

impl<E: Element> Kernel for Write<'_, E> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Heads { kv_heads, head_dim, .. } = self.heads;
        let stride = E::stored(head_dim);
        for (row, slot) in self.qkv.chunks_exact(self.heads.qkv_width()).zip(self.slots) {
            let (block, place) = (*slot as usize / CACHE_BLOCK, *slot as usize % CACHE_BLOCK);
            let start = ((block * kv_heads + self.head) * CACHE_BLOCK + place) * stride;
            let (from, _) = row[self.column..][..head_dim].as_chunks::<LANES>();
            // SAFETY: the place belongs to this head, which is one task's alone, and is taken once at a time.
            E::store(l, from, unsafe { self.arena.piece(start..start + stride) });
        }
    }
}

#[cfg(test)]
mod tests;
