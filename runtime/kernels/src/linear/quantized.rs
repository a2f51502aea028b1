//! The inner loops for quantized weights: exact integer dot products within a block, `f32` across blocks.

use super::Multiply;
use crate::activations::{Block, GROUP, Group};
use crate::format::TILE;
use crate::lanes::{LANES, Lanes};

/// `Σ d_w d_x (q_w · q_x) + m_w d_x Σ q_x`, block after block.
pub(super) struct Q4_1<'a> {
    pub(super) x: &'a [Group],
    pub(super) per_row: usize,
}

/// `Σ d_w d_x ((q_w − 8) · q_x)`, block after block.
pub(super) struct Q4_0<'a> {
    pub(super) x: &'a [Group],
    pub(super) per_row: usize,
}

/// `Σ d_w d_x (q_w · q_x)`, block after block.
pub(super) struct Q8_0<'a> {
    pub(super) x: &'a [Group],
    pub(super) per_row: usize,
}

/// The rows' blocks of each block of columns in turn.
#[inline(always)]
pub(super) fn blocks_of<const M: usize>(
    x: &[Group],
    per_row: usize,
    first_row: usize,
) -> impl Iterator<Item = &[Block; M]> {
    let (group, place) = (first_row / GROUP, first_row % GROUP);
    let groups = &x[group * per_row..][..per_row];
    groups.iter().map(move |group| group[place..place + M].try_into().expect("rows of one group"))
}

/// Asks for what stands where `block` does in the next tile.
///
/// With few rows the hardware reads ahead by itself, and better. With more there is so much to compute between two
/// reads that it does not, and a tile is far enough ahead for memory to answer in time.
#[inline(always)]
pub(super) fn prefetch_next<const M: usize, L: Lanes>(l: L, block: &[u8], tile: &[u8]) {
    if M < 4 {
        return;
    }
    for line in (0..block.len()).step_by(64) {
        l.prefetch(block.as_ptr().wrapping_add(tile.len() + line));
    }
}

#[inline(always)]
pub(super) fn group(bytes: &[u8], index: usize) -> &[u8; 4 * LANES] {
    bytes[index * 4 * LANES..(index + 1) * 4 * LANES].try_into().expect("a group of four columns")
}

#[inline(always)]
pub(super) fn halves(bytes: &[u8], index: usize) -> &[u8; 2 * LANES] {
    bytes[index * 2 * LANES..(index + 1) * 2 * LANES].try_into().expect("sixteen half floats")
}

impl<L: Lanes> Multiply<L> for Q4_1<'_> {
    #[inline(always)]
    fn rows<const M: usize>(&self, l: L, tile: &[u8], first_row: usize) -> [L::F32; M] {
        let x = blocks_of::<M>(self.x, self.per_row, first_row);
        let mut sums = [l.splat(0.0); M];
        let (blocks, _) = tile.as_chunks::<{ 20 * TILE }>();
        for (block, x) in blocks.iter().zip(x) {
            prefetch_next::<M, L>(l, block, tile);
            let mut dots = [l.start(0); M];
            for pair in 0..4 {
                let nibbles = l.bytes(group(&block[4 * TILE..], pair));
                let (low, high) = (l.low_nibbles(nibbles), l.high_nibbles(nibbles));
                for row in 0..M {
                    dots[row] = l.dot(dots[row], low, x[row].word(pair));
                    dots[row] = l.dot(dots[row], high, x[row].word(4 + pair));
                }
            }
            let scales = l.load_f16(halves(block, 0));
            let minima = l.load_f16(halves(block, 1));
            for row in 0..M {
                let scale = l.mul(scales, l.splat(x[row].scale));
                sums[row] = l.fma(l.to_f32(dots[row]), scale, sums[row]);
                sums[row] = l.fma(minima, l.splat(x[row].scaled_sum), sums[row]);
            }
        }
        sums
    }
}

impl<L: Lanes> Multiply<L> for Q4_0<'_> {
    #[inline(always)]
    fn rows<const M: usize>(&self, l: L, tile: &[u8], first_row: usize) -> [L::F32; M] {
        let x = blocks_of::<M>(self.x, self.per_row, first_row);
        let mut sums = [l.splat(0.0); M];
        let (blocks, _) = tile.as_chunks::<{ 18 * TILE }>();
        for (block, x) in blocks.iter().zip(x) {
            prefetch_next::<M, L>(l, block, tile);
            let mut dots = [l.start(0); M];
            for row in 0..M {
                dots[row] = l.start(x[row].bias / 16);
            }
            for pair in 0..4 {
                let nibbles = l.bytes(group(&block[2 * TILE..], pair));
                let (low, high) = (l.low_nibbles(nibbles), l.high_nibbles(nibbles));
                for row in 0..M {
                    dots[row] = l.dot(dots[row], low, x[row].word(pair));
                    dots[row] = l.dot(dots[row], high, x[row].word(4 + pair));
                }
            }
            let scales = l.load_f16(halves(block, 0));
            for row in 0..M {
                let scale = l.mul(scales, l.splat(x[row].scale));
                sums[row] = l.fma(l.to_f32(dots[row]), scale, sums[row]);
            }
        }
        sums
    }
}

impl<L: Lanes> Multiply<L> for Q8_0<'_> {
    #[inline(always)]
    fn rows<const M: usize>(&self, l: L, tile: &[u8], first_row: usize) -> [L::F32; M] {
        let x = blocks_of::<M>(self.x, self.per_row, first_row);
        let mut sums = [l.splat(0.0); M];
        let (blocks, _) = tile.as_chunks::<{ 34 * TILE }>();
        for (block, x) in blocks.iter().zip(x) {
            prefetch_next::<M, L>(l, block, tile);
            let mut dots = [l.start(0); M];
            for row in 0..M {
                dots[row] = l.zero_biased(x[row].bias);
            }
            for four in 0..8 {
                let weights = l.bytes(group(&block[2 * TILE..], four));
                for row in 0..M {
                    dots[row] = l.dot_biased(dots[row], weights, x[row].word(four));
                }
            }
            let scales = l.load_f16(halves(block, 0));
            for row in 0..M {
                let scale = l.mul(scales, l.splat(x[row].scale));
                sums[row] = l.fma(l.to_f32(dots[row]), scale, sums[row]);
            }
        }
        sums
    }
}
