//! The inner loops of attention: a few tokens and the query heads of one key-value head, block by block.
//!
//! A context is cut into spans with a softmax each, which are merged in their order: one task may do so for all of them,
//! or each be a task's. Query rows that see equally much of a block go through it together, so that a key or value is loaded once for all of
//! them. Each row's numbers are added up in the same order as if it were alone.

#![allow(clippy::needless_range_loop, reason = "rows, keys and registers index several arrays at once")]

use super::element::Element;
use super::{Attention, CACHE_BLOCK, MAX_HEAD_DIM, TokenTile};
use crate::exp::exp;
use crate::lanes::{Kernel, LANES, Lanes};
use crate::shared::Shared;

/// Query rows whose state is kept while the cache streams past.
const ROWS: usize = 24;

/// Registers of a head that weighted values are added up in at once.
const QUAD: usize = 4;

/// Blocks of a span.
const SPAN_BLOCKS: usize = 16;

/// Positions whose scores share a softmax before it is merged with those of earlier ones. Spans begin at multiples of
/// it whoever handles them, so that a result does not depend on that.
pub(super) const SPAN: usize = SPAN_BLOCKS * CACHE_BLOCK;

/// Numbers of a softmax's state behind its weighted sums.
pub(super) const TAIL: usize = 2;

/// Bytes of a cache line.
const LINE: usize = 64;

/// The tokens of `tile` for the query heads of key-value head `head`.
#[derive(Clone, Copy)]
pub(super) struct Attend<'a, E> {
    pub(super) attention: &'a Attention<'a>,
    pub(super) tile: TokenTile,
    pub(super) head: usize,
    pub(super) qkv: &'a [f32],
    pub(super) keys: &'a [E],
    pub(super) values: &'a [E],
    pub(super) to: To<'a>,
}

/// Where results go.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    /// Results of whole contexts, side by side: `[tokens, heads, head_dim]`.
    Results(&'a Shared<'a, f32>),
    /// What one span adds to them, `[tokens, heads, head_dim + TAIL]`: weighted sums, then the softmax's state.
    Partial {
        /// The scratch.
        to: &'a Shared<'a, f32>,
        /// Where in it this span's place begins.
        start: usize,
        /// Which span.
        span: usize,
    },
}

/// One query: where it is read from and its result goes, and the softmax so far.
#[derive(Clone, Copy)]
struct Row {
    query: usize,
    /// Where its weighted sum of values is added up.
    result: usize,
    position: usize,
    softmax: Softmax,
}

/// A softmax under way.
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    /// The largest score so far.
    pub(super) largest: f32,
    /// The sum of `exp(score - largest)` so far.
    pub(super) sum: f32,
}

impl Softmax {
    const START: Self = Self { largest: f32::NEG_INFINITY, sum: 0.0 };

    /// Takes in `other`, whose weighted values `theirs` are relative to its own largest score, as `sums` are to this
    /// one's.
    #[inline(always)]
    pub(super) fn merge<L: Lanes>(&mut self, l: L, sums: &mut [f32], other: Self, theirs: &[f32]) {
        let largest = if other.largest > self.largest { other.largest } else { self.largest };
        let factors = [self.largest, other.largest].map(|score| exp(l, l.splat(score - largest)));
        let [ours, other_factor] = factors.map(|factor| {
            let mut lanes = [0.0; LANES];
            l.store(factor, &mut lanes);
            lanes[0]
        });
        let (sums, theirs) = (sums.as_chunks_mut::<LANES>().0, theirs.as_chunks::<LANES>().0);
        for (sum, their) in sums.iter_mut().zip(theirs) {
            let scaled = l.mul(l.load(sum), factors[0]);
            l.store(l.fma(l.load(their), factors[1], scaled), sum);
        }
        *self = Self { largest, sum: self.sum * ours + other.sum * other_factor };
    }

    /// What makes weighted sums the result.
    pub(super) fn divide(self, sums: &mut [f32]) {
        let inverse = 1.0 / self.sum;
        for sum in sums {
            *sum *= inverse;
        }
    }
}

impl Row {
    const NONE: Self = Self { query: 0, result: 0, position: 0, softmax: Softmax::START };

