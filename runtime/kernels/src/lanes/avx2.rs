//! AVX2 with FMA and F16C: sixteen lanes in two registers.

#![allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all of them, stated at `Avx2`")]

use std::arch::x86_64::*;

use super::{LANES, Lanes};
use crate::lanes::Kernel;

/// The proof that the CPU has the instructions below.
///
/// SAFETY of every block in this file: a value exists only where [`Avx2::detect`] found the features, and the
/// loads and stores go through references to arrays of at least their size, unaligned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

/// Two registers, lanes 0 to 7 first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<T>(T, T);

impl Avx2 {
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }

    /// Runs `kernel` in a function compiled for these instructions.
    pub(crate) fn run(self, kernel: impl Kernel) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled(lanes: Avx2, kernel: impl Kernel) {
            kernel.run(lanes);
        }
        unsafe { compiled(self, kernel) }
    }
}

/// Lanes 4 apart first, then 2, then 1.
///
/// # Safety
/// The CPU has AVX.
#[inline(always)]
pub(super) unsafe fn sum_of_eight(a: __m256) -> f32 {
    unsafe {
        let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
    }
}

/// Lanes 8 apart, then 4 apart, of two values: the first in the low half.
#[inline(always)]
fn fold_two(a: Pair<__m256>, b: Pair<__m256>) -> __m256 {
    unsafe {
        let (a, b) = (_mm256_add_ps(a.0, a.1), _mm256_add_ps(b.0, b.1));
        _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
    }
}

/// The rest of the way for eight values, two folded in each: pairs, then neighbours, of two registers at once.
#[inline(always)]
fn sums_of_folded(a: __m256, b: __m256, c: __m256, d: __m256) -> __m256 {
    unsafe {
        let low = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(a, c), _mm256_shuffle_ps::<0xee>(a, c));
        let high = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(b, d), _mm256_shuffle_ps::<0xee>(b, d));
        let ones = _mm256_add_ps(_mm256_shuffle_ps::<0x88>(low, high), _mm256_shuffle_ps::<0xdd>(low, high));
        _mm256_permute_ps::<0b11_01_10_00>(ones)
    }
}

#[inline(always)]
fn widen_f16(from: &[u8; 16]) -> __m256 {
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())) }
}

#[inline(always)]
fn widen_bf16(from: &[u8; 16]) -> __m256 {
    unsafe {
        let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
    }
}

/// The largest of eight lanes.
#[inline(always)]
fn largest_of_eight(a: __m256) -> f32 {
    unsafe {
        let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps::<1>(a, a)))
    }
}

/// Unsigned times signed bytes; neighbours' sums stay below 2¹⁵ because the weights are at most 63.
#[inline(always)]
fn dot(sum: __m256i, weights: __m256i, x: __m256i) -> __m256i {
    unsafe {
        let products = _mm256_maddubs_epi16(weights, x);
        _mm256_add_epi32(sum, _mm256_madd_epi16(products, _mm256_set1_epi16(1)))
    }
}

/// The sign goes from the weights to `x`, so that the products are unsigned times signed; with weights of at
/// most 128 and `x` of at most 127 in size, neighbours' sums stay below 2¹⁵.
#[inline(always)]
fn dot_signed(sum: __m256i, biased: __m256i, x: __m256i) -> __m256i {
    unsafe {
        let weights = _mm256_xor_si256(biased, _mm256_set1_epi8(-128));
        let products = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights));
        _mm256_add_epi32(sum, _mm256_madd_epi16(products, _mm256_set1_epi16(1)))
    }
}

#[inline(always)]
fn split<const N: usize, const HALF: usize, T>(from: &[T; N]) -> (&[T; HALF], &[T; HALF]) {
    let (low, high) = from.split_at(HALF);
    (low.try_into().expect("half"), high.try_into().expect("half"))
}

impl Lanes for Avx2 {
    type F32 = Pair<__m256>;
    type I32 = Pair<__m256i>;
    type Bytes = Pair<__m256i>;

    const ROWS: usize = 4;

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Pair<__m256> {
        let all = unsafe { _mm256_set1_ps(value) };
        Pair(all, all)
    }

