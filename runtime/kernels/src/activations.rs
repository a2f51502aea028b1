//! Activations as the integer kernels take them: blocks of 32 signed bytes with a scale.

use crate::format::BLOCK;
use crate::lanes::{Kernel, LANES, Lanes};

/// Thirty-two activations, `x ≈ scale · quants`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(crate) struct Block {
    pub(crate) quants: [i8; BLOCK],
    pub(crate) scale: f32,
    /// −128 times the sum of the quants: where a dot product with weights that carry a bias of 128 starts.
    pub(crate) bias: i32,
    /// −32 times the sum of the first sixteen, the same for weights with a bias of 32 and two scales a block.
    pub(crate) low_bias: i32,
    /// `scale · sum`, which a weight block's minimum is multiplied by.
    pub(crate) scaled_sum: f32,
}

impl Block {
    /// Quants `4 · group` and the three after it, in one word.
    #[inline(always)]
    pub(crate) fn word(&self, group: usize) -> i32 {
        let quants: &[i8; 4] = self.quants[4 * group..4 * group + 4].try_into().expect("four");
        i32::from_le_bytes(quants.map(i8::cast_unsigned))
    }
}

/// Rows that lie side by side, so that a kernel reads them all from one address.
pub(crate) const GROUP: usize = 8;

/// One block of each row of a group; rows that are not there keep whatever they had.
pub(crate) type Group = [Block; GROUP];

/// Quantizes up to [`GROUP`] rows of `x` into `to`, one group a block of columns.
pub(crate) struct Quantize<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) columns: usize,
    pub(crate) to: &'a mut [Group],
}

impl Kernel for Quantize<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for (row, x) in self.x.chunks_exact(self.columns).enumerate() {
            let (halves, _) = x.as_chunks::<LANES>();
            for (pair, group) in halves.chunks_exact(2).zip(self.to.iter_mut()) {
                quantize(l, &pair[0], &pair[1], &mut group[row]);
            }
        }
    }
}

/// The scale is the largest size over 127; numbers go to the nearest multiple of it, ties to even.
#[inline(always)]
fn quantize<L: Lanes>(l: L, low: &[f32; LANES], high: &[f32; LANES], block: &mut Block) {
    let (low, high) = (l.load(low), l.load(high));
    let largest = l.largest(l.max(l.abs(low), l.abs(high)));
    // Where a tiny `largest` has no finite inverse, everything becomes zero.
    let inverse = l.splat(if largest > 0.0 { (127.0 / largest).min(f32::MAX) } else { 0.0 });
    // What is no number becomes one that every instruction set can multiply.
    let whole = |x| l.max(l.round(l.mul(x, inverse)), l.splat(-127.0));
    let (low, high) = (whole(low), whole(high));
    let (low_quants, high_quants) = block.quants.split_at_mut(LANES);
    low_quants.copy_from_slice(&l.to_i8(low));
    high_quants.copy_from_slice(&l.to_i8(high));
    // A sum of so few small integers is exact in any order.
    let (low_sum, sum) = (l.sum(low), l.sum(l.add(low, high)));
    block.scale = largest / 127.0;
    block.bias = -128 * sum as i32;
    block.low_bias = -32 * low_sum as i32;
    block.scaled_sum = block.scale * sum;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    fn quantized(isa: Isa, x: &[f32]) -> Vec<Block> {
        let mut to = vec![Group::default(); x.len() / BLOCK];
        isa.run(Quantize { x, columns: x.len(), to: &mut to });
        to.into_iter().map(|group| group[0]).collect()
    }

    #[test]
    fn numbers_come_back_within_half_a_step() {
        let x: Vec<f32> = (0..64).map(|index| (index as f32 * 0.7).sin() * index as f32).collect();
        for isa in Isa::available() {
            let blocks = quantized(isa, &x);
            assert_eq!(blocks, quantized(Isa::scalar(), &x), "{}", isa.name());
            for (index, value) in x.iter().enumerate() {
                let block = &blocks[index / BLOCK];
                let back = block.scale * f32::from(block.quants[index % BLOCK]);
                assert!((back - value).abs() <= 0.501 * block.scale, "{value} came back as {back}");
            }
        }
    }

    #[test]
    fn zeros_and_tiny_numbers_have_no_infinite_scale() {
        for isa in Isa::available() {
            let mut x = [0.0f32; 64];
            x[40] = 1e-44;
            let blocks = quantized(isa, &x);
            assert_eq!(blocks[0], Block::default());
            assert!(blocks[1].scaled_sum.is_finite(), "{:?}", blocks[1]);
            assert!(blocks[1].quants.iter().all(|quant| *quant > -128));
        }
    }
}