    /// How many positions of the `index`-th block it sees.
    fn seen(&self, index: usize) -> usize {
        (self.position + 1).saturating_sub(index * CACHE_BLOCK).min(CACHE_BLOCK)
    }
}

/// The keys and values of one head in one block, as far as they are seen.
#[derive(Clone, Copy)]
struct Seen<'a, E> {
    keys: &'a [E],
    values: &'a [E],
    n_keys: usize,
    /// From here to the same place of the next block, for the first rows that come by.
    ahead: Option<isize>,
    /// Where weighted values are added up.
    to: &'a Shared<'a, f32>,
}

impl<'a, E> Seen<'a, E> {
    #[inline(always)]
    fn key(&self, index: usize) -> &'a [E] {
        let stride = self.keys.len() / self.n_keys;
        &self.keys[index * stride..][..stride]
    }
}

impl<E: Element> Kernel for Attend<'_, E> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let heads = self.attention.heads;
        let group = heads.heads / heads.kv_heads;
        let n_rows = (self.tile.last - self.tile.first) as usize * group;
        for first in (0..n_rows).step_by(ROWS) {
            let mut rows = [Row::NONE; ROWS];
            let rows = &mut rows[..ROWS.min(n_rows - first)];
            for (row, index) in rows.iter_mut().zip(first..) {
                let token = self.tile.first as usize + index / group;
                let head = self.head * group + index % group;
                let (start, width) = match self.to {
                    To::Results(_) => (0, heads.head_dim),
                    To::Partial { start, .. } => (start, heads.head_dim + TAIL),
                };
                *row = Row {
                    query: token * heads.qkv_width() + head * heads.head_dim,
                    result: start + (token * heads.heads + head) * width,
                    position: self.attention.positions[token] as usize,
                    softmax: Softmax::START,
                };
            }
            self.rows(l, rows);
        }
    }
}