    #[inline(always)]
    fn splat_f16(self, value: [u8; 2]) -> Pair<__m256> {
        let all = unsafe { _mm256_cvtph_ps(_mm_set1_epi16(i16::from_le_bytes(value))) };
        Pair(all, all)
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Pair<__m256> {
        unsafe { Pair(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from[8..].as_ptr())) }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 2 * LANES]) -> Pair<__m256> {
        let (low, high) = split(from);
        Pair(widen_f16(low), widen_f16(high))
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8; 2 * LANES]) -> Pair<__m256> {
        let (low, high) = split(from);
        Pair(widen_bf16(low), widen_bf16(high))
    }

    #[inline(always)]
    fn store(self, value: Pair<__m256>, to: &mut [f32; LANES]) {
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), value.0);
            _mm256_storeu_ps(to[8..].as_mut_ptr(), value.1);
        }
    }

    #[inline(always)]
    fn store_f16(self, value: Pair<__m256>, to: &mut [u8; 2 * LANES]) {
        unsafe {
            let low = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value.0);
            let high = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value.1);
            _mm_storeu_si128(to.as_mut_ptr().cast(), low);
            _mm_storeu_si128(to[LANES..].as_mut_ptr().cast(), high);
        }
    }

    #[inline(always)]
    fn add(self, a: Pair<__m256>, b: Pair<__m256>) -> Pair<__m256> {
        unsafe { Pair(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn mul(self, a: Pair<__m256>, b: Pair<__m256>) -> Pair<__m256> {
        unsafe { Pair(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn div(self, a: Pair<__m256>, b: Pair<__m256>) -> Pair<__m256> {
        unsafe { Pair(_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn fma(self, a: Pair<__m256>, b: Pair<__m256>, c: Pair<__m256>) -> Pair<__m256> {
        unsafe { Pair(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
    }

    #[inline(always)]
    fn max(self, a: Pair<__m256>, b: Pair<__m256>) -> Pair<__m256> {
        unsafe { Pair(_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn min(self, a: Pair<__m256>, b: Pair<__m256>) -> Pair<__m256> {
        unsafe { Pair(_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn abs(self, a: Pair<__m256>) -> Pair<__m256> {
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            Pair(_mm256_andnot_ps(sign, a.0), _mm256_andnot_ps(sign, a.1))
        }
    }

    #[inline(always)]
    fn round(self, a: Pair<__m256>) -> Pair<__m256> {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe { Pair(_mm256_round_ps::<NEAREST>(a.0), _mm256_round_ps::<NEAREST>(a.1)) }
    }

    #[inline(always)]
    fn exp2(self, a: Pair<__m256>) -> Pair<__m256> {
        unsafe {
            let offset = _mm256_set1_epi32(127);
            let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(a.0), offset));
            let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(a.1), offset));
            Pair(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }

    #[inline(always)]
    fn sum(self, a: Pair<__m256>) -> f32 {
        unsafe { sum_of_eight(_mm256_add_ps(a.0, a.1)) }
    }

    #[inline(always)]
    fn fold(self, a: [Pair<__m256>; 4]) -> Pair<__m256> {
        Pair(fold_two(a[0], a[1]), fold_two(a[2], a[3]))
    }

    #[inline(always)]
    fn sums(self, folded: &[Pair<__m256>; 4]) -> Pair<__m256> {
        let [a, b, c, d] = *folded;
        Pair(sums_of_folded(a.0, b.0, c.0, d.0), sums_of_folded(a.1, b.1, c.1, d.1))
    }

    #[inline(always)]
    fn largest(self, a: Pair<__m256>) -> f32 {
        unsafe { largest_of_eight(_mm256_max_ps(a.0, a.1)) }
    }

    #[inline(always)]
    fn to_i8(self, a: Pair<__m256>) -> [i8; LANES] {
        let mut bytes = [0; LANES];
        unsafe {
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(a.0), _mm256_cvtps_epi32(a.1));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let narrow = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), narrow);
        }
        bytes
    }

    #[inline(always)]
    fn to_f32(self, a: Pair<__m256i>) -> Pair<__m256> {
        unsafe { Pair(_mm256_cvtepi32_ps(a.0), _mm256_cvtepi32_ps(a.1)) }
    }

    #[inline(always)]
    fn bytes(self, from: &[u8; 4 * LANES]) -> Pair<__m256i> {
        unsafe {
            Pair(
                _mm256_loadu_si256(from.as_ptr().cast()),
                _mm256_loadu_si256(from[2 * LANES..].as_ptr().cast()),
            )
        }
    }

    #[inline(always)]
    fn low_nibbles(self, a: Pair<__m256i>) -> Pair<__m256i> {
        unsafe {
            let mask = _mm256_set1_epi8(15);
            Pair(_mm256_and_si256(a.0, mask), _mm256_and_si256(a.1, mask))
        }
    }

    #[inline(always)]
    fn high_nibbles(self, a: Pair<__m256i>) -> Pair<__m256i> {
        let shifted = unsafe { Pair(_mm256_srli_epi16::<4>(a.0), _mm256_srli_epi16::<4>(a.1)) };
        self.low_nibbles(shifted)
    }

    #[inline(always)]
    fn with_high(self, low: Pair<__m256i>, high: Pair<__m256i>, shift: u32, mask: u8) -> Pair<__m256i> {
        let join = |low, high| unsafe {
            let mask = _mm256_set1_epi8(mask.cast_signed());
            let high = _mm256_and_si256(_mm256_srl_epi16(high, _mm_cvtsi32_si128(shift as i32)), mask);
            _mm256_or_si256(low, _mm256_slli_epi16::<4>(high))
        };
        Pair(join(low.0, high.0), join(low.1, high.1))
    }

    #[inline(always)]
    fn words(self, from: &[u8; 4 * LANES]) -> Pair<__m256i> {
        self.bytes(from)
    }

    #[inline(always)]
    fn widen(self, from: &[u8; LANES]) -> Pair<__m256i> {
        unsafe {
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            Pair(_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)))
        }
    }

    #[inline(always)]
    fn bits(self, a: Pair<__m256i>, shift: u32, mask: i32) -> Pair<__m256i> {
        let bits = |a| unsafe {
            _mm256_and_si256(_mm256_srl_epi32(a, _mm_cvtsi32_si128(shift as i32)), _mm256_set1_epi32(mask))
        };
        Pair(bits(a.0), bits(a.1))
    }

    #[inline(always)]
    fn or(self, a: Pair<__m256i>, b: Pair<__m256i>) -> Pair<__m256i> {
        unsafe { Pair(_mm256_or_si256(a.0, b.0), _mm256_or_si256(a.1, b.1)) }
    }

    #[inline(always)]
    fn add_i32(self, a: Pair<__m256i>, b: Pair<__m256i>) -> Pair<__m256i> {
        unsafe { Pair(_mm256_add_epi32(a.0, b.0), _mm256_add_epi32(a.1, b.1)) }
    }

    #[inline(always)]
    fn mul_i32(self, a: Pair<__m256i>, b: Pair<__m256i>) -> Pair<__m256i> {
        unsafe { Pair(_mm256_mullo_epi32(a.0, b.0), _mm256_mullo_epi32(a.1, b.1)) }
    }

    #[inline(always)]
    fn start(self, value: i32) -> Pair<__m256i> {
        let all = unsafe { _mm256_set1_epi32(value) };
        Pair(all, all)
    }

    #[inline(always)]
    fn dot(self, sum: Pair<__m256i>, weights: Pair<__m256i>, x: i32) -> Pair<__m256i> {
        let x = unsafe { _mm256_set1_epi32(x) };
        Pair(dot(sum.0, weights.0, x), dot(sum.1, weights.1, x))
    }

    #[inline(always)]
    fn zero_biased(self, _bias: i32) -> Pair<__m256i> {
        self.start(0)
    }

    #[inline(always)]
    fn dot_biased(self, sum: Pair<__m256i>, weights: Pair<__m256i>, x: i32) -> Pair<__m256i> {
        let x = unsafe { _mm256_set1_epi32(x) };
        Pair(dot_signed(sum.0, weights.0, x), dot_signed(sum.1, weights.1, x))
    }
}
