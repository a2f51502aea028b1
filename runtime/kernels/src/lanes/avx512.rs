//! AVX-512 with VNNI: one register for sixteen lanes, four byte products added up by one instruction.

#![allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all of them, stated at `Avx512`")]

use std::arch::x86_64::*;

use super::{LANES, Lanes};
use crate::lanes::Kernel;

/// The proof that the CPU has the instructions below.
///
/// SAFETY of every block in this file: a value exists only where [`Avx512::detect`] found the features, and the
/// loads and stores go through references to arrays of exactly their size, unaligned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }

    /// Runs `kernel` in a function compiled for these instructions.
    pub(crate) fn run(self, kernel: impl Kernel) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn compiled(lanes: Avx512, kernel: impl Kernel) {
            kernel.run(lanes);
        }
        unsafe { compiled(self, kernel) }
    }
}

impl Lanes for Avx512 {
    type F32 = __m512;
    type I32 = __m512i;
    type Bytes = __m512i;

    const ROWS: usize = 8;

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn splat_f16(self, value: [u8; 2]) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes(value))) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m512 {
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 2 * LANES]) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8; 2 * LANES]) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    fn store(self, value: __m512, to: &mut [f32; LANES]) {
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) }
    }

    #[inline(always)]
    fn store_f16(self, value: __m512, to: &mut [u8; 2 * LANES]) {
        unsafe {
            let narrow = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), narrow);
        }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(a) }
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn exp2(self, a: __m512) -> __m512 {
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        }
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        unsafe {
            let a = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            super::avx2::sum_of_eight(a)
        }
    }

    /// Halves, then quarters, of two values at once.
    #[inline(always)]
    fn fold(self, [a, b, c, d]: [__m512; 4]) -> __m512 {
        unsafe {
            let low = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, c), _mm512_shuffle_f32x4::<0xee>(a, c));
            let high = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(b, d), _mm512_shuffle_f32x4::<0xee>(b, d));
            _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(low, high), _mm512_shuffle_f32x4::<0xdd>(low, high))
        }
    }

    /// Pairs, then neighbours, of two registers at once; the last permutation puts the sums in order.
    #[inline(always)]
    fn sums(self, &[a, b, c, d]: &[__m512; 4]) -> __m512 {
        unsafe {
            let low = _mm512_add_ps(_mm512_shuffle_ps::<0x44>(a, c), _mm512_shuffle_ps::<0xee>(a, c));
            let high = _mm512_add_ps(_mm512_shuffle_ps::<0x44>(b, d), _mm512_shuffle_ps::<0xee>(b, d));
            let ones =
                _mm512_add_ps(_mm512_shuffle_ps::<0x88>(low, high), _mm512_shuffle_ps::<0xdd>(low, high));
            let order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
            _mm512_permutexvar_ps(order, ones)
        }
    }

    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }

    #[inline(always)]
    fn to_i8(self, a: __m512) -> [i8; LANES] {
        let mut bytes = [0; LANES];
        unsafe {
            let narrow = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a));
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), narrow);
        }
        bytes
    }

    #[inline(always)]
    fn to_f32(self, a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn bytes(self, from: &[u8; 4 * LANES]) -> __m512i {
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn low_nibbles(self, a: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    fn high_nibbles(self, a: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(a), _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    fn with_high(self, low: __m512i, high: __m512i, shift: u32, mask: u8) -> __m512i {
        unsafe {
            let mask = _mm512_set1_epi8(mask.cast_signed());
            let high = _mm512_and_si512(_mm512_srl_epi16(high, _mm_cvtsi32_si128(shift as i32)), mask);
            _mm512_or_si512(low, _mm512_slli_epi16::<4>(high))
        }
    }

    #[inline(always)]
    fn words(self, from: &[u8; 4 * LANES]) -> __m512i {
        self.bytes(from)
    }

    #[inline(always)]
    fn widen(self, from: &[u8; LANES]) -> __m512i {
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn bits(self, a: __m512i, shift: u32, mask: i32) -> __m512i {
        unsafe {
            _mm512_and_si512(_mm512_srl_epi32(a, _mm_cvtsi32_si128(shift as i32)), _mm512_set1_epi32(mask))
        }
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn add_i32(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn mul_i32(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_mullo_epi32(a, b) }
    }

    #[inline(always)]
    fn start(self, value: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    fn dot(self, sum: __m512i, weights: __m512i, x: i32) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(x)) }
    }

    /// The instruction takes unsigned weights, so the bias of 128 is multiplied too; it is taken off here.
    #[inline(always)]
    fn zero_biased(self, bias: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(bias) }
    }

    #[inline(always)]
    fn dot_biased(self, sum: __m512i, weights: __m512i, x: i32) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(x)) }
    }
}