impl<E: Element> Attend<'_, E> {
    #[inline(always)]
    fn rows<L: Lanes>(&self, l: L, rows: &mut [Row]) {
        let head_dim = self.attention.heads.head_dim;
        let last = rows.iter().map(|row| row.position).max().unwrap_or(0) / SPAN;
        let (to, spans) = match self.to {
            To::Results(to) => (to, 0..=last),
            To::Partial { to, span, .. } => (to, span..=span),
        };
        let mut numbers;
        let further = if spans.start() < spans.end() {
            numbers = [0.0; ROWS * MAX_HEAD_DIM];
            Shared::new(&mut numbers)
        } else {
            Shared::new(&mut [])
        };
        for span in spans.clone() {
            if span == *spans.start() {
                self.span(l, rows, span, to);
                continue;
            }
            let mut parts = [Row::NONE; ROWS];
            let parts = &mut parts[..rows.len()];
            for (index, (part, row)) in parts.iter_mut().zip(&*rows).enumerate() {
                *part = Row { result: index * head_dim, softmax: Softmax::START, ..*row };
            }
            self.span(l, parts, span, &further);
            for (row, part) in rows.iter_mut().zip(&*parts) {
                if part.position >= span * SPAN {
                    let theirs = sums(&further, part, head_dim);
                    row.softmax.merge(l, sums(to, row, head_dim), part.softmax, theirs);
                }
            }
        }
        for row in rows {
            match self.to {
                To::Results(to) => row.softmax.divide(sums(to, row, head_dim)),
                To::Partial { to, .. } => {
                    let Softmax { largest, sum } = row.softmax;
                    let end = row.result + head_dim;
                    // SAFETY: the tail of a row of one task.
                    unsafe { to.piece(end..end + TAIL) }.copy_from_slice(&[largest, sum]);
                }
            }
        }
    }

    /// Adds up what the rows see of a span: a softmax of its own for each, with weighted sums in `to`.
    #[inline(always)]
    fn span<L: Lanes>(&self, l: L, rows: &mut [Row], span: usize, to: &Shared<'_, f32>) {
        let Attention { heads, tables, .. } = *self.attention;
        let table = tables.table(self.tile.sequence);
        let stride = E::stored(heads.head_dim);
        let start = |block: u32| (block as usize * heads.kv_heads + self.head) * CACHE_BLOCK * stride;
        let most = if L::ROWS >= 4 { 4 } else { 1 };
        let mut last = 0;
        for row in &*rows {
            sums(to, row, heads.head_dim).fill(0.0);
            last = last.max(row.position);
        }
        let blocks = span * SPAN_BLOCKS..=(last / CACHE_BLOCK).min((span + 1) * SPAN_BLOCKS - 1);
        for index in blocks {
            let here = start(table[index]);
            let mut ahead = table.get(index + 1).map(|next| start(*next) as isize - here as isize);
            let mut left = &mut rows[..];
            while let Some(n_keys) = left.first().map(|row| row.seen(index)) {
                let alike = left.iter().take(most).take_while(|row| row.seen(index) == n_keys).count();
                let (now, later) = left.split_at_mut(alike);
                left = later;
                let end = here + n_keys * stride;
                let (keys, values) = (&self.keys[here..end], &self.values[here..end]);
                let seen = Seen { keys, values, n_keys, ahead, to };
                if n_keys == 0 {
                    continue;
                }
                ahead = None;
                match now.len() {
                    4 => self.block::<L, 4>(l, now, seen),
                    3 => self.block::<L, 3>(l, now, seen),
                    2 => self.block::<L, 2>(l, now, seen),
                    _ => self.block::<L, 1>(l, now, seen),
                }
            }
        }
    }

    /// Adds the keys that `rows` see of one block to their softmaxes and their weighted sums of values.
    #[inline(always)]
    fn block<L: Lanes, const R: usize>(&self, l: L, rows: &mut [Row], seen: Seen<'_, E>) {
        let mut scores = [[f32::NEG_INFINITY; CACHE_BLOCK]; R];
        self.scores(l, rows, seen, &mut scores);
        for row in 0..R {
            let sums = sums(seen.to, &rows[row], self.attention.heads.head_dim);
            soften(l, &mut rows[row].softmax, &mut scores[row], seen.n_keys, sums);
        }
        self.weigh(l, rows, seen, &scores);
    }

    /// Scaled dot products of the queries with the keys, sixteen keys at a time.
    #[inline(always)]
    fn scores<L: Lanes, const R: usize>(
        &self,
        l: L,
        rows: &[Row],
        seen: Seen<'_, E>,
        scores: &mut [[f32; CACHE_BLOCK]; R],
    ) {
        let head_dim = self.attention.heads.head_dim;
        let mut queries = [&[][..]; R];
        for row in 0..R {
            queries[row] = self.qkv[rows[row].query..][..head_dim].as_chunks::<LANES>().0;
        }
        for (first, place) in (0..seen.n_keys).step_by(LANES).zip(0..) {
            let mut folded = [[l.splat(0.0); 4]; R];
            for index in 0..4 {
                let dots = if first + LANES <= seen.n_keys {
                    four_dots(l, &queries, seen, first + index)
                } else {
                    some_dots(l, &queries, seen, first + index)
                };
                for row in 0..R {
                    folded[row][index] = dots[row];
                }
            }
            for row in 0..R {
                let (halves, _) = scores[row].as_chunks_mut::<LANES>();
                let sums = l.mul(l.sums(&folded[row]), l.splat(self.attention.scale));
                l.store(sums, &mut halves[place]);
            }
        }
    }

    /// `sums += Σ weights[i] · values[i]` for each row, some registers of a head at a time.
    #[inline(always)]
    fn weigh<L: Lanes, const R: usize>(
        &self,
        l: L,
        rows: &[Row],
        seen: Seen<'_, E>,
        weights: &[[f32; CACHE_BLOCK]; R],
    ) {
        let parts = self.attention.heads.head_dim / LANES;
        let mut first = 0;
        while first + QUAD <= parts {
            self.weigh_parts::<L, R, QUAD>(l, rows, seen, (weights, first));
            first += QUAD;
        }
        while first < parts {
            self.weigh_parts::<L, R, 1>(l, rows, seen, (weights, first));
            first += 1;
        }
    }

    #[inline(always)]
    fn weigh_parts<L: Lanes, const R: usize, const P: usize>(
        &self,
        l: L,
        rows: &[Row],
        seen: Seen<'_, E>,
        (weights, first): (&[[f32; CACHE_BLOCK]; R], usize),
    ) {
        let stride = seen.values.len() / seen.n_keys;
        let head_dim = self.attention.heads.head_dim;
        let mut added = [[l.splat(0.0); P]; R];
        for row in 0..R {
            let (from, _) = sums(seen.to, &rows[row], head_dim)[first * LANES..].as_chunks::<LANES>();
            for part in 0..P {
                added[row][part] = l.load(&from[part]);
            }
        }
        for (key, value) in seen.values.chunks_exact(stride).enumerate() {
            if first == 0 {
                prefetch(l, value, seen.ahead);
            }
            let mut wide = [l.splat(0.0); P];
            for part in 0..P {
                wide[part] = E::load(l, value, first + part);
            }
            for row in 0..R {
                let weight = l.splat(weights[row][key]);
                for part in 0..P {
                    added[row][part] = l.fma(weight, wide[part], added[row][part]);
                }
            }
        }
        for row in 0..R {
            let (to, _) = sums(seen.to, &rows[row], head_dim)[first * LANES..].as_chunks_mut::<LANES>();
            for part in 0..P {
                l.store(added[row][part], &mut to[part]);
            }
        }
    }
}

