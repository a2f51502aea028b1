//! Sixteen lanes of numbers: the few operations that all kernels are written in.
//!
//! A value of an implementing type is the proof that the CPU has the instructions, so the operations are safe.
//! Every implementation gives the same bits: one rounding in `fma`, and `sum` adds halves to halves.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// The number of lanes.
pub(crate) const LANES: usize = 16;

/// A computation written over any lanes.
pub(crate) trait Kernel {
    /// Runs it. Implementations are `#[inline(always)]`, so that they are compiled for the instruction set of
    /// whoever calls.
    fn run<L: Lanes>(self, lanes: L);
}

/// Lane operations of one instruction set.
pub(crate) trait Lanes: Copy + Send + Sync {
    /// Sixteen `f32`.
    type F32: Copy;
    /// Sixteen `i32`.
    type I32: Copy;
    /// Sixteen groups of four bytes.
    type Bytes: Copy;

    /// How many rows of activations a linear kernel may keep in registers at once.
    const ROWS: usize;

    /// Asks for the cache line at an address, which need not be one: a hint that nothing depends on.
    fn prefetch(self, address: *const u8);

    fn splat(self, value: f32) -> Self::F32;
    /// A number of half precision in every lane.
    fn splat_f16(self, value: [u8; 2]) -> Self::F32;
    fn load(self, from: &[f32; LANES]) -> Self::F32;
    fn load_f16(self, from: &[u8; 2 * LANES]) -> Self::F32;
    fn load_bf16(self, from: &[u8; 2 * LANES]) -> Self::F32;
    fn store(self, value: Self::F32, to: &mut [f32; LANES]);
    /// Rounds to half precision, ties to even.
    fn store_f16(self, value: Self::F32, to: &mut [u8; 2 * LANES]);
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b + c` with one rounding.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn abs(self, a: Self::F32) -> Self::F32;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F32) -> Self::F32;
    /// Two to the power of integers between −126 and 127.
    fn exp2(self, a: Self::F32) -> Self::F32;
    /// The sum over the lanes: lanes 8 apart first, then 4, 2, 1.
    fn sum(self, a: Self::F32) -> f32;
    /// The first half of the way to the sums of four values: what [`Lanes::sums`] takes.
    fn fold(self, a: [Self::F32; 4]) -> Self::F32;
    /// The sums over the lanes of sixteen values, with the bits of [`Lanes::sum`]: lane `i + 4 · j` is that of the
    /// `j`-th value of `folded[i]`.
    fn sums(self, folded: &[Self::F32; 4]) -> Self::F32;
    /// The largest lane.
    fn largest(self, a: Self::F32) -> f32;
    /// Integers between −128 and 127 as bytes; others are rounded, ties to even.
    fn to_i8(self, a: Self::F32) -> [i8; LANES];

    fn to_f32(self, a: Self::I32) -> Self::F32;
    fn bytes(self, from: &[u8; 4 * LANES]) -> Self::Bytes;
    fn low_nibbles(self, a: Self::Bytes) -> Self::Bytes;
    fn high_nibbles(self, a: Self::Bytes) -> Self::Bytes;
    /// `low | ((high >> shift) & mask) << 4` for each byte; the mask takes nothing from beyond the byte.
    fn with_high(self, low: Self::Bytes, high: Self::Bytes, shift: u32, mask: u8) -> Self::Bytes;
    /// Little-endian words.
    fn words(self, from: &[u8; 4 * LANES]) -> Self::I32;
    /// Signed bytes.
    fn widen(self, from: &[u8; LANES]) -> Self::I32;
    /// `(a >> shift) & mask`, with zeros shifted in.
    fn bits(self, a: Self::I32, shift: u32, mask: i32) -> Self::I32;
    fn or(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Where a sum of [`Lanes::dot`] starts.
    fn start(self, value: i32) -> Self::I32;
    /// Adds to each lane the dot product of its four bytes (at most 63) with the four signed bytes of `x`.
    fn dot(self, sum: Self::I32, weights: Self::Bytes, x: i32) -> Self::I32;
    /// Where a sum of [`Lanes::dot_biased`] starts, if `bias` is −128 times the sum of the bytes of all its `x`.
    fn zero_biased(self, bias: i32) -> Self::I32;
    /// Adds to each lane the dot product of its four bytes minus 128 with the four signed bytes of `x`; right
    /// only once all `x` have been seen. No byte of `x` is −128.
    fn dot_biased(self, sum: Self::I32, weights: Self::Bytes, x: i32) -> Self::I32;

    /// Up to sixteen numbers, zero beyond.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::F32 {
        if let Ok(all) = from.try_into() {
            return self.load(all);
        }
        let mut all = [0.0; LANES];
        all[..from.len()].copy_from_slice(from);
        self.load(&all)
    }

    /// The first `to.len()` lanes.
    #[inline(always)]
    fn store_part(self, value: Self::F32, to: &mut [f32]) {
        if let Ok(all) = <&mut [f32; LANES]>::try_from(&mut *to) {
            return self.store(value, all);
        }
        let mut all = [0.0; LANES];
        self.store(value, &mut all);
        to.copy_from_slice(&all[..to.len()]);
    }
}
