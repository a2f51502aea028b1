//! Root mean square norm: `y = x / √(mean(x²) + ε) · w`, row by row, or head by head within the rows.

use crate::Kernels;
use crate::lanes::{Kernel, LANES, Lanes};
use crate::shared::Shared;

/// The norm of some heads of a row, each on its own, with one weight for all of them.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorm<'a> {
    /// How many heads.
    pub n_heads: usize,
    /// The gain, as long as a head.
    pub weight: &'a [f32],
    /// What keeps the root away from zero.
    pub epsilon: f32,
}

impl HeadNorm<'_> {
    const fn width(&self) -> usize {
        self.n_heads * self.weight.len()
    }
}

impl Kernels {
    /// Normalises heads of each row in place: the first ones by the first of `norms`, those that follow by the next.
    /// What follows them in the row stays as it is.
    ///
    /// # Shapes
    /// - `x`: `[rows, width]` with `width` at least that of all normalised heads
    ///
    /// # Panics
    /// Where the shapes do not fit together.
    pub fn head_norms(&self, x: &mut [f32], width: usize, norms: &[HeadNorm<'_>]) {
        let n_rows = x.len() / width;
        let normalised: usize = norms.iter().map(HeadNorm::width).sum();
        assert!(normalised <= width && x.len() == n_rows * width, "the heads lie within whole rows");
        let out = Shared::new(x);
        self.for_rows(n_rows, n_rows * normalised, |rows| {
            for row in rows {
                let mut start = row * width;
                for norm in norms {
                    let end = start + norm.width();
                    // SAFETY: tasks have rows of their own, and the heads of a row lie side by side.
                    let heads = unsafe { out.piece(start..end) };
                    self.isa().run(NormaliseHeads { heads, norm });
                    start = end;
                }
            }
        });
    }

    /// Normalises each row of `x` into `y`.
    ///
    /// Zhang and Sennrich 2019, eq. 4. The squares add up lane by lane in `f32`.
    ///
    /// # Shapes
    /// - `x`, `y`: `[rows, weight.len()]`
    ///
    /// # Panics
    /// Where the shapes do not fit together.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32]) {
        let width = weight.len();
        let n_rows = x.len() / width;
        assert_eq!((x.len(), y.len()), (n_rows * width, n_rows * width), "input and output are whole rows");
        let out = Shared::new(y);
        self.for_rows(n_rows, x.len(), |rows| {
            // SAFETY: tasks have rows of their own.
            let y = unsafe { out.piece(rows.start * width..rows.end * width) };
            self.isa().run(RmsNorm { x: &x[rows.start * width..rows.end * width], weight, epsilon, y });
        });
    }
}

struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
    y: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let width = self.weight.len();
        for (x, y) in self.x.chunks_exact(width).zip(self.y.chunks_exact_mut(width)) {
            let scale = scale(l, x, self.epsilon);
            for ((x, weight), y) in x.chunks(LANES).zip(self.weight.chunks(LANES)).zip(y.chunks_mut(LANES)) {
                let value = l.mul(l.mul(l.load_part(x), scale), l.load_part(weight));
                l.store_part(value, y);
            }
        }
    }
}

struct NormaliseHeads<'a> {
    heads: &'a mut [f32],
    norm: &'a HeadNorm<'a>,
}

impl Kernel for NormaliseHeads<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let HeadNorm { weight, epsilon, .. } = *self.norm;
        for head in self.heads.chunks_exact_mut(weight.len()) {
            let scale = scale(l, head, epsilon);
            for (x, weight) in head.chunks_mut(LANES).zip(weight.chunks(LANES)) {
                let value = l.mul(l.mul(l.load_part(x), scale), l.load_part(weight));
                l.store_part(value, x);
            }
        }
    }
}

/// `1 / √(mean(x²) + ε)` in every lane.
#[inline(always)]
fn scale<L: Lanes>(l: L, x: &[f32], epsilon: f32) -> L::F32 {
    let mut squares = l.splat(0.0);
    for part in x.chunks(LANES) {
        let part = l.load_part(part);
        squares = l.fma(part, part, squares);
    }
    l.splat(1.0 / (l.sum(squares) / x.len() as f32 + epsilon).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn rows_have_a_root_mean_square_of_one_before_the_weight() {
        let width = 37;
        let x: Vec<f32> = (0..3 * width).map(|index| (index as f32 * 1.3).sin() * 4.0).collect();
        let weight: Vec<f32> = (0..width).map(|index| 1.0 + index as f32).collect();
        let mut expected = vec![0.0; x.len()];
        Kernels::new(Isa::scalar(), 1).rms_norm(&x, &weight, 1e-5, &mut expected);
        for (x, y) in x.chunks(width).zip(expected.chunks(width)) {
            let mean: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
            for ((x, weight), y) in x.iter().zip(&weight).zip(y) {
                let truth = f64::from(*x) / (mean + 1e-5).sqrt() * f64::from(*weight);
                assert!((f64::from(*y) - truth).abs() < 1e-5 * truth.abs().max(1.0), "{y} for {truth}");
            }
        }
        for isa in Isa::available() {
            let mut found = vec![0.0; x.len()];
            Kernels::new(isa, 2).rms_norm(&x, &weight, 1e-5, &mut found);
            assert_eq!(found, expected, "{}", isa.name());
        }
    }
    #[test]
    fn heads_are_normalised_like_rows_of_their_own() {
        let (rows, dim, n_heads) = (3, 32, [3, 2]);
        let width = (n_heads[0] + n_heads[1] + 1) * dim;
        let x: Vec<f32> = (0..rows * width).map(|index| (index as f32 * 0.7).sin() * 3.0).collect();
        let weights: [Vec<f32>; 2] = [1.0f32, 2.0].map(|w| (0..dim).map(|index| w + index as f32).collect());
        for isa in Isa::available() {
            let kernels = Kernels::new(isa, 2);
            let norm =
                |kind: usize| HeadNorm { n_heads: n_heads[kind], weight: &weights[kind], epsilon: 1e-5 };
            let mut found = x.clone();
            kernels.head_norms(&mut found, width, &[norm(0), norm(1)]);
            for (x, found) in x.chunks(width).zip(found.chunks(width)) {
                for (head, (x, found)) in x.chunks(dim).zip(found.chunks(dim)).enumerate() {
                    let mut expected = x.to_vec();
                    if head < n_heads[0] + n_heads[1] {
                        kernels.rms_norm(x, &weights[usize::from(head >= n_heads[0])], 1e-5, &mut expected);
                    }
                    assert_eq!(found, expected, "{}, head {head}", isa.name());
                }
            }
        }
    }
}
