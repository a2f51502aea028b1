//! Root mean square norm: `y = x / √(mean(x²) + ε) · w`, row by row.

use crate::Kernels;
use crate::lanes::{Kernel, LANES, Lanes};
use crate::shared::Shared;

impl Kernels {
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
            let mut squares = l.splat(0.0);
            for part in x.chunks(LANES) {
                let part = l.load_part(part);
                squares = l.fma(part, part, squares);
            }
            let scale = l.splat(1.0 / (l.sum(squares) / width as f32 + self.epsilon).sqrt());
            for ((x, weight), y) in x.chunks(LANES).zip(self.weight.chunks(LANES)).zip(y.chunks_mut(LANES)) {
                let value = l.mul(l.mul(l.load_part(x), scale), l.load_part(weight));
                l.store_part(value, y);
            }
        }
    }
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
}
