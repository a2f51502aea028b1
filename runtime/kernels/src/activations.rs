//! Activations as the integer kernels take them: blocks of 32 signed bytes with a scale.

use crate::format::BLOCK;
use crate::isa::Kernel;
use crate::lanes::{LANES, Lanes};

/// Thirty-two activations, `x ≈ scale · quants`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(crate) struct Block {
    pub(crate) quants: [i8; BLOCK],
    pub(crate) scale: f32,
    /// The sum of the quants.
    pub(crate) sum: i32,
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

/// Quantizes `x`, as many whole blocks as `to` has.
pub(crate) struct Quantize<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) to: &'a mut [Block],
}

impl Kernel for Quantize<'_> {
    /// The scale is the largest size over 127; numbers go to the nearest multiple of it, ties to even.
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let (halves, _) = self.x.as_chunks::<LANES>();
        for (pair, block) in halves.chunks_exact(2).zip(self.to) {
            let (low, high) = (l.load(&pair[0]), l.load(&pair[1]));
            let largest = l.largest(l.max(l.abs(low), l.abs(high)));
            let inverse = l.splat(if largest > 0.0 { 127.0 / largest } else { 0.0 });
            let (low, high) = (l.to_i8(l.mul(low, inverse)), l.to_i8(l.mul(high, inverse)));
            let mut sum = 0;
            for lane in 0..LANES {
                // −128 cannot be multiplied on every instruction set; a tiny `largest` can round that far.
                block.quants[lane] = low[lane].max(-127);
                block.quants[LANES + lane] = high[lane].max(-127);
                sum += i32::from(block.quants[lane]) + i32::from(block.quants[LANES + lane]);
            }
            block.scale = largest / 127.0;
            block.sum = sum;
            block.scaled_sum = block.scale * sum as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    fn quantized(isa: Isa, x: &[f32]) -> Vec<Block> {
        let mut to = vec![Block::default(); x.len() / BLOCK];
        isa.run(Quantize { x, to: &mut to });
        to
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
