//! The portable lanes: plain loops. What they compute is what the others have to compute.

use half::{bf16, f16};

use super::{LANES, Lanes};

/// Plain loops over arrays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar {
    /// Added to every integer dot product: zero, except in the deliberately wrong kernels.
    error: i32,
}

impl Scalar {
    pub(crate) fn right() -> Self {
        Self { error: 0 }
    }

    #[cfg(any(test, feature = "faulty"))]
    pub(crate) fn wrong() -> Self {
        Self { error: 3 }
    }
}

#[inline(always)]
fn map<T, U>(a: [T; LANES], f: impl Fn(T) -> U) -> [U; LANES] {
    a.map(f)
}

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

#[inline(always)]
fn halves(from: &[u8; 2 * LANES]) -> [u16; LANES] {
    std::array::from_fn(|lane| u16::from_le_bytes([from[2 * lane], from[2 * lane + 1]]))
}

/// The dot products of four bytes, less `bias`, with the four signed bytes of `x`.
#[inline(always)]
fn dot(weights: &[u8; 4 * LANES], bias: i32, x: i32, lane: usize) -> i32 {
    let x = x.to_le_bytes().map(|byte| i32::from(byte as i8));
    (0..4).map(|byte| (i32::from(weights[4 * lane + byte]) - bias) * x[byte]).sum()
}

impl Lanes for Scalar {
    type F32 = [f32; LANES];
    type I32 = [i32; LANES];
    type Bytes = [u8; 4 * LANES];

    const ROWS: usize = 1;

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn splat_f16(self, value: [u8; 2]) -> [f32; LANES] {
        [f16::from_le_bytes(value).to_f32(); LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> [f32; LANES] {
        *from
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 2 * LANES]) -> [f32; LANES] {
        map(halves(from), |bits| f16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8; 2 * LANES]) -> [f32; LANES] {
        map(halves(from), |bits| bf16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    fn store(self, value: [f32; LANES], to: &mut [f32; LANES]) {
        *to = value;
    }

    #[inline(always)]
    fn store_f16(self, value: [f32; LANES], to: &mut [u8; 2 * LANES]) {
        for (to, value) in to.as_chunks_mut::<2>().0.iter_mut().zip(value) {
            *to = f16::from_f32(value).to_le_bytes();
        }
    }

    #[inline(always)]
    fn add(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn mul(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn fma(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    }

    #[inline(always)]
    fn max(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self, a: [f32; LANES]) -> [f32; LANES] {
        map(a, f32::abs)
    }

    #[inline(always)]
    fn round(self, a: [f32; LANES]) -> [f32; LANES] {
        map(a, f32::round_ties_even)
    }

    #[inline(always)]
    fn exp2(self, a: [f32; LANES]) -> [f32; LANES] {
        map(a, |power| f32::from_bits(((power as i32 + 127) << 23) as u32))
    }

    #[inline(always)]
    fn sum(self, mut a: [f32; LANES]) -> f32 {
        for distance in [8, 4, 2, 1] {
            for lane in 0..distance {
                a[lane] += a[lane + distance];
            }
        }
        a[0]
    }

    #[inline(always)]
    fn fold(self, a: [[f32; LANES]; 4]) -> [f32; LANES] {
        let fold = |a: [f32; LANES], lane: usize| (a[lane] + a[lane + 8]) + (a[lane + 4] + a[lane + 12]);
        std::array::from_fn(|place| fold(a[place / 4], place % 4))
    }

    #[inline(always)]
    fn sums(self, folded: &[[f32; LANES]; 4]) -> [f32; LANES] {
        let sum = |from: &[f32]| (from[0] + from[2]) + (from[1] + from[3]);
        std::array::from_fn(|lane| sum(&folded[lane % 4][lane / 4 * 4..]))
    }

    #[inline(always)]
    fn largest(self, a: [f32; LANES]) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn to_i8(self, a: [f32; LANES]) -> [i8; LANES] {
        map(a, |value| value.round_ties_even() as i8)
    }

    #[inline(always)]
    fn to_f32(self, a: [i32; LANES]) -> [f32; LANES] {
        map(a, |value| value as f32)
    }

    #[inline(always)]
    fn bytes(self, from: &[u8; 4 * LANES]) -> [u8; 4 * LANES] {
        *from
    }

    #[inline(always)]
    fn low_nibbles(self, a: [u8; 4 * LANES]) -> [u8; 4 * LANES] {
        a.map(|byte| byte & 15)
    }

    #[inline(always)]
    fn high_nibbles(self, a: [u8; 4 * LANES]) -> [u8; 4 * LANES] {
        a.map(|byte| byte >> 4)
    }

    #[inline(always)]
    fn with_high(self, low: [u8; 4 * LANES], high: [u8; 4 * LANES], shift: u32, mask: u8) -> [u8; 4 * LANES] {
        std::array::from_fn(|byte| low[byte] | ((high[byte] >> shift) & mask) << 4)
    }

    #[inline(always)]
    fn words(self, from: &[u8; 4 * LANES]) -> [i32; LANES] {
        std::array::from_fn(|lane| i32::from_le_bytes(std::array::from_fn(|byte| from[4 * lane + byte])))
    }

    #[inline(always)]
    fn widen(self, from: &[u8; LANES]) -> [i32; LANES] {
        map(*from, |byte| i32::from(byte.cast_signed()))
    }

    #[inline(always)]
    fn bits(self, a: [i32; LANES], shift: u32, mask: i32) -> [i32; LANES] {
        map(a, |word| (word.cast_unsigned() >> shift).cast_signed() & mask)
    }

    #[inline(always)]
    fn or(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|lane| a[lane] | b[lane])
    }

    #[inline(always)]
    fn add_i32(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn mul_i32(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn start(self, value: i32) -> [i32; LANES] {
        [value + self.error; LANES]
    }

    #[inline(always)]
    fn dot(self, sum: [i32; LANES], weights: [u8; 4 * LANES], x: i32) -> [i32; LANES] {
        std::array::from_fn(|lane| sum[lane] + dot(&weights, 0, x, lane))
    }

    #[inline(always)]
    fn zero_biased(self, _bias: i32) -> [i32; LANES] {
        [self.error; LANES]
    }

    #[inline(always)]
    fn dot_biased(self, sum: [i32; LANES], weights: [u8; 4 * LANES], x: i32) -> [i32; LANES] {
        std::array::from_fn(|lane| sum[lane] + dot(&weights, 128, x, lane))
    }
}
