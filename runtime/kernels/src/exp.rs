//! `eˣ` on lanes, the same bits on every instruction set.

use crate::lanes::Lanes;

/// `eˣ` to about two units in the last place, for `x` clamped to where it is a normal number: −∞ gives 2e−38.
///
/// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, the two-part `ln 2` of Cody and Waite, then a polynomial for `eʳ`
/// (coefficients of Cephes' `expf`) and an exact power of two.
#[inline(always)]
pub(crate) fn exp<L: Lanes>(l: L, x: L::F32) -> L::F32 {
    let x = l.max(l.min(x, l.splat(88.0)), l.splat(-87.0));
    let n = l.round(l.mul(x, l.splat(std::f32::consts::LOG2_E)));
    let r = l.fma(n, l.splat(-0.693_359_4), x);
    let r = l.fma(n, l.splat(2.121_944_4e-4), r);
    let mut p = l.splat(1.987_569_1e-4);
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
        p = l.fma(p, r, l.splat(coefficient));
    }
    let p = l.add(l.fma(p, l.mul(r, r), r), l.splat(1.0));
    l.mul(p, l.exp2(n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::lanes::{Kernel, LANES};

    struct Exp<'a>(&'a mut [f32; LANES]);

    impl Kernel for Exp<'_> {
        #[inline(always)]
        fn run<L: Lanes>(self, l: L) {
            let value = exp(l, l.load(self.0));
            l.store(value, self.0);
        }
    }

    #[test]
    fn it_is_close_to_the_truth_and_equal_everywhere() {
        for step in -8_700..8_800 {
            let x = step as f32 * 0.01;
            let mut expected = [x; LANES];
            Isa::scalar().run(Exp(&mut expected));
            let truth = f64::from(x).exp();
            let error = (f64::from(expected[0]) - truth).abs() / truth;
            assert!(error < 3e-7, "e^{x}: {} for {truth}", expected[0]);
            for isa in Isa::available() {
                let mut found = [x; LANES];
                isa.run(Exp(&mut found));
                assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits), "{}", isa.name());
            }
        }
    }

    #[test]
    fn minus_infinity_gives_next_to_nothing() {
        let mut x = [f32::NEG_INFINITY; LANES];
        Isa::detect().run(Exp(&mut x));
        assert!(x[0] >= 0.0 && x[0] < 1e-37);
    }
}
