//! The inner loops for ggml's K formats: superblocks of 256 columns with small integer scales for parts of them.

use super::Multiply;
use super::quantized::{group, halves, prefetch_next};
use crate::activations::{Block, GROUP, Group};
use crate::format::TILE;
use crate::lanes::{LANES, Lanes};

/// Activation blocks of a superblock.
const PARTS: usize = 8;

/// `Σ d s d_x (q_w · q_x) − m t d_x Σ q_x` with six-bit `s` and `t` for every 32 columns. `BYTES` is a tile's block.
pub(super) struct Scaled<'a, const BYTES: usize> {
    pub(super) x: &'a [Group],
    pub(super) per_row: usize,
}

/// Four-bit quants.
pub(super) type Q4K<'a> = Scaled<'a, { 144 * TILE }>;

/// Five-bit quants, the fifth bits apart.
pub(super) type Q5K<'a> = Scaled<'a, { 176 * TILE }>;

/// `Σ d d_x Σ s ((q_w − 32) · q_x)` with a signed byte `s` for every 16 columns.
pub(super) struct Q6K<'a> {
    pub(super) x: &'a [Group],
    pub(super) per_row: usize,
}

/// The activations of each superblock of a group of rows.
#[inline(always)]
fn superblocks(x: &[Group], per_row: usize, first_row: usize) -> impl Iterator<Item = &[Group; PARTS]> {
    x[first_row / GROUP * per_row..][..per_row].as_chunks::<PARTS>().0.iter()
}

#[inline(always)]
fn rows_of<const M: usize>(group: &Group, first_row: usize) -> &[Block; M] {
    group[first_row % GROUP..][..M].try_into().expect("rows of one group")
}

/// The six-bit scale and minimum of a part, from the three words that hold all sixteen: those of the first four parts
/// lie in the low bits of the bytes of two words, the others in the third word and the bits left over.
#[inline(always)]
fn six_bits<L: Lanes>(l: L, words: &[L::I32; 3], part: usize) -> (L::F32, L::F32) {
    let shift = 8 * (part % 4) as u32;
    let (scale, minimum) = if part < 4 {
        (l.bits(words[0], shift, 63), l.bits(words[1], shift, 63))
    } else {
        let high = |word| l.bits(word, shift + 2, 0x30);
        let low = |shift| l.bits(words[2], shift, 15);
        (l.or(low(shift), high(words[0])), l.or(low(shift + 4), high(words[1])))
    };
    (l.to_f32(scale), l.to_f32(minimum))
}

impl<L: Lanes, const BYTES: usize> Multiply<L> for Scaled<'_, BYTES> {
    #[inline(always)]
    fn rows<const M: usize>(&self, l: L, tile: &[u8], first_row: usize) -> [L::F32; M] {
        const FIFTH_BITS: usize = 16 * TILE;
        let has_fifth = BYTES == 176 * TILE;
        let quants = if has_fifth { 48 * TILE } else { 16 * TILE };
        let mut sums = [l.splat(0.0); M];
        let (blocks, _) = tile.as_chunks::<BYTES>();
        for (block, x) in blocks.iter().zip(superblocks(self.x, self.per_row, first_row)) {
            prefetch_next::<M, L>(l, block, tile);
            let (scales, minima) = (l.load_f16(halves(block, 0)), l.load_f16(halves(block, 1)));
            let words = std::array::from_fn(|word| l.words(group(&block[4 * TILE..], word)));
            for part in 0..PARTS {
                let x = rows_of::<M>(&x[part], first_row);
                let mut dots = [l.start(0); M];
                for four in 0..8 {
                    let nibbles = l.bytes(group(&block[quants..], part / 2 * 8 + four));
                    let mut weights =
                        if part % 2 == 0 { l.low_nibbles(nibbles) } else { l.high_nibbles(nibbles) };
                    if has_fifth {
                        let bits = l.bytes(group(&block[FIFTH_BITS..], four));
                        weights = l.with_high(weights, bits, part as u32, 1);
                    }
                    for row in 0..M {
                        dots[row] = l.dot(dots[row], weights, x[row].word(four));
                    }
                }
                let (scale, minimum) = six_bits(l, &words, part);
                let scale = l.mul(scales, scale);
                let minimum = l.mul(l.mul(minima, minimum), l.splat(-1.0));
                for row in 0..M {
                    let scale = l.mul(scale, l.splat(x[row].scale));
                    sums[row] = l.fma(l.to_f32(dots[row]), scale, sums[row]);
                    sums[row] = l.fma(minimum, l.splat(x[row].scaled_sum), sums[row]);
                }
            }
        }
        sums
    }
}

impl<L: Lanes> Multiply<L> for Q6K<'_> {
    #[inline(always)]
    fn rows<const M: usize>(&self, l: L, tile: &[u8], first_row: usize) -> [L::F32; M] {
        const HIGH_BITS: usize = 128 * TILE;
        const SCALES: usize = 192 * TILE;
        const SCALE: usize = 208 * TILE;
        let mut sums = [l.splat(0.0); M];
        let (blocks, _) = tile.as_chunks::<{ 210 * TILE }>();
        for (block, x) in blocks.iter().zip(superblocks(self.x, self.per_row, first_row)) {
            prefetch_next::<M, L>(l, block, tile);
            let scales = l.load_f16(halves(&block[SCALE..], 0));
            for part in 0..PARTS {
                let x = rows_of::<M>(&x[part], first_row);
                let (half, quarter) = (part / 4, part % 4);
                let mut scaled = [l.start(0); M];
                for side in 0..2 {
                    let mut dots = [l.start(0); M];
                    for row in 0..M {
                        let Block { bias, low_bias, .. } = x[row];
                        dots[row] = l.start(if side == 0 { low_bias } else { bias / 4 - low_bias });
                    }
                    for four in 4 * side..4 * side + 4 {
                        let nibbles = l.bytes(group(block, half * 16 + quarter % 2 * 8 + four));
                        let low = if quarter < 2 { l.low_nibbles(nibbles) } else { l.high_nibbles(nibbles) };
                        let high = l.bytes(group(&block[HIGH_BITS..], half * 8 + four));
                        let weights = l.with_high(low, high, 2 * quarter as u32, 3);
                        for row in 0..M {
                            dots[row] = l.dot(dots[row], weights, x[row].word(four));
                        }
                    }
                    let bytes = &block[SCALES + (2 * part + side) * LANES..][..LANES];
                    let scale = l.widen(bytes.try_into().expect("sixteen bytes"));
                    for row in 0..M {
                        scaled[row] = l.add_i32(scaled[row], l.mul_i32(dots[row], scale));
                    }
                }
                for row in 0..M {
                    let scale = l.mul(scales, l.splat(x[row].scale));
                    sums[row] = l.fma(l.to_f32(scaled[row]), scale, sums[row]);
                }
            }
        }
        sums
    }
}
