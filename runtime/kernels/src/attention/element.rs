//! How a row of keys or values lies in the cache: as floats, half floats, or blocks of bytes with a scale.

use half::f16;

use crate::format::BLOCK;
use crate::lanes::{LANES, Lanes};

/// Bytes of a stored Q8_0 block: a scale in half precision and 32 signed bytes.
pub(crate) const Q8_BYTES: usize = 2 + BLOCK;

/// What an arena is made of.
pub(super) trait Element: Copy + Send + Sync {
    /// How many of them hold a row of this many numbers.
    fn stored(numbers: usize) -> usize;

    /// The `part`-th sixteen numbers of a stored row.
    fn load<L: Lanes>(l: L, row: &[Self], part: usize) -> L::F32;

    /// Stores a row, rounded.
    fn store<L: Lanes>(l: L, from: &[[f32; LANES]], row: &mut [Self]);
}

impl Element for f32 {
    fn stored(numbers: usize) -> usize {
        numbers
    }

    #[inline(always)]
    fn load<L: Lanes>(l: L, row: &[f32], part: usize) -> L::F32 {
        l.load(row[part * LANES..][..LANES].try_into().expect("sixteen"))
    }

    #[inline(always)]
    fn store<L: Lanes>(_: L, from: &[[f32; LANES]], row: &mut [f32]) {
        row.copy_from_slice(from.as_flattened());
    }
}

impl Element for f16 {
    fn stored(numbers: usize) -> usize {
        numbers
    }

    #[inline(always)]
    fn load<L: Lanes>(l: L, row: &[f16], part: usize) -> L::F32 {
        let sixteen: &[f16; LANES] = row[part * LANES..][..LANES].try_into().expect("sixteen");
        // SAFETY: half floats are two plain bytes each. Number by number they would come from memory one by one.
        l.load_f16(unsafe { &*std::ptr::from_ref(sixteen).cast() })
    }

    #[inline(always)]
    fn store<L: Lanes>(l: L, from: &[[f32; LANES]], row: &mut [f16]) {
        for (from, to) in from.iter().zip(row.as_chunks_mut::<LANES>().0) {
            // SAFETY: as above.
            l.store_f16(l.load(from), unsafe { &mut *std::ptr::from_mut(to).cast() });
        }
    }
}

/// Blocks of ggml's Q8_0.
impl Element for u8 {
    fn stored(numbers: usize) -> usize {
        numbers / BLOCK * Q8_BYTES
    }

    #[inline(always)]
    fn load<L: Lanes>(l: L, row: &[u8], part: usize) -> L::F32 {
        let block = &row[part / 2 * Q8_BYTES..][..Q8_BYTES];
        let quants = &block[2 + part % 2 * LANES..][..LANES];
        let quants = l.to_f32(l.widen(quants.try_into().expect("sixteen")));
        l.mul(quants, l.splat_f16([block[0], block[1]]))
    }

    /// As ggml's reference does, but that ties go to even: the scale is rounded after the quants are made with it.
    #[inline(always)]
    fn store<L: Lanes>(l: L, from: &[[f32; LANES]], row: &mut [u8]) {
        for (from, block) in from.chunks_exact(2).zip(row.chunks_exact_mut(Q8_BYTES)) {
            let (low, high) = (l.load(&from[0]), l.load(&from[1]));
            let scale = l.largest(l.max(l.abs(low), l.abs(high))) / 127.0;
            let inverse = l.splat(if scale > 0.0 { 1.0 / scale } else { 0.0 });
            let mut half = [0; 2 * LANES];
            l.store_f16(l.splat(scale), &mut half);
            block[..2].copy_from_slice(&half[..2]);
            let quants = l.to_i8(l.mul(low, inverse)).into_iter().chain(l.to_i8(l.mul(high, inverse)));
            for (to, quant) in block[2..].iter_mut().zip(quants) {
                *to = quant.cast_unsigned();
            }
        }
    }
}