/// Where `row` adds up its values. Each row is taken once at a time.
#[allow(clippy::mut_from_ref, reason = "the rows of a task have places of their own")]
#[inline(always)]
fn sums<'a>(to: &'a Shared<'_, f32>, row: &Row, head_dim: usize) -> &'a mut [f32] {
    // SAFETY: a place belongs to one token and head, hence to one row of one task, and callers hold it only while they
    // handle that row.
    unsafe { to.piece(row.result..row.result + head_dim) }
}

/// Asks for what lies `ahead` of `row`.
#[inline(always)]
fn prefetch<L: Lanes, E>(l: L, row: &[E], ahead: Option<isize>) {
    let Some(ahead) = ahead else { return };
    let start = row.as_ptr().wrapping_offset(ahead).cast::<u8>();
    for line in (0..size_of_val(row)).step_by(LINE) {
        l.prefetch(start.wrapping_add(line));
    }
}

/// Products of a key, and of those 4, 8 and 12 later, with each query, folded.
#[inline(always)]
fn four_dots<L: Lanes, E: Element, const R: usize>(
    l: L,
    queries: &[&[[f32; LANES]]; R],
    seen: Seen<'_, E>,
    key: usize,
) -> [L::F32; R] {
    let mut keys = [&[][..]; 4];
    for index in 0..4 {
        keys[index] = seen.key(key + 4 * index);
        prefetch(l, keys[index], seen.ahead);
    }
    let mut sums = [[l.splat(0.0); 4]; R];
    for part in 0..queries[0].len() {
        let wide = [
            E::load(l, keys[0], part),
            E::load(l, keys[1], part),
            E::load(l, keys[2], part),
            E::load(l, keys[3], part),
        ];
        for row in 0..R {
            let query = l.load(&queries[row][part]);
            for index in 0..4 {
                sums[row][index] = l.fma(query, wide[index], sums[row][index]);
            }
        }
    }
    let mut folded = [l.splat(0.0); R];
    for row in 0..R {
        folded[row] = l.fold(sums[row]);
    }
    folded
}

/// The same for those of the four keys that are seen; the others give zero.
#[inline(always)]
fn some_dots<L: Lanes, E: Element, const R: usize>(
    l: L,
    queries: &[&[[f32; LANES]]; R],
    seen: Seen<'_, E>,
    key: usize,
) -> [L::F32; R] {
    let mut folded = [l.splat(0.0); R];
    for row in 0..R {
        let mut sums = [l.splat(0.0); 4];
        for index in 0..4 {
            if key + 4 * index < seen.n_keys {
                let key = seen.key(key + 4 * index);
                for (part, query) in queries[row].iter().enumerate() {
                    sums[index] = l.fma(l.load(query), E::load(l, key, part), sums[index]);
                }
            }
        }
        folded[row] = l.fold(sums);
    }
    folded
}

/// Turns a row's scores into weights relative to the largest score so far, and adds them to its softmax.
#[inline(always)]
fn soften<L: Lanes>(
    l: L,
    row: &mut Softmax,
    scores: &mut [f32; CACHE_BLOCK],
    n_keys: usize,
    sums: &mut [f32],
) {
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
}
